//! One WebSocket to Matterbridge: it is opened, read a few events at a time, and pinged.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::secret::Secret;
use footbridge_store::Millis;
use futures_util::{FutureExt, StreamExt};
use tokio_tungstenite::tungstenite::{Error as WireError, Message as Frame};
use url::Url;

use super::{
    api::{self, Event, EventKind},
    buffer::MAX_FRAME,
    client::{Client, api_url},
    errors::{RepeatSafety, RequestError, SERVICE, classify, unavailable},
};
use crate::{
    reconnect::ConnectionEnd,
    rest::{RESPONSE_TIMEOUT, address},
    websocket::{self, HandshakeError, Socket},
};

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
        match classify(RepeatSafety::Safe, status, "") {
            RequestError::SignedOut(_) => {}
            other => return other,
        }
        match self.rest.ready().await {
            Ok(()) => unavailable(anyhow!(
                "{what} responds with status {status} although Matterbridge accepts the token; a proxy in between must forward \
                 the request, for WebSockets with the headers `Upgrade` and `Connection`"
            )),
            Err(error) => error,
        }
    }
}

/// Opens a connection.
pub async fn open(wire: &FeedEndpoint) -> Result<Socket, ConnectionEnd> {
    let url = address(&SERVICE, &api_url(&wire.api), &["websocket"])?;
    let opening = websocket::open(&wire.http, &url, wire.token.as_ref(), MAX_FRAME);
    let opened = tokio::time::timeout(RESPONSE_TIMEOUT, opening)
        .await
        .map_err(|_| ConnectionEnd::Lost(anyhow!("Matterbridge does not answer")))?;
    match opened {
        Ok(socket) => Ok(socket),
        Err(HandshakeError::Answered(status)) => Err(wire
            .refused("Matterbridge's WebSocket", status)
            .await
            .into()),
        Err(other) => Err(ConnectionEnd::Lost(
            other.of(SERVICE.name, SERVICE.address_key),
        )),
    }
}

/// Waits for the first object of a connection and returns its time, by Matterbridge's clock.
pub async fn first(socket: &mut Socket) -> Result<Option<Millis>, ConnectionEnd> {
    let hello = async {
        loop {
            match event_of(socket.next().await)? {
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
        match event_of(frame) {
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
fn event_of(frame: Option<Result<Frame, WireError>>) -> Result<Option<Event>, ConnectionEnd> {
    if let Some(Err(WireError::Capacity(_))) = frame {
        return Err(ConnectionEnd::Lost(anyhow!(
            "Matterbridge sent a message of more than {} MiB; the bridge reads it from the buffer, without its files",
            MAX_FRAME >> 20
        )));
    }
    let data = websocket::data_of(frame, SERVICE.name).map_err(ConnectionEnd::Lost)?;
    let Some(data) = data else {
        return Ok(None);
    };
    let event = api::read(&data);
    if event.is_none() {
        tracing::warn!("Unreadable frame from Matterbridge; skipped");
    }
    Ok(event)
}

/// Sends a ping.
pub async fn ping(socket: &mut Socket) -> Result<(), ConnectionEnd> {
    let ping = Frame::Ping(Vec::new().into());
    let sent = websocket::send(socket, ping, SERVICE.name).await;
    sent.map_err(ConnectionEnd::Lost)
}
