//! Web sockets to silos: opened through the HTTP client, so that proxies and certificates are the same for all. What
//! is said over them is each silo's own business.

use footbridge_core::{http_client, secret::Secret};
use reqwest::{RequestBuilder, StatusCode, Upgraded, header};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};
use url::Url;

/// An open connection.
pub type Socket = WebSocketStream<Upgraded>;

/// Why a WebSocket was not opened.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// There was no answer, or the connection broke.
    #[error("there is no answer")]
    Unreachable(#[source] reqwest::Error),
    /// The answer had this HTTP status instead of 101.
    #[error("the answer has status {0}")]
    Answered(u16),
    /// The answer leads to another address, by its origin, where no token is sent.
    #[error("the answer leads elsewhere, to {0}")]
    Redirected(String),
    /// What answered does not speak the protocol.
    #[error("what answers is no WebSocket")]
    NotWebSocket,
}

/// Opens the WebSocket at `url` (`ws`, `wss`, `http` or `https`), with a bearer token where there is one. `client` is one
/// of HTTP/1.1 only: that is where a WebSocket begins. Frames of more than `longest` bytes end the connection.
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
    // The address may hold what is nobody's business; the cause is enough.
    let silent = |error: reqwest::Error| HandshakeError::Unreachable(error.without_url());
    let response = request.send().await.map_err(silent)?;
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
    let upgraded = response.upgrade().await.map_err(silent)?;
    let limits = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(longest))
        .max_frame_size(Some(longest));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(limits)).await)
}

/// The address that the first request goes to.
fn over_http(url: &Url) -> Url {
    let mut url = url.clone();
    let scheme = match url.scheme() {
        "ws" => Some("http"),
        "wss" => Some("https"),
        _ => None,
    };
    if let Some(scheme) = scheme {
        // Both are schemes of the same sort, so this cannot be refused; if it were, the request would be.
        let _kept = url.set_scheme(scheme);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

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
