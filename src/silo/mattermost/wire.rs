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
    client::{ANSWER_WITHIN, address},
    fault::Fault,
    listener::Failure,
};
use crate::socket::{self, Socket, Unopened};

/// The longest frame, in bytes.
const LONGEST: usize = 8 << 20;

/// Where and as whom to listen.
pub struct Wire {
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
pub enum Ending {
    /// We were told to stop.
    Stopped,
    /// Our token is not accepted.
    SignedOut,
    /// Something went wrong on the way or over there.
    Lost(anyhow::Error),
    /// Our own store failed.
    Store(footbridge_store::Error),
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(error) => Self::Store(error),
            Failure::Fault(Fault::SignedOut) => Self::SignedOut,
            Failure::Fault(Fault::Unavailable { source, .. }) => Self::Lost(source),
            Failure::Fault(other) => Self::Lost(anyhow!(other)),
        }
    }
}

/// How long the connection has been silent, and whether it was asked.
pub struct Pulse {
    ping: Duration,
    last: Instant,
    asked: bool,
    number: u64,
}

impl Pulse {
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
pub async fn next(socket: &mut Socket, pulse: &mut Pulse) -> Result<Option<Event>, Ending> {
    tokio::select! {
        frame = socket.next() => {
            (pulse.last, pulse.asked) = (Instant::now(), false);
            let frame = frame.ok_or_else(|| Ending::Lost(anyhow!("Mattermost closed the connection")))?;
            event_of(frame)
        }
        () = tokio::time::sleep_until(pulse.silent_until()) => {
            if pulse.asked {
                return Err(Ending::Lost(anyhow!("Mattermost does not answer any more")));
            }
            pulse.asked = true;
            pulse.number += 1;
            let ping = json!({ "seq": pulse.number, "action": "ping" }).to_string();
            let asked = tokio::time::timeout(ANSWER_WITHIN, socket.send(Frame::text(ping))).await;
            match asked {
                Ok(Ok(())) => Ok(None),
                Ok(Err(error)) => Err(Ending::Lost(anyhow!(error))),
                Err(_) => Err(Ending::Lost(anyhow!("Mattermost does not take what we say"))),
            }
        }
    }
}

/// What a frame tells, if anything.
fn event_of(frame: Result<Frame, WireError>) -> Result<Option<Event>, Ending> {
    let frame = frame.context("The connection to Mattermost broke");
    let event = match frame.map_err(Ending::Lost)? {
        Frame::Text(text) => serde_json::from_str::<Event>(&text),
        Frame::Binary(bytes) => serde_json::from_slice(&bytes),
        Frame::Close(_) => return Err(Ending::Lost(anyhow!("Mattermost closed the connection"))),
        Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => return Ok(None),
    };
    if event.is_err() {
        // It had a number: that it is missing shows in the next one, and the channels are read then.
        tracing::warn!("Mattermost said something unreadable; it is left out");
    }
    Ok(event.ok())
}

/// Opens a connection and says who we are.
pub async fn open(wire: &Wire) -> Result<Socket, Ending> {
    let url = address(&wire.url, &["websocket"]).map_err(|fault| Ending::Lost(anyhow!(fault)))?;
    let opening = async {
        let opened = socket::open(&wire.http, &url, Some(&wire.token), LONGEST).await;
        let mut socket = opened.map_err(|failure| match failure {
            Unopened::Answered(401) => Ending::SignedOut,
            Unopened::Answered(status) => {
                Ending::Lost(anyhow!("Mattermost answered with status {status}"))
            }
            Unopened::Redirected(to) => Ending::Lost(anyhow!(redirect_error("url", &to))),
            Unopened::Unreachable(error) => {
                Ending::Lost(anyhow!(error).context("Cannot reach Mattermost"))
            }
            Unopened::NoWebSocket => Ending::Lost(anyhow!(
                "what answers at the configured `url` is not Mattermost's API"
            )),
        })?;
        // Some proxies take the header away; saying it again does no harm.
        let token = json!({ "token": wire.token.expose() });
        let who = json!({ "seq": 1, "action": "authentication_challenge", "data": token });
        let said = socket.send(Frame::text(who.to_string())).await;
        said.map_err(|error| Ending::Lost(anyhow!(error)))?;
        Ok(socket)
    };
    tokio::time::timeout(ANSWER_WITHIN, opening)
        .await
        .map_err(|_| Ending::Lost(anyhow!("Mattermost does not answer")))?
}
