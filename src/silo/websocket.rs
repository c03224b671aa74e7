//! Web sockets to silos, opened through the HTTP client, so that proxies and certificates are the same for all. Each
//! silo defines its own messages.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use footbridge_core::{
    http_client::{self, redirect_error},
    secret::Secret,
};
use futures_util::SinkExt;
use reqwest::{RequestBuilder, StatusCode, Upgraded, header};
use tokio::time::Instant;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Error as WireError, Message as Frame,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};
use url::Url;

use crate::rest::RESPONSE_TIMEOUT;

/// An open connection.
pub type Socket = WebSocketStream<Upgraded>;

/// Why a WebSocket was not opened.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// There was no response, or the connection broke.
    #[error("no response")]
    Unreachable(#[source] reqwest::Error),
    /// The response had this HTTP status instead of 101.
    #[error("the response has status {0} instead of 101")]
    Answered(u16),
    /// The response redirects to this origin; the bridge sends its token to no other address.
    #[error("the response redirects to {0}")]
    Redirected(String),
    /// The response is no valid WebSocket handshake.
    #[error("the server does not speak WebSocket")]
    NotWebSocket,
}

impl HandshakeError {
    /// The error with the name of the service, and of the key of the configuration that holds its address.
    pub fn of(self, service: &str, address_key: &str) -> anyhow::Error {
        match self {
            Self::Unreachable(error) => anyhow!(error).context(format!("Cannot reach {service}")),
            Self::Answered(status) => anyhow!("{service} answered with status {status}"),
            Self::Redirected(to) => anyhow!(redirect_error(address_key, &to)),
            Self::NotWebSocket => anyhow!(
                "the server at the configured `{address_key}` does not answer as {service} does"
            ),
        }
    }
}

/// Opens the WebSocket at `url` (`ws`, `wss`, `http` or `https`), with a bearer token where there is one. `client` must
/// be limited to HTTP/1.1, which the handshake needs. Frames of more than `longest` bytes end the connection.
pub async fn open(
    client: &reqwest::Client,
    url: &Url,
    token: Option<&Secret>,
    longest: usize,
) -> Result<Socket, HandshakeError> {
    let key = generate_key();
    let request = client
        .get(over_http(url))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key);
    let request = token
        .into_iter()
        .fold(request, |request: RequestBuilder, token| {
            request.bearer_auth(token.expose())
        });
    // The URL may contain secrets, so errors leave it out.
    let without_url = |error: reqwest::Error| HandshakeError::Unreachable(error.without_url());
    let response = request.send().await.map_err(without_url)?;
    if let Some(to) = http_client::redirect_target(&response) {
        return Err(HandshakeError::Redirected(to));
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(HandshakeError::Answered(response.status().as_u16()));
    }
    let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accepted.is_none_or(|accepted| accepted != derive_accept_key(key.as_bytes()).as_str()) {
        return Err(HandshakeError::NotWebSocket);
    }
    let upgraded = response.upgrade().await.map_err(without_url)?;
    let limits = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(longest))
        .max_frame_size(Some(longest));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(limits)).await)
}

/// Sends a frame.
pub async fn send(socket: &mut Socket, frame: Frame, service: &str) -> anyhow::Result<()> {
    tokio::time::timeout(RESPONSE_TIMEOUT, socket.send(frame))
        .await
        .with_context(|| format!("Failed to send to {service}"))?
        .with_context(|| format!("Cannot write to {service}"))
}

/// The bytes of a frame that the connection delivered, if it is one of text or data.
pub fn data_of(
    frame: Option<Result<Frame, WireError>>,
    service: &str,
) -> anyhow::Result<Option<Bytes>> {
    let Some(frame) = frame else {
        bail!("{service} closed the connection");
    };
    match frame.with_context(|| format!("The connection to {service} broke"))? {
        Frame::Text(text) => Ok(Some(text.into())),
        Frame::Binary(bytes) => Ok(Some(bytes)),
        Frame::Close(_) => bail!("{service} closed the connection"),
        Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => Ok(None),
    }
}

/// When the last frame arrived, and whether a ping was sent since.
pub struct Keepalive {
    interval: Duration,
    last: Instant,
    asked: bool,
}

impl Keepalive {
    /// For a connection that has just begun: a ping after this long without a frame, and as long for the answer.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: Instant::now(),
            asked: false,
        }
    }

    /// A frame arrived.
    pub fn note_frame(&mut self) {
        (self.last, self.asked) = (Instant::now(), false);
    }

    /// When [`Keepalive::note_silence`] is due.
    pub fn silent_at(&self) -> Instant {
        self.last + self.interval * if self.asked { 2 } else { 1 }
    }

    /// No frame arrived: a ping is to be sent, or the connection is dead.
    pub fn note_silence(&mut self, service: &str) -> anyhow::Result<()> {
        if self.asked {
            bail!("{service} stopped responding");
        }
        self.asked = true;
        Ok(())
    }
}

/// The address of the handshake request.
fn over_http(url: &Url) -> Url {
    let mut url = url.clone();
    let scheme = match url.scheme() {
        "ws" => Some("http"),
        "wss" => Some("https"),
        _ => None,
    };
    if let Some(scheme) = scheme {
        // `Url::set_scheme` accepts a change between these schemes; if it did not, the request would fail.
        let _kept = url.set_scheme(scheme);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_answers_no_ping_is_dead() {
        let second = Duration::from_secs(1);
        let mut keepalive = Keepalive::new(second);
        let began = Instant::now();
        assert_eq!(keepalive.silent_at(), began + second);
        assert!(keepalive.note_silence("Chat").is_ok());
        assert_eq!(keepalive.silent_at(), began + 2 * second);
        tokio::time::advance(second).await;
        keepalive.note_frame();
        assert_eq!(keepalive.silent_at(), began + 2 * second);
        assert!(keepalive.note_silence("Chat").is_ok());
        assert!(keepalive.note_silence("Chat").is_err());
    }

    #[test]
    fn websocket_addresses_are_asked_over_http() {
        for (url, asked) in [
            ("ws://chat.example/x", "http://chat.example/x"),
            ("wss://chat.example:1/x", "https://chat.example:1/x"),
            ("https://chat.example/x", "https://chat.example/x"),
        ] {
            assert_eq!(over_http(&url.parse().unwrap()).as_str(), asked);
        }
    }
}
