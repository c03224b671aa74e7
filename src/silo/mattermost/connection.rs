//! One WebSocket to Mattermost: it is opened, read event by event, and pinged when it is silent.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::secret::Secret;
use futures_util::StreamExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::{Error as WireError, Message as Frame};
use url::Url;

use super::{api::Event, client::api_url, errors::SERVICE, listener::ListenError};
use crate::{
    reconnect::ConnectionEnd,
    rest::{self, RESPONSE_TIMEOUT},
    websocket::{self, HandshakeError, Keepalive, Socket},
};

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

impl From<ListenError> for ConnectionEnd {
    fn from(failure: ListenError) -> Self {
        match failure {
            ListenError::Store(error) => Self::Store(error),
            ListenError::Request(error) => error.into(),
        }
    }
}

/// An open WebSocket.
pub struct EventSocket {
    socket: Socket,
    keepalive: Keepalive,
    /// The number of the last request.
    seq: u64,
}

impl EventSocket {
    /// Opens a connection and authenticates.
    pub async fn open(wire: &FeedEndpoint) -> Result<Self, ConnectionEnd> {
        let socket = tokio::time::timeout(RESPONSE_TIMEOUT, open(wire))
            .await
            .map_err(|_| ConnectionEnd::Lost(anyhow!("Mattermost does not answer")))??;
        Ok(Self {
            socket,
            keepalive: Keepalive::new(wire.ping),
            seq: 1,
        })
    }

    /// The next event; `None` for any other frame. Sends a ping when the connection is silent. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Event>, ConnectionEnd> {
        tokio::select! {
            frame = self.socket.next() => {
                self.keepalive.note_frame();
                event_of(frame)
            }
            () = tokio::time::sleep_until(self.keepalive.silent_at()) => {
                let alive = self.keepalive.note_silence(SERVICE.name);
                alive.map_err(ConnectionEnd::Lost)?;
                self.seq += 1;
                let ping = json!({ "seq": self.seq, "action": "ping" }).to_string();
                let sent = websocket::send(&mut self.socket, Frame::text(ping), SERVICE.name).await;
                sent.map(|()| None).map_err(ConnectionEnd::Lost)
            }
        }
    }

    /// Closes the connection. Optional: Mattermost drops it by itself.
    pub async fn close(mut self) {
        let _sent = tokio::time::timeout(Duration::from_secs(1), self.socket.close(None)).await;
    }
}

/// The event of a frame, if it has one.
fn event_of(frame: Option<Result<Frame, WireError>>) -> Result<Option<Event>, ConnectionEnd> {
    let data = websocket::data_of(frame, SERVICE.name).map_err(ConnectionEnd::Lost)?;
    let Some(data) = data else {
        return Ok(None);
    };
    let event = serde_json::from_slice(&data);
    if event.is_err() {
        // It had a number: the next event reveals that it is missing, and then the channels are read.
        tracing::warn!("Unreadable frame from Mattermost; skipped");
    }
    Ok(event.ok())
}

async fn open(wire: &FeedEndpoint) -> Result<Socket, ConnectionEnd> {
    let url = rest::address(&SERVICE, &api_url(&wire.url), &["websocket"])?;
    let opened = websocket::open(&wire.http, &url, Some(&wire.token), MAX_FRAME).await;
    let mut socket = opened.map_err(|failure| match failure {
        HandshakeError::Answered(401) => ConnectionEnd::SignedOut,
        other => ConnectionEnd::Lost(other.of(SERVICE.name, SERVICE.address_key)),
    })?;
    // Some proxies remove the authorization header; repeating the token does no harm.
    let token = json!({ "token": wire.token.expose() });
    let who = json!({ "seq": 1, "action": "authentication_challenge", "data": token });
    let who = Frame::text(who.to_string());
    let sent = websocket::send(&mut socket, who, SERVICE.name).await;
    sent.map_err(ConnectionEnd::Lost)?;
    Ok(socket)
}
