//! The timers of a realtime connection: when to send its own frames, and the deadlines of responses.

use std::time::Duration;

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_util::sync::CancellationToken;

use super::super::dispatcher::Dispatcher;
use crate::{rest::RESPONSE_TIMEOUT, websocket::Socket};

/// How often a ping is sent.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How often a closed room is checked again.
const RECHECK_INTERVAL: Duration = Duration::from_mins(5);

/// Everything that a connection waits for besides frames.
pub struct ConnectionTimers<'a> {
    dispatcher: &'a Dispatcher,
    /// When to send the next connect.
    pub connect: Option<Instant>,
    /// The deadline of the pending response.
    pub answer: Instant,
    /// The deadline of the response to a ping.
    pub pong: Option<Instant>,
    ping: Interval,
    /// When to check closed rooms again.
    look: Interval,
    looks: FuturesUnordered<BoxFuture<'a, Option<String>>>,
}

/// Why the connection woke up.
pub enum WakeReason {
    /// A frame arrived, or the connection ended.
    Frame(Option<Result<Frame, tungstenite::Error>>),
    /// It is time to send a connect.
    Connect,
    /// It is time to send a ping.
    Ping,
    /// This did not arrive in time.
    Overdue(&'static str),
    /// This room can be listened to again.
    Open(String),
    /// A channel found messages that the feed did not deliver.
    MissedEvents,
    /// The bridge stops.
    Stop,
}

impl<'a> ConnectionTimers<'a> {
    /// The timers of a new connection.
    pub fn new(hub: &'a Dispatcher) -> Self {
        Self {
            dispatcher: hub,
            connect: None,
            answer: Instant::now() + RESPONSE_TIMEOUT,
            pong: None,
            ping: every(PING_INTERVAL),
            look: every(RECHECK_INTERVAL),
            looks: FuturesUnordered::new(),
        }
    }

    /// The next reason to wake up.
    pub async fn next(&mut self, socket: &mut Socket, stop: &CancellationToken) -> WakeReason {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return WakeReason::Stop,
                () = sleep_until(self.connect) => return WakeReason::Connect,
                _ = self.ping.tick() => return WakeReason::Ping,
                // Before the deadlines: what has arrived is not overdue.
                frame = socket.next() => return WakeReason::Frame(frame),
                () = sleep_until(self.pong) => return WakeReason::Overdue("a pong"),
                () = sleep_until(Some(self.answer)) => return WakeReason::Overdue("a response"),
                () = self.dispatcher.missed.notified() => return WakeReason::MissedEvents,
                Some(checked) = self.looks.next() => {
                    if let Some(room) = checked {
                        return WakeReason::Open(room);
                    }
                }
                _ = self.look.tick() => {
                    let hub = self.dispatcher;
                    hub.rooms()
                        .filter(|room| hub.health.is_closed(room))
                        .for_each(|room| self.look_at(room.to_owned()));
                }
            }
        }
    }

    /// Checks whether a room can be listened to again.
    pub fn look_at(&self, room: String) {
        self.looks.push(Box::pin(self.dispatcher.reopened(room)));
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
