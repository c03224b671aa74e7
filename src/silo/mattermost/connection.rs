//! One WebSocket to Mattermost: it is opened, read event by event, and pinged when it is silent.

use std::time::Duration;

use anyhow::{Context, anyhow};
use footbridge_core::{http_client::redirect_error, secret::Secret};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as WireError, Message as Frame};
use url::Url;

use super::{
    api::Event,
    client::{RESPONSE_TIMEOUT, address},
    errors::RequestError,
    listener::ListenError,
};
use crate::websocket::{self, HandshakeError, Socket};

/// The longest frame, in bytes.
const MAX_FRAME: usize = 8 << 20;

/// The address and the token of the feed.
pub struct FeedEndpoint {
    /// An HTTP/1.1 client without a time limit for whole responses.
    pub http: reqwest::Client,
    /// The base URL of `/api/v4`.
    pub url: Url,
    /// The account's token.
    pub token: Secret,
    /// How long the connection may be silent, and then the time limit for the response to the ping.
    pub ping: Duration,
    /// How often each channel is read.
    pub audit: Duration,
}

/// Why a connection ended.
pub enum ConnectionEnd {
    /// The bridge stops.
    Stopped,
    /// Mattermost refuses the token.
    SignedOut,
    /// An error of the network or of Mattermost.
    Lost(anyhow::Error),
    /// The bridge's own store failed.
    Store(footbridge_store::Error),
}

impl From<ListenError> for ConnectionEnd {
    fn from(failure: ListenError) -> Self {
        match failure {
            ListenError::Store(error) => Self::Store(error),
            ListenError::Fault(RequestError::SignedOut) => Self::SignedOut,
            ListenError::Fault(RequestError::Unavailable { source, .. }) => Self::Lost(source),
            ListenError::Fault(other) => Self::Lost(anyhow!(other)),
        }
    }
}

/// When the last frame arrived, and whether a ping was sent since.
pub struct Keepalive {
    ping: Duration,
    last: Instant,
    asked: bool,
    number: u64,
}

impl Keepalive {
    /// For a connection that has just begun.
    pub fn new(ping: Duration) -> Self {
        Self {
            ping,
            last: Instant::now(),
            asked: false,
            number: 1,
        }
    }

    fn silent_until(&self) -> Instant {
        self.last + self.ping * if self.asked { 2 } else { 1 }
    }
}

/// The next event; `None` for any other frame. Sends a ping when the connection is silent.
pub async fn next(
    socket: &mut Socket,
    keepalive: &mut Keepalive,
) -> Result<Option<Event>, ConnectionEnd> {
    tokio::select! {
        frame = socket.next() => {
            (keepalive.last, keepalive.asked) = (Instant::now(), false);
            let frame = frame.ok_or_else(|| ConnectionEnd::Lost(anyhow!("Mattermost closed the connection")))?;
            event_of(frame)
        }
        () = tokio::time::sleep_until(keepalive.silent_until()) => {
            if keepalive.asked {
                return Err(ConnectionEnd::Lost(anyhow!("Mattermost stopped responding")));
            }
            keepalive.asked = true;
            keepalive.number += 1;
            let ping = json!({ "seq": keepalive.number, "action": "ping" }).to_string();
            let sent = tokio::time::timeout(RESPONSE_TIMEOUT, socket.send(Frame::text(ping))).await;
            match sent {
                Ok(Ok(())) => Ok(None),
                Ok(Err(error)) => Err(ConnectionEnd::Lost(anyhow!(error))),
                Err(_) => Err(ConnectionEnd::Lost(anyhow!("Failed to send to Mattermost"))),
            }
        }
    }
}

/// The event of a frame, if it has one.
fn event_of(frame: Result<Frame, WireError>) -> Result<Option<Event>, ConnectionEnd> {
    let frame = frame.context("The connection to Mattermost broke");
    let event = match frame.map_err(ConnectionEnd::Lost)? {
        Frame::Text(text) => serde_json::from_str::<Event>(&text),
        Frame::Binary(bytes) => serde_json::from_slice(&bytes),
        Frame::Close(_) => {
            return Err(ConnectionEnd::Lost(anyhow!(
                "Mattermost closed the connection"
            )));
        }
        Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => return Ok(None),
    };
    if event.is_err() {
        // It had a number: the next event reveals that it is missing, and then the channels are read.
        tracing::warn!("Unreadable frame from Mattermost; skipped");
    }
    Ok(event.ok())
}

/// Opens a connection and authenticates.
pub async fn open(wire: &FeedEndpoint) -> Result<Socket, ConnectionEnd> {
    let url =
        address(&wire.url, &["websocket"]).map_err(|error| ConnectionEnd::Lost(anyhow!(error)))?;
    let opening = async {
        let opened = websocket::open(&wire.http, &url, Some(&wire.token), MAX_FRAME).await;
        let mut socket = opened.map_err(|failure| match failure {
            HandshakeError::Answered(401) => ConnectionEnd::SignedOut,
            HandshakeError::Answered(status) => {
                ConnectionEnd::Lost(anyhow!("Mattermost answered with status {status}"))
            }
            HandshakeError::Redirected(to) => {
                ConnectionEnd::Lost(anyhow!(redirect_error("url", &to)))
            }
            HandshakeError::Unreachable(error) => {
                ConnectionEnd::Lost(anyhow!(error).context("Cannot reach Mattermost"))
            }
            HandshakeError::NotWebSocket => ConnectionEnd::Lost(anyhow!(
                "the server at the configured `url` is not Mattermost's API"
            )),
        })?;
        // Some proxies remove the authorization header; repeating the token does no harm.
        let token = json!({ "token": wire.token.expose() });
        let who = json!({ "seq": 1, "action": "authentication_challenge", "data": token });
        let sent = socket.send(Frame::text(who.to_string())).await;
        sent.map_err(|error| ConnectionEnd::Lost(anyhow!(error)))?;
        Ok(socket)
    };
    tokio::time::timeout(RESPONSE_TIMEOUT, opening)
        .await
        .map_err(|_| ConnectionEnd::Lost(anyhow!("Mattermost does not answer")))?
}
