//! One WebSocket to Matterbridge: opened, read a few events at a time, and asked for a sign of life.

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

/// Frames taken together when they come fast, and how many bytes are enough.
const BURST: usize = 64;
const BURST_BYTES: usize = 1 << 20;

/// Where and as whom to listen.
pub struct FeedEndpoint {
    /// A client of HTTP/1.1 without a time limit on whole answers.
    pub http: reqwest::Client,
    /// The REST side of the same account.
    pub rest: Client,
    /// What `/api/…` stands behind.
    pub api: Url,
    /// The account's token, if it has one.
    pub token: Option<Secret>,
    /// How long a silence may be, and then how long its end may take.
    pub ping: Duration,
    /// How often the buffer is read beside the WebSocket.
    pub audit: Duration,
}

impl FeedEndpoint {
    /// What it means that `what` was answered with this status. Those that Matterbridge has for a token that is wrong or missing
    /// come from elsewhere, too: its library answers 400 where a proxy took away that a WebSocket is wanted.
    pub async fn refused(&self, what: &str, status: u16) -> RequestError {
        match classify(RequestKind::Read, status, "") {
            RequestError::SignedOut => {}
            other => return other,
        }
        match self.rest.ready().await {
            Ok(()) => RequestError::Unavailable(anyhow!(
                "{what} is answered with status {status} although Matterbridge accepts the token; a proxy in between has to \
                 pass it on, for WebSockets with the headers `Upgrade` and `Connection`"
            )),
            Err(fault) => fault,
        }
    }
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

impl From<RequestError> for ConnectionEnd {
    fn from(fault: RequestError) -> Self {
        match fault {
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
            "what answers at the configured `api` is not Matterbridge's API"
        )),
    })
}

/// The first object of a connection tells the moment of Matterbridge's clock.
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
                        "Matterbridge begins with something else"
                    )));
                }
                None => {}
            }
        }
    };
    let hello = tokio::time::timeout(RESPONSE_TIMEOUT, hello).await;
    hello.map_err(|_| ConnectionEnd::Lost(anyhow!("Matterbridge sent no greeting")))?
}

/// This frame's event and those of the frames that are here already.
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
            // It comes again; what was read before it must not be lost.
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

/// What a frame tells, if anything.
fn event_of(frame: Result<Frame, WireError>) -> Result<Option<Event>, ConnectionEnd> {
    if let Err(WireError::Capacity(_)) = frame {
        return Err(ConnectionEnd::Lost(anyhow!(
            "Matterbridge sends a message of more than {} MiB; what stands around its files is read from its buffer",
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

/// Asks for a sign of life.
pub async fn ping(socket: &mut Socket) -> Result<(), ConnectionEnd> {
    let asked = socket.send(Frame::Ping(Vec::new().into()));
    let asked = tokio::time::timeout(RESPONSE_TIMEOUT, asked).await;
    match asked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ConnectionEnd::Lost(anyhow!(error))),
        Err(_) => Err(ConnectionEnd::Lost(anyhow!(
            "Failed to send to Matterbridge"
        ))),
    }
}
