//! Gitter's WebSocket: bounded frames and time limits.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use footbridge_core::{http_client::redirect_error, secret::Secret};
use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use url::Url;

pub use crate::websocket::Socket;
use crate::websocket::{self, HandshakeError};

/// A longer frame ends the session; the next session requests no snapshots.
const MAX_FRAME: usize = 1 << 20;
/// The time limit for requests that Gitter answers at once.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

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
    opened.map_err(|failure| match failure {
        HandshakeError::Unreachable(error) => {
            anyhow!(error).context("Cannot reach Gitter's realtime service")
        }
        HandshakeError::Answered(status) => {
            anyhow!("Gitter's realtime service answered with status {status}")
        }
        HandshakeError::Redirected(to) => anyhow!(redirect_error("realtime", &to)),
        HandshakeError::NotWebSocket => {
            anyhow!("Gitter's realtime service does not speak WebSocket")
        }
    })
}

/// Sends a frame.
pub async fn say(socket: &mut Socket, frame: String) -> anyhow::Result<()> {
    tokio::time::timeout(RESPONSE_TIMEOUT, socket.send(Frame::text(frame)))
        .await
        .context("Failed to send to Gitter")?
        .context("Cannot write to Gitter")
}

/// The text of a frame, if it has one.
pub fn text_of(frame: Frame) -> anyhow::Result<Option<String>> {
    match frame {
        Frame::Text(text) => Ok(Some(text.as_str().to_owned())),
        Frame::Binary(bytes) => Ok(String::from_utf8(bytes.to_vec()).ok()),
        Frame::Close(_) => bail!("Gitter closed the connection"),
        Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => Ok(None),
    }
}

/// Whether a connection ended because of a frame above the limit.
pub fn is_too_long(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<tungstenite::Error>(),
        Some(tungstenite::Error::Capacity(_))
    )
}
