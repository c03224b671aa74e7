//! Gitter's WebSocket: bounded frames and time limits.

use footbridge_core::secret::Secret;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use url::Url;

use super::super::errors::SERVICE;
use crate::websocket;
pub use crate::websocket::Socket;

/// A longer frame ends the session; the next session requests no snapshots.
const MAX_FRAME: usize = 1 << 20;

/// The address and the token of the feed.
pub struct Endpoint {
    /// A client limited to HTTP/1.1, which the handshake of a WebSocket needs.
    pub http: reqwest::Client,
    /// `ws` or `wss`.
    pub url: Url,
    /// The account's token.
    pub token: Secret,
}

/// Opens the WebSocket.
pub async fn open(endpoint: &Endpoint) -> anyhow::Result<Socket> {
    // The session's handshake carries the token, not this request.
    let opened = websocket::open(&endpoint.http, &endpoint.url, None, MAX_FRAME).await;
    opened.map_err(|error| error.of("Gitter's realtime service", "realtime"))
}

/// Sends a frame.
pub async fn send(socket: &mut Socket, frame: String) -> anyhow::Result<()> {
    websocket::send(socket, Frame::text(frame), SERVICE.name).await
}

/// The text of a frame, if it has one.
pub fn text_of(frame: Option<Result<Frame, tungstenite::Error>>) -> anyhow::Result<Option<String>> {
    let data = websocket::data_of(frame, SERVICE.name)?;
    Ok(data.and_then(|data| String::from_utf8(data.to_vec()).ok()))
}

/// Whether a connection ended because of a frame above the limit.
pub fn is_too_long(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<tungstenite::Error>(),
        Some(tungstenite::Error::Capacity(_))
    )
}
