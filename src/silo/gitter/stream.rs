//! The second feed: Gitter's HTTP stream, one connection per channel. It brings new messages only; edits and
//! deletions are found by the re-reading that goes on beside it.

use std::{convert::Infallible, time::Duration};

use anyhow::{Context, anyhow};
use futures_util::{StreamExt, stream::FuturesUnordered};
use reqwest::header;
use tokio::time::Instant;
use url::Url;

use super::{
    client::address,
    fault::{Fault, Repeat, Subject, fault_of, fault_of_silence},
    framing::{Line, Lines},
    hub::{Heard, Hub, pause},
};
use crate::{secret::Secret, silo::SiloError};

/// For the beginning of the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Keep-alives come well within 40 s; two of those without any byte and the connection is dead.
const SILENCE: Duration = Duration::from_secs(80);
/// How often a closed room is tried again.
const LOOK_AGAIN: Duration = Duration::from_mins(5);
/// A connection that lasted this long was a good one.
const STABLE: Duration = Duration::from_secs(30);

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
pub async fn follow(hub: &Hub, endpoint: &Endpoint) -> Result<Infallible, SiloError> {
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

async fn follow_room(hub: &Hub, endpoint: &Endpoint, room: &str) -> Result<Infallible, SiloError> {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let Err(fault) = read(hub, endpoint, room).await;
        hub.health.behind(std::iter::once(room));
        failures = if began.elapsed() > STABLE {
            0
        } else {
            failures + 1
        };
        let wait = match fault {
            Fault::SignedOut => return Err(Fault::SignedOut.into()),
            Fault::Closed(reason) => {
                hub.close(room, reason);
                LOOK_AGAIN
            }
            Fault::Busy { after } => after,
            fault => {
                tracing::warn!(silo.name = %hub.silo, silo.channel = %room, error = %fault, attempt = failures,
                    "Lost a stream of Gitter's");
                pause(failures)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Reads one connection to its end.
async fn read(hub: &Hub, endpoint: &Endpoint, room: &str) -> Result<Infallible, Fault> {
    let url = address(&endpoint.url, &["rooms", room, "chatMessages"])?;
    let request = endpoint
        .http
        .get(url)
        .header(header::ACCEPT, "application/json")
        .bearer_auth(endpoint.token.expose());
    let mut response = tokio::time::timeout(ANSWER_WITHIN, request.send())
        .await
        .map_err(|_| lost(anyhow!("Gitter's stream does not answer")))?
        .map_err(|error| fault_of_silence(Repeat::Harmless, error))?;
    if !response.status().is_success() {
        let wait = Duration::from_mins(1);
        return Err(fault_of(
            Subject::Room,
            Repeat::Harmless,
            response.status().as_u16(),
            wait,
        ));
    }
    hub.tell(room, Heard::Connected(None));
    let mut lines = Lines::default();
    loop {
        let chunk = tokio::time::timeout(SILENCE, response.chunk())
            .await
            .context("Gitter's stream is silent")
            .map_err(lost)?
            .map_err(|error| fault_of_silence(Repeat::Harmless, error))?
            .ok_or_else(|| lost(anyhow!("Gitter closed the stream")))?;
        for line in lines.take(&chunk) {
            hub.tell(room, heard(hub, line));
        }
    }
}

fn heard(hub: &Hub, line: Line) -> Heard {
    let message = match line {
        Line::Text(bytes) => serde_json::from_slice(&bytes).ok(),
        Line::TooLong => None,
    };
    message.map_or_else(
        || {
            tracing::warn!(silo.name = %hub.silo, "Gitter's stream held something unreadable; reading again");
            Heard::Garbled
        },
        |message| Heard::Message(Box::new(message)),
    )
}

fn lost(source: anyhow::Error) -> Fault {
    Fault::Unavailable {
        outcome: crate::outlet::Outcome::NotDone,
        source,
    }
}
