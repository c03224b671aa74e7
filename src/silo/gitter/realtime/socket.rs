//! The WebSocket itself: opened through the HTTP client, with bounded frames and bounded patience.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::SinkExt;
use reqwest::{Upgraded, header};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message as Frame,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};
use url::Url;

use crate::secret::Secret;

/// A frame longer than this ends the session; the next one does without a snapshot.
const LONGEST_FRAME: usize = 1 << 20;
/// For everything that must be answered at once.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// An open connection.
pub type Socket = WebSocketStream<Upgraded>;

/// Where and as whom to connect.
pub struct Endpoint {
    /// A client that speaks HTTP/1.1 only: that is where a WebSocket begins.
    pub http: reqwest::Client,
    /// `ws` or `wss`.
    pub url: Url,
    /// The account's token.
    pub token: Secret,
}

/// Opens the WebSocket through the HTTP client, so that proxies and certificates are the same for all.
pub async fn open(endpoint: &Endpoint) -> anyhow::Result<Socket> {
    let mut url = endpoint.url.clone();
    let scheme = match url.scheme() {
        "ws" | "http" => "http",
        _ => "https",
    };
    url.set_scheme(scheme)
        .map_err(|()| anyhow!("The realtime address must begin with ws:// or wss://"))?;
    let key = generate_key();
    let response = endpoint
        .http
        .get(url)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .context("Cannot reach Gitter's realtime service")?;
    if response.status() != reqwest::StatusCode::SWITCHING_PROTOCOLS {
        bail!(
            "Gitter's realtime service answered with status {}",
            response.status().as_u16()
        );
    }
    let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accepted.is_none_or(|accepted| accepted != derive_accept_key(key.as_bytes()).as_str()) {
        bail!("What answers for Gitter's realtime service is no WebSocket");
    }
    let upgraded = response
        .upgrade()
        .await
        .context("Cannot open a WebSocket to Gitter")?;
    let limits = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(LONGEST_FRAME))
        .max_frame_size(Some(LONGEST_FRAME));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(limits)).await)
}

/// Sends a frame.
pub async fn say(socket: &mut Socket, frame: String) -> anyhow::Result<()> {
    tokio::time::timeout(ANSWER_WITHIN, socket.send(Frame::text(frame)))
        .await
        .context("Gitter does not take what we say")?
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

/// Whether a connection ended because a frame was longer than we read.
pub fn is_too_long(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<tungstenite::Error>(),
        Some(tungstenite::Error::Capacity(_))
    )
}
