//! The second feed: Gitter's HTTP stream, one connection per channel. It brings new messages only; edits and
//! deletions are found by the re-reading that goes on beside it.

use std::{convert::Infallible, time::Duration};

use anyhow::{Context, anyhow};
use footbridge_core::secret::Secret;
use futures_util::{StreamExt, stream::FuturesUnordered};
use reqwest::header;
use tokio::time::Instant;
use url::Url;

use super::{
    client::address,
    dispatcher::{ChannelEvent, Dispatcher, failures_after, reconnect_delay},
    errors::{RepeatSafety, RequestError, Subject, classify, classify_no_response},
};
use crate::{
    SiloError,
    framing::{Line, LineFramer},
};

/// For the beginning of the answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest that keep-alives can be apart, until we have seen how far they are: two of those without any byte
/// and the connection is dead.
const MAX_KEEPALIVE_GAP: Duration = Duration::from_secs(40);
/// Two keep-alives are never taken to be closer than this, so that a hiccup of the network is no silence.
const MIN_KEEPALIVE_GAP: Duration = Duration::from_secs(1);
/// How often a closed room is tried again.
const RECHECK_INTERVAL: Duration = Duration::from_mins(5);

/// Where and as whom to connect.
pub struct Endpoint {
    /// A client without a time limit on whole answers.
    pub http: reqwest::Client,
    /// The base of the stream service.
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
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let mut heard = false;
        let Err(fault) = read(hub, endpoint, room, &mut heard).await;
        hub.health.behind(std::iter::once(room));
        failures = failures_after(failures, began.elapsed(), heard);
        let wait = match fault {
            RequestError::SignedOut => return Err(RequestError::SignedOut.into()),
            RequestError::Closed(reason) => {
                hub.close(room, reason);
                RECHECK_INTERVAL
            }
            RequestError::RateLimited { after } | RequestError::CircuitOpen { after } => after,
            fault => {
                tracing::warn!(silo.name = %hub.silo, silo.channel = %room, error = %fault, attempt = failures,
                    "Lost a stream of Gitter's");
                reconnect_delay(failures)
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
    heard_from: &mut bool,
) -> Result<Infallible, RequestError> {
    let url = address(&endpoint.url, &["rooms", room, "chatMessages"])?;
    let request = endpoint
        .http
        .get(url)
        .header(header::ACCEPT, "application/json")
        .bearer_auth(endpoint.token.expose());
    let pass = hub
        .breaker
        .acquire()
        .map_err(|after| RequestError::CircuitOpen { after })?;
    let answer = tokio::time::timeout(RESPONSE_TIMEOUT, request.send())
        .await
        .map_err(|_| lost(anyhow!("Gitter's stream does not answer")))
        .and_then(|sent| sent.map_err(|error| classify_no_response(RepeatSafety::Safe, error)));
    let mut response = match answer {
        Ok(response) if !matches!(response.status().as_u16(), 502..=504) => {
            pass.answered();
            response
        }
        Ok(response) => {
            pass.silent();
            response
        }
        Err(fault) => {
            pass.silent();
            return Err(fault);
        }
    };
    if !response.status().is_success() {
        let wait = Duration::from_mins(1);
        return Err(classify(
            Subject::Room,
            RepeatSafety::Safe,
            response.status().as_u16(),
            wait,
        ));
    }
    *heard_from = true;
    hub.dispatch(room, ChannelEvent::Connected(None));
    let mut lines = LineFramer::default();
    let mut pulse = KeepaliveGap::default();
    loop {
        let chunk = tokio::select! {
            chunk = tokio::time::timeout(pulse.silence_limit(), response.chunk()) => chunk,
            () = hub.missed_events(room) => return Err(lost(anyhow!("Gitter's stream leaves messages out"))),
        };
        let chunk = chunk
            .context("Gitter's stream is silent")
            .map_err(lost)?
            .map_err(|error| classify_no_response(RepeatSafety::Safe, error))?
            .ok_or_else(|| lost(anyhow!("Gitter closed the stream")))?;
        pulse.note_bytes(&chunk);
        for line in lines.take(&chunk) {
            hub.dispatch(room, heard(hub, line));
        }
    }
}

/// How far a stream's keep-alives are apart, learnt by listening: Gitter never promised anything.
#[derive(Default)]
struct KeepaliveGap {
    /// The last keep-alive, if nothing but keep-alives came since.
    last: Option<Instant>,
    longest: Option<Duration>,
}

impl KeepaliveGap {
    /// Some bytes came.
    fn note_bytes(&mut self, bytes: &[u8]) {
        if !bytes.iter().all(u8::is_ascii_whitespace) {
            // A message may come between the keep-alives, or instead of one.
            self.last = None;
            return;
        }
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(Some(now - last));
        }
    }

    /// How long nothing may come.
    fn silence_limit(&self) -> Duration {
        let beat = self.longest.unwrap_or(MAX_KEEPALIVE_GAP);
        2 * beat.clamp(MIN_KEEPALIVE_GAP, MAX_KEEPALIVE_GAP)
    }
}

fn heard(hub: &Dispatcher, line: Line) -> ChannelEvent {
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
        // Messages in quick succession say nothing of the keep-alives.
        for bytes in ["{}\n", " \n", "{}\n", " \n"] {
            tokio::time::advance(Duration::from_secs(1)).await;
            pulse.note_bytes(bytes.as_bytes());
        }
        assert_eq!(pulse.silence_limit(), Duration::from_secs(30));
    }
}
