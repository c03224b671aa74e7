//! One WebSocket to Mattermost: opened, read event by event, and asked for a sign of life when it is silent.

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

/// Where and as whom to listen.
pub struct FeedEndpoint {
    /// A client of HTTP/1.1 without a time limit on whole answers.
    pub http: reqwest::Client,
    /// What `/api/v4` stands behind.
    pub url: Url,
    /// The account's token.
    pub token: Secret,
    /// How long a silence may be, and then how long its end may take.
    pub ping: Duration,
    /// How often each channel is read.
    pub audit: Duration,
}

/// Why a connection ended.
pub enum ConnectionEnd {
    /// We were told to stop.
    Stopped,
    /// Our token is not accepted.
    SignedOut,
    /// Something went wrong on the way or over there.
    Lost(anyhow::Error),
    /// Our own store failed.
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

/// How long the connection has been silent, and whether it was asked.
pub struct Keepalive {
    ping: Duration,
    last: Instant,
    asked: bool,
    number: u64,
}

impl Keepalive {
    /// Of a connection that has just begun.
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

/// The next event; `None` for what is none. Asks for a sign of life where there is none.
pub async fn next(
    socket: &mut Socket,
    pulse: &mut Keepalive,
) -> Result<Option<Event>, ConnectionEnd> {
    tokio::select! {
        frame = socket.next() => {
            (pulse.last, pulse.asked) = (Instant::now(), false);
            let frame = frame.ok_or_else(|| ConnectionEnd::Lost(anyhow!("Mattermost closed the connection")))?;
            event_of(frame)
        }
        () = tokio::time::sleep_until(pulse.silent_until()) => {
            if pulse.asked {
                return Err(ConnectionEnd::Lost(anyhow!("Mattermost does not answer any more")));
            }
            pulse.asked = true;
            pulse.number += 1;
            let ping = json!({ "seq": pulse.number, "action": "ping" }).to_string();
            let asked = tokio::time::timeout(RESPONSE_TIMEOUT, socket.send(Frame::text(ping))).await;
            match asked {
                Ok(Ok(())) => Ok(None),
                Ok(Err(error)) => Err(ConnectionEnd::Lost(anyhow!(error))),
                Err(_) => Err(ConnectionEnd::Lost(anyhow!("Failed to send to Mattermost"))),
            }
        }
    }
}

/// What a frame tells, if anything.
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
        // It had a number: that it is missing shows in the next one, and the channels are read then.
        tracing::warn!("Unreadable frame from Mattermost; skipped");
    }
    Ok(event.ok())
}

/// Opens a connection and says who we are.
pub async fn open(wire: &FeedEndpoint) -> Result<Socket, ConnectionEnd> {
    let url =
        address(&wire.url, &["websocket"]).map_err(|fault| ConnectionEnd::Lost(anyhow!(fault)))?;
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
                "what answers at the configured `url` is not Mattermost's API"
            )),
        })?;
        // Some proxies take the header away; saying it again does no harm.
        let token = json!({ "token": wire.token.expose() });
        let who = json!({ "seq": 1, "action": "authentication_challenge", "data": token });
        let said = socket.send(Frame::text(who.to_string())).await;
        said.map_err(|error| ConnectionEnd::Lost(anyhow!(error)))?;
        Ok(socket)
    };
    tokio::time::timeout(RESPONSE_TIMEOUT, opening)
        .await
        .map_err(|_| ConnectionEnd::Lost(anyhow!("Mattermost does not answer")))?
}
