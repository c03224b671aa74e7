//! The second feed: Gitter's HTTP stream, one connection per channel. It delivers new messages only; the audit finds
//! edits and deletions.

use std::{convert::Infallible, time::Duration};

use anyhow::{Context, anyhow};
use footbridge_core::secret::Secret;
use futures_util::{StreamExt, stream::FuturesUnordered};
use reqwest::header;
use tokio::time::Instant;
use url::Url;

use super::{
    dispatcher::{ChannelEvent, Dispatcher},
    errors::{RepeatSafety, RequestError, SERVICE, Subject, classify},
};
use crate::{
    SiloError,
    framing::{Line, LineFramer},
    reconnect::Failures,
    rest::{RESPONSE_TIMEOUT, address},
};

/// The longest assumed interval of keep-alives until it was measured: after two intervals without any byte the
/// connection counts as dead.
const MAX_KEEPALIVE_GAP: Duration = Duration::from_secs(40);
/// The shortest assumed interval of keep-alives, so that a short network delay does not end the connection.
const MIN_KEEPALIVE_GAP: Duration = Duration::from_secs(1);
/// How often a closed room is tried again.
const RECHECK_INTERVAL: Duration = Duration::from_mins(5);

/// The address and the token of the stream.
pub struct Endpoint {
    /// A client without a time limit for whole responses.
    pub http: reqwest::Client,
    /// The base URL of the stream service.
    pub url: Url,
    /// The account's token.
    pub token: Secret,
}

/// Follows the streams of all channels. Ends only when signed out.
pub async fn follow(hub: &Dispatcher, endpoint: &Endpoint) -> Result<Infallible, SiloError> {
    let mut all: FuturesUnordered<_> = hub
        .rooms()
        .map(|room| follow_room(hub, endpoint, room))
        .collect();
    loop {
        match all.next().await {
            Some(Err(error)) => return Err(error),
            Some(Ok(never)) => match never {},
            None => std::future::pending().await,
        }
    }
}

async fn follow_room(
    hub: &Dispatcher,
    endpoint: &Endpoint,
    room: &str,
) -> Result<Infallible, SiloError> {
    let mut failures = Failures::default();
    loop {
        let began = Instant::now();
        let mut delivered = false;
        let Err(error) = read(hub, endpoint, room, &mut delivered).await;
        hub.health.behind(std::iter::once(room));
        failures.note(began.elapsed(), delivered);
        let wait = match error {
            error @ RequestError::SignedOut(_) => return Err(error.into()),
            RequestError::Closed(reason) => {
                hub.close(room, reason);
                RECHECK_INTERVAL
            }
            RequestError::RateLimited { after, .. } | RequestError::CircuitOpen { after, .. } => {
                after
            }
            error => {
                tracing::warn!(silo.name = %hub.silo, silo.channel = %room, error = %error, attempt = failures.count(),
                    "Lost one of Gitter's streams");
                failures.pause()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Reads one connection to its end.
async fn read(
    hub: &Dispatcher,
    endpoint: &Endpoint,
    room: &str,
    delivered: &mut bool,
) -> Result<Infallible, RequestError> {
    let url = address(&SERVICE, &endpoint.url, &["rooms", room, "chatMessages"])?;
    let request = endpoint
        .http
        .get(url)
        .header(header::ACCEPT, "application/json")
        .bearer_auth(endpoint.token.expose());
    let probe = hub
        .breaker
        .acquire()
        .map_err(|after| RequestError::CircuitOpen {
            service: &SERVICE,
            after,
        })?;
    let answer = tokio::time::timeout(RESPONSE_TIMEOUT, request.send())
        .await
        .map_err(|_| lost(anyhow!("Gitter's stream does not answer")))
        .and_then(|sent| sent.map_err(|error| SERVICE.no_response(RepeatSafety::Safe, error)));
    let mut response = match answer {
        Ok(response) if !matches!(response.status().as_u16(), 502..=504) => {
            probe.answered();
            response
        }
        Ok(response) => {
            probe.silent();
            response
        }
        Err(error) => {
            probe.silent();
            return Err(error);
        }
    };
    if !response.status().is_success() {
        let wait = Duration::from_mins(1);
        return Err(classify(
            Subject::Channel,
            RepeatSafety::Safe,
            response.status().as_u16(),
            wait,
        ));
    }
    *delivered = true;
    hub.dispatch(room, ChannelEvent::Connected(None));
    let mut lines = LineFramer::default();
    let mut gap = KeepaliveGap::default();
    loop {
        let chunk = tokio::select! {
            chunk = tokio::time::timeout(gap.silence_limit(), response.chunk()) => chunk,
            () = hub.missed_events(room) => return Err(lost(anyhow!("Gitter's stream missed messages"))),
        };
        let chunk = chunk
            .context("Gitter's stream is silent")
            .map_err(lost)?
            .map_err(|error| SERVICE.no_response(RepeatSafety::Safe, error))?
            .ok_or_else(|| lost(anyhow!("Gitter closed the stream")))?;
        gap.note_bytes(&chunk);
        for line in lines.take(&chunk) {
            hub.dispatch(room, event_of(hub, line));
        }
    }
}

/// The measured interval of a stream's keep-alives: Gitter does not document it.
#[derive(Default)]
struct KeepaliveGap {
    /// The last keep-alive, if only keep-alives arrived since.
    last: Option<Instant>,
    longest: Option<Duration>,
}

impl KeepaliveGap {
    /// Bytes arrived.
    fn note_bytes(&mut self, bytes: &[u8]) {
        if !bytes.iter().all(u8::is_ascii_whitespace) {
            // A message may arrive between the keep-alives, or instead of one.
            self.last = None;
            return;
        }
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(Some(now - last));
        }
    }

    /// How long the stream may be silent.
    fn silence_limit(&self) -> Duration {
        let beat = self.longest.unwrap_or(MAX_KEEPALIVE_GAP);
        2 * beat.clamp(MIN_KEEPALIVE_GAP, MAX_KEEPALIVE_GAP)
    }
}

fn event_of(hub: &Dispatcher, line: Line) -> ChannelEvent {
    let message = match line {
        Line::Text(bytes) => serde_json::from_slice(&bytes).ok(),
        Line::Shortened(_) | Line::TooLong => None,
    };
    message.map_or_else(
        || {
            tracing::warn!(silo.name = %hub.silo, "Unreadable line in Gitter's stream; re-reading the channel");
            ChannelEvent::Garbled
        },
        |message| ChannelEvent::Message(Box::new(message)),
    )
}

fn lost(source: anyhow::Error) -> RequestError {
    RequestError::Unavailable {
        outcome: footbridge_core::outlet::Outcome::NotDone,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_missing_keep_alives_are_enough_once_their_distance_is_known() {
        let mut pulse = KeepaliveGap::default();
        assert_eq!(pulse.silence_limit(), 2 * MAX_KEEPALIVE_GAP);
        for bytes in [" \n", "{}\n", " \n", " ", "\n"] {
            tokio::time::advance(Duration::from_secs(15)).await;
            pulse.note_bytes(bytes.as_bytes());
        }
        assert_eq!(pulse.silence_limit(), Duration::from_secs(30));
        // Messages in quick succession do not count as keep-alives.
        for bytes in ["{}\n", " \n", "{}\n", " \n"] {
            tokio::time::advance(Duration::from_secs(1)).await;
            pulse.note_bytes(bytes.as_bytes());
        }
        assert_eq!(pulse.silence_limit(), Duration::from_secs(30));
    }
}
