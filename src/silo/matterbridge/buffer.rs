//! Matterbridge's buffer, read through `/api/stream`: messages from while no client listened. It holds the newest
//! messages of the account (ten, unless `Buffer=` says otherwise), also those that the WebSocket delivered. Reading
//! removes each message, at ten per second, and what was removed for a reader that dies is lost: so the bridge reads it
//! as briefly as possible, and stops right after a message.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::Instant;

use super::{
    api::{self, Event, EventKind},
    client::api_url,
    connection::FeedEndpoint,
    errors::{RepeatSafety, RequestError, SERVICE, unavailable},
};
use crate::{
    framing::{Line, LineFramer},
    rest::{RESPONSE_TIMEOUT, address},
};

/// Matterbridge checks ten times per second: after this long without a message the buffer is empty.
const EMPTY_AFTER: Duration = Duration::from_millis(1_500);
/// The longest line, and the longest message of the WebSocket, in bytes: files are included. A file of 50 MiB,
/// Synapse's default limit, in base64, with the rest of its message.
pub const MAX_FRAME: usize = 68 << 20;

/// An open stream of the buffer.
pub struct Buffer {
    response: reqwest::Response,
    lines: LineFramer,
    /// Whether its first object arrived: before that, silence does not mean that the buffer is empty.
    begun: bool,
    last: Instant,
}

impl Buffer {
    /// Starts reading.
    pub async fn open(wire: &FeedEndpoint) -> Result<Self, RequestError> {
        let request = wire
            .http
            .get(address(&SERVICE, &api_url(&wire.api), &["stream"])?);
        let request = match &wire.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        };
        let sent = tokio::time::timeout(RESPONSE_TIMEOUT, request.send()).await;
        let sent = sent.map_err(|_| silent())?;
        let response = sent.map_err(|error| SERVICE.no_response(RepeatSafety::Safe, error))?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            return Err(wire.refused("Matterbridge's stream", status).await);
        }
        Ok(Self {
            response,
            lines: LineFramer::with_limit(MAX_FRAME),
            begun: false,
            last: Instant::now(),
        })
    }

    /// The next messages; `None` when there are no more. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Vec<Event>>, RequestError> {
        loop {
            let timeout = if self.begun {
                EMPTY_AFTER
            } else {
                RESPONSE_TIMEOUT
            };
            let chunk = tokio::time::timeout_at(self.last + timeout, self.response.chunk()).await;
            let chunk = match chunk {
                Err(_) if self.begun => return Ok(None),
                Err(_) => return Err(silent()),
                Ok(chunk) => {
                    chunk.map_err(|error| SERVICE.no_response(RepeatSafety::Safe, error))?
                }
            };
            let Some(bytes) = chunk else {
                return Err(unavailable(anyhow!("Matterbridge closed its stream")));
            };
            self.last = Instant::now();
            let lines = self.lines.take(&bytes);
            let mut events: Vec<Event> = lines.into_iter().filter_map(read).collect();
            let all = events.len();
            events.retain(|event| event.kind() != EventKind::Connected);
            self.begun |= events.len() < all;
            if !events.is_empty() {
                return Ok(Some(events));
            }
        }
    }
}

fn read(line: Line) -> Option<Event> {
    let event = match line {
        Line::Text(bytes) => api::read(&bytes),
        Line::Shortened(bytes) => api::read_shortened(&bytes),
        Line::TooLong => None,
    };
    if event.is_none() {
        tracing::warn!("A message in Matterbridge's buffer is too long or unreadable; skipped");
    }
    event
}

fn silent() -> RequestError {
    unavailable(anyhow!(
        "Matterbridge's stream sends no data; a proxy that buffers whole responses may cause this"
    ))
}
