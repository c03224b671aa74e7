//! One WebSocket to Matterbridge: it is opened, read a few events at a time, and pinged.

use std::time::Duration;

use anyhow::{Context, anyhow};
use footbridge_core::{http_client::redirect_error, secret::Secret};
use footbridge_store::Millis;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Error as WireError, Message as Frame};
use url::Url;

use super::{
    api::{self, Event, EventKind},
    buffer::MAX_FRAME,
    client::{Client, RESPONSE_TIMEOUT, address},
    errors::{RequestError, RequestKind, classify},
};
use crate::websocket::{self, HandshakeError, Socket};

/// The most frames in one batch when they arrive fast, and the most bytes.
const BURST: usize = 64;
const BURST_BYTES: usize = 1 << 20;

/// The addresses and the token of the feed.
pub struct FeedEndpoint {
    /// An HTTP/1.1 client without a time limit for whole responses.
    pub http: reqwest::Client,
    /// The REST client of the same account.
    pub rest: Client,
    /// The base URL of `/api/…`.
    pub api: Url,
    /// The account's token, if it has one.
    pub token: Option<Secret>,
    /// How long the connection may be silent, and then the time limit for the pong.
    pub ping: Duration,
    /// How often the buffer is read while the WebSocket is open.
    pub audit: Duration,
}

impl FeedEndpoint {
    /// The meaning of this status in response to `what`. The statuses of a wrong or missing token have other causes,
    /// too: Matterbridge's library answers 400 if a proxy removed the upgrade headers.
    pub async fn refused(&self, what: &str, status: u16) -> RequestError {
        match classify(RequestKind::Read, status, "") {
            RequestError::SignedOut => {}
            other => return other,
        }
        match self.rest.ready().await {
            Ok(()) => RequestError::Unavailable(anyhow!(
                "{what} responds with status {status} although Matterbridge accepts the token; a proxy in between must forward \
                 the request, for WebSockets with the headers `Upgrade` and `Connection`"
            )),
            Err(error) => error,
        }
    }
}

/// Why a connection ended.
pub enum ConnectionEnd {
    /// The bridge stops.
    Stopped,
    /// Matterbridge refuses the token.
    SignedOut,
    /// An error of the network or of Matterbridge.
    Lost(anyhow::Error),
    /// The bridge's own store failed.
    Store(footbridge_store::Error),
}

impl From<RequestError> for ConnectionEnd {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::SignedOut => Self::SignedOut,
            RequestError::Unavailable(source) => Self::Lost(source),
            other => Self::Lost(anyhow!(other)),
        }
    }
}

impl From<footbridge_store::Error> for ConnectionEnd {
    fn from(error: footbridge_store::Error) -> Self {
        Self::Store(error)
    }
}

/// Opens a connection.
pub async fn open(wire: &FeedEndpoint) -> Result<Socket, ConnectionEnd> {
    let url = address(&wire.api, "websocket");
    let opening = websocket::open(&wire.http, &url, wire.token.as_ref(), MAX_FRAME);
    let opened = tokio::time::timeout(RESPONSE_TIMEOUT, opening)
        .await
        .map_err(|_| ConnectionEnd::Lost(anyhow!("Matterbridge does not answer")))?;
    let failure = match opened {
        Ok(socket) => return Ok(socket),
        Err(failure) => failure,
    };
    Err(match failure {
        HandshakeError::Answered(status) => wire
            .refused("Matterbridge's WebSocket", status)
            .await
            .into(),
        HandshakeError::Redirected(to) => ConnectionEnd::Lost(anyhow!(redirect_error("api", &to))),
        HandshakeError::Unreachable(error) => {
            ConnectionEnd::Lost(anyhow!(error).context("Cannot reach Matterbridge"))
        }
        HandshakeError::NotWebSocket => ConnectionEnd::Lost(anyhow!(
            "the server at the configured `api` is not Matterbridge's API"
        )),
    })
}

/// Waits for the first object of a connection and returns its time, by Matterbridge's clock.
pub async fn first(socket: &mut Socket) -> Result<Option<Millis>, ConnectionEnd> {
    let hello = async {
        loop {
            let frame = socket.next().await;
            let frame = frame.ok_or_else(|| {
                ConnectionEnd::Lost(anyhow!("Matterbridge closed the connection"))
            })?;
            match event_of(frame)? {
                Some(event) if event.kind() == EventKind::Connected => return Ok(event.sent_at()),
                Some(_) => {
                    return Err(ConnectionEnd::Lost(anyhow!(
                        "Matterbridge's first message is not a greeting"
                    )));
                }
                None => {}
            }
        }
    };
    let hello = tokio::time::timeout(RESPONSE_TIMEOUT, hello).await;
    hello.map_err(|_| ConnectionEnd::Lost(anyhow!("Matterbridge sent no greeting")))?
}

/// The event of this frame and those of the frames that have already arrived.
pub fn burst(
    first: Option<Result<Frame, WireError>>,
    socket: &mut Socket,
) -> Result<Vec<Event>, ConnectionEnd> {
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut frame = first;
    loop {
        if let Some(Ok(frame)) = &frame {
            bytes += frame.len();
        }
        let taken =
            frame.ok_or_else(|| ConnectionEnd::Lost(anyhow!("Matterbridge closed the connection")));
        match taken.and_then(event_of) {
            Ok(event) => events.extend(event),
            // The error will occur again; the events read before it must not be lost.
            Err(_) if !events.is_empty() => return Ok(events),
            Err(ending) => return Err(ending),
        }
        if events.len() >= BURST || bytes >= BURST_BYTES {
            return Ok(events);
        }
        match socket.next().now_or_never() {
            Some(next) => frame = next,
            None => return Ok(events),
        }
    }
}

/// The event of a frame, if it has one.
fn event_of(frame: Result<Frame, WireError>) -> Result<Option<Event>, ConnectionEnd> {
    if let Err(WireError::Capacity(_)) = frame {
        return Err(ConnectionEnd::Lost(anyhow!(
            "Matterbridge sent a message of more than {} MiB; the bridge reads it from the buffer, without its files",
            MAX_FRAME >> 20
        )));
    }
    let frame = frame.context("The connection to Matterbridge broke");
    let event = match frame.map_err(ConnectionEnd::Lost)? {
        Frame::Text(text) => api::read(text.as_bytes()),
        Frame::Binary(bytes) => api::read(&bytes),
        Frame::Close(_) => {
            return Err(ConnectionEnd::Lost(anyhow!(
                "Matterbridge closed the connection"
            )));
        }
        Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => return Ok(None),
    };
    if event.is_none() {
        tracing::warn!("Unreadable frame from Matterbridge; skipped");
    }
    Ok(event)
}

/// Sends a ping.
pub async fn ping(socket: &mut Socket) -> Result<(), ConnectionEnd> {
    let sent = socket.send(Frame::Ping(Vec::new().into()));
    let sent = tokio::time::timeout(RESPONSE_TIMEOUT, sent).await;
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ConnectionEnd::Lost(anyhow!(error))),
        Err(_) => Err(ConnectionEnd::Lost(anyhow!(
            "Failed to send to Matterbridge"
        ))),
    }
}
