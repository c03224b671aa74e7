//! Where the connection and the channels meet: what one heard goes to the queue of the channel it belongs to,
//! so that a channel that has to wait never holds up the others.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use footbridge_core::backoff;
use footbridge_store::Millis;
use tokio::sync::{Notify, mpsc};

use super::{api::ChatMessage, client::Client};
use crate::{Channel, circuit_breaker::CircuitBreaker, echoes::Echoes, feed_health::FeedHealth};

/// What may wait in a channel's queue before the rest is left to catch-up.
const QUEUE_CAPACITY: usize = 256;

/// What a channel is told.
pub enum ChannelEvent {
    /// A message, whole: new, or changed, or only counted anew.
    Message(Box<ChatMessage>),
    /// A message of this id is gone.
    Removed(String),
    /// From here on everything is heard live; before, anything may be missing. With the newest messages, if the
    /// connection brought them.
    Connected(Option<Vec<ChatMessage>>),
    /// Something was missed.
    Lost,
    /// Something unreadable was heard, so something may have been missed.
    Garbled,
    /// A listing made beside the feed.
    Listing {
        /// The newest messages.
        messages: Vec<ChatMessage>,
        /// Whether there are older ones.
        full: bool,
        /// When it was asked for, by Gitter's clock.
        asked_at: Millis,
    },
}

/// The queues of all channels, and what everyone shares.
pub struct Dispatcher {
    /// The REST side.
    pub client: Arc<Client>,
    /// What we did ourselves.
    pub echoes: Arc<Echoes>,
    /// How it is going.
    pub health: Arc<FeedHealth>,
    /// Our account's id.
    pub me: String,
    /// The silo's name in the configuration.
    pub silo: String,
    /// A message that a listing shows this long after it was sent should have been heard.
    pub missed_after: Duration,
    /// Calls of the service that the feed comes from.
    pub breaker: CircuitBreaker,
    /// Rung by a channel that found out that the connection is deaf.
    pub missed: Notify,
    queues: HashMap<String, ChannelQueue>,
}

struct ChannelQueue {
    queue: mpsc::Sender<ChannelEvent>,
    overflowed: Arc<AtomicBool>,
    missed: Notify,
}

/// A channel's end of its queue.
pub struct EventReceiver {
    queue: mpsc::Receiver<ChannelEvent>,
    overflowed: Arc<AtomicBool>,
}

impl EventReceiver {
    /// The next thing heard; `None` when nobody talks any more.
    pub async fn recv(&mut self) -> Option<ChannelEvent> {
        self.queue.recv().await
    }

    /// The next thing heard, if there is one already.
    pub fn try_recv(&mut self) -> Option<ChannelEvent> {
        self.queue.try_recv().ok()
    }

    /// Whether something was left out because the queue was full. Asking opens the queue again.
    pub fn has_overflowed(&self) -> bool {
        self.overflowed.swap(false, Ordering::AcqRel)
    }
}

impl Dispatcher {
    /// A hub for these channels, and their ends of the queues.
    pub fn new(
        silo: &str,
        me: String,
        shared: (Arc<Client>, Arc<Echoes>, Arc<FeedHealth>),
        deaf_after: Duration,
        channels: Vec<Channel>,
    ) -> (Self, Vec<(Channel, EventReceiver)>) {
        let (client, echoes, health) = shared;
        let mut seats = HashMap::new();
        let mut ears = Vec::new();
        for channel in Channel::distinct(channels) {
            let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
            let overflowed = Arc::new(AtomicBool::new(false));
            let seat = ChannelQueue {
                queue: sender,
                overflowed: overflowed.clone(),
                missed: Notify::new(),
            };
            seats.insert(channel.place.address().to_owned(), seat);
            ears.push((channel, EventReceiver { queue, overflowed }));
        }
        let hub = Self {
            client,
            echoes,
            health,
            me,
            silo: silo.to_owned(),
            missed_after: deaf_after,
            breaker: CircuitBreaker::default(),
            missed: Notify::new(),
            queues: seats,
        };
        hub.health.begin(hub.rooms());
        (hub, ears)
    }

    /// The ids of all rooms.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.queues.keys().map(String::as_str)
    }

    /// Whether this is one of ours.
    pub fn has(&self, room: &str) -> bool {
        self.queues.contains_key(room)
    }

    /// A channel found out that its messages are not heard.
    pub fn report_missed(&self, room: &str) {
        self.missed.notify_one();
        if let Some(seat) = self.queues.get(room) {
            seat.missed.notify_one();
        }
    }

    /// Ends when this channel finds out that its messages are not heard.
    pub async fn missed_events(&self, room: &str) {
        match self.queues.get(room) {
            Some(seat) => seat.missed.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Tells a channel.
    pub fn dispatch(&self, room: &str, heard: ChannelEvent) {
        let Some(seat) = self.queues.get(room) else {
            return;
        };
        // Once something is left out everything is, until the channel has begun to catch up: order.
        if seat.overflowed.load(Ordering::Acquire) {
            return;
        }
        if seat.queue.try_send(heard).is_err() {
            seat.overflowed.store(true, Ordering::Release);
        }
    }

    /// Tells every channel.
    pub fn dispatch_all(&self, heard: impl Fn() -> ChannelEvent) {
        for room in self.rooms() {
            self.dispatch(room, heard());
        }
    }

    /// The connection ended: all channels must be caught up with.
    pub fn disconnected(&self) {
        self.health.behind(self.rooms());
    }

    /// The room, if it can be listened to (again).
    pub async fn reopened(&self, room: String) -> Option<String> {
        let found = self.client.room(&room).await.ok()?;
        (found.member != Some(false)).then_some(room)
    }

    /// A channel knows everything up to now and hears what follows.
    pub fn caught_up(&self, room: &str) {
        if self.health.caught_up(room) {
            tracing::info!(silo.name = %self.silo, silo.channel = %room, "Channel is open again");
        }
    }

    /// A room is closed to us. The others go on.
    pub fn close(&self, room: &str, reason: &str) {
        if self.health.close(room) {
            tracing::error!(silo.name = %self.silo, silo.channel = %room, error = %reason,
                "Channel is closed to this account; it is looked at again every five minutes");
        }
    }
}

/// How long to wait after this many failures in a row. A service that is out altogether is waited for longer, by
/// all together (see [`Outage`]).
pub fn reconnect_delay(failures: u32) -> Duration {
    backoff::after(failures.min(7))
}

/// A connection that lasted this long was a good one.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// Connections that do bring something are begun anew after about this many seconds' worth of failures at most.
const MAX_SHORT_FAILURES: u32 = 3;

/// How many failures in a row count after a connection that lasted so long, and was heard from or not.
pub fn failures_after(failures: u32, lasted: Duration, heard: bool) -> u32 {
    if lasted > STABLE_AFTER {
        0
    } else if heard {
        failures.saturating_add(1).min(MAX_SHORT_FAILURES)
    } else {
        failures.saturating_add(1)
    }
}
