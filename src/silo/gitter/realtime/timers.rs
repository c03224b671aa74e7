//! What a connection of the realtime feed waits for: frames, its own turns to speak, and deadlines.

use std::time::Duration;

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_util::sync::CancellationToken;

use super::{
    super::dispatcher::Dispatcher,
    socket::{RESPONSE_TIMEOUT, Socket},
};

/// How often a sign of life is asked for.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How often a closed room is looked at again.
const RECHECK_INTERVAL: Duration = Duration::from_mins(5);

/// Everything a connection waits for besides frames.
pub struct ConnectionTimers<'a> {
    hub: &'a Dispatcher,
    /// The next connect is to be sent.
    pub connect: Option<Instant>,
    /// Something must have been answered.
    pub answer: Instant,
    /// The ping must have come back.
    pub pong: Option<Instant>,
    ping: Interval,
    /// Closed rooms are to be looked at again.
    look: Interval,
    looks: FuturesUnordered<BoxFuture<'a, Option<String>>>,
}

/// What woke us.
pub enum WakeReason {
    /// Something was said, or nothing ever will be.
    Frame(Option<Result<Frame, tungstenite::Error>>),
    /// It is time to ask for events.
    Connect,
    /// It is time to ask for a sign of life.
    Ping,
    /// This did not come in time.
    Overdue(&'static str),
    /// This room can be listened to again.
    Open(String),
    /// A channel found out that it is not told everything.
    MissedEvents,
    /// We were told to stop.
    Stop,
}

impl<'a> ConnectionTimers<'a> {
    /// The waits of a new connection.
    pub fn new(hub: &'a Dispatcher) -> Self {
        Self {
            hub,
            connect: None,
            answer: Instant::now() + RESPONSE_TIMEOUT,
            pong: None,
            ping: every(PING_INTERVAL),
            look: every(RECHECK_INTERVAL),
            looks: FuturesUnordered::new(),
        }
    }

    /// The next thing to act on.
    pub async fn next(&mut self, socket: &mut Socket, stop: &CancellationToken) -> WakeReason {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return WakeReason::Stop,
                () = sleep_until(self.connect) => return WakeReason::Connect,
                _ = self.ping.tick() => return WakeReason::Ping,
                // Before the deadlines: what has arrived is not overdue.
                frame = socket.next() => return WakeReason::Frame(frame),
                () = sleep_until(self.pong) => return WakeReason::Overdue("a sign of life"),
                () = sleep_until(Some(self.answer)) => return WakeReason::Overdue("an answer"),
                () = self.hub.missed.notified() => return WakeReason::MissedEvents,
                Some(found) = self.looks.next() => {
                    if let Some(room) = found {
                        return WakeReason::Open(room);
                    }
                }
                _ = self.look.tick() => {
                    let hub = self.hub;
                    hub.rooms()
                        .filter(|room| hub.health.is_closed(room))
                        .for_each(|room| self.look_at(room.to_owned()));
                }
            }
        }
    }

    /// Finds out whether a room can be listened to again.
    pub fn look_at(&self, room: String) {
        self.looks.push(Box::pin(self.hub.reopened(room)));
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
