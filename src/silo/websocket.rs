//! WebSockets to silos, opened through the HTTP client, so that proxies and certificates are the same for all. Each
//! silo defines its own messages.

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
