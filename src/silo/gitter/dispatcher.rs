//! Sends each event of the connection to the queue of its channel, so that a channel that has to wait never delays the
//! others.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use footbridge_store::Millis;
use tokio::sync::{Notify, mpsc};

use super::{api::ChatMessage, client::Client};
use crate::{Channel, circuit_breaker::CircuitBreaker, echoes::Echoes, feed_health::FeedHealth};

/// The capacity of a channel's queue; what exceeds it is left to catch-up.
const QUEUE_CAPACITY: usize = 256;

/// An event for a channel's listener.
pub enum ChannelEvent {
    /// A complete message: new or changed, or only its counters changed.
    Message(Box<ChatMessage>),
    /// The message with this id was deleted.
    Removed(String),
    /// The feed delivers everything from here on; earlier messages may be missing. With the newest messages, if the
    /// connection sent them.
    Connected(Option<Vec<ChatMessage>>),
    /// Events were lost.
    Lost,
    /// An unreadable frame arrived, so events may have been lost.
    Garbled,
    /// A listing that was read independently of the feed.
    Listing {
        /// The newest messages.
        messages: Vec<ChatMessage>,
        /// Whether there are older ones.
        full: bool,
        /// When it was requested, by Gitter's clock.
        asked_at: Millis,
    },
}

/// The queues of all channels, and the state that all listeners share.
pub struct Dispatcher {
    /// The REST client.
    pub client: Arc<Client>,
    /// The bridge's own recent actions.
    pub echoes: Arc<Echoes>,
    /// The state of the feed.
    pub health: Arc<FeedHealth>,
    /// The id of the bridge's account.
    pub me: String,
    /// The silo's name in the configuration.
    pub silo: String,
    /// A message that a listing shows this long after its time should have arrived by the feed.
    pub missed_after: Duration,
    /// The circuit breaker of the service that provides the feed.
    pub breaker: CircuitBreaker,
    /// Signalled by a channel that found messages that the feed did not deliver.
    pub missed: Notify,
    queues: HashMap<String, ChannelQueue>,
}

/// What the listeners share with the side that sends.
pub struct ListenerContext {
    /// The REST client.
    pub client: Arc<Client>,
    /// The bridge's own recent actions.
    pub echoes: Arc<Echoes>,
    /// The state of the feed.
    pub health: Arc<FeedHealth>,
}

struct ChannelQueue {
    queue: mpsc::Sender<ChannelEvent>,
    overflowed: Arc<AtomicBool>,
    missed: Notify,
}

/// The receiving end of a channel's queue.
pub struct EventReceiver {
    queue: mpsc::Receiver<ChannelEvent>,
    overflowed: Arc<AtomicBool>,
}

impl EventReceiver {
    /// The next event; `None` once the dispatcher has stopped.
    pub async fn recv(&mut self) -> Option<ChannelEvent> {
        self.queue.recv().await
    }

    /// The next event, if one is queued.
    pub fn try_recv(&mut self) -> Option<ChannelEvent> {
        self.queue.try_recv().ok()
    }

    /// Whether events were dropped because the queue was full. Asking reopens the queue.
    pub fn has_overflowed(&self) -> bool {
        self.overflowed.swap(false, Ordering::AcqRel)
    }
}

impl Dispatcher {
    /// A dispatcher for these channels, and their receivers.
    pub fn new(
        silo: &str,
        me: String,
        context: ListenerContext,
        missed_after: Duration,
        channels: Vec<Channel>,
    ) -> (Self, Vec<(Channel, EventReceiver)>) {
        let mut queues = HashMap::new();
        let mut receivers = Vec::new();
        for channel in Channel::distinct(channels) {
            let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
            let overflowed = Arc::new(AtomicBool::new(false));
            let entry = ChannelQueue {
                queue: sender,
                overflowed: overflowed.clone(),
                missed: Notify::new(),
            };
            queues.insert(channel.place.address().to_owned(), entry);
            receivers.push((channel, EventReceiver { queue, overflowed }));
        }
        let hub = Self {
            client: context.client,
            echoes: context.echoes,
            health: context.health,
            me,
            silo: silo.to_owned(),
            missed_after,
            breaker: CircuitBreaker::default(),
            missed: Notify::new(),
            queues,
        };
        hub.health.begin(hub.rooms());
        (hub, receivers)
    }

    /// The ids of all rooms.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.queues.keys().map(String::as_str)
    }

    /// Whether a portal uses this room.
    pub fn has(&self, room: &str) -> bool {
        self.queues.contains_key(room)
    }

    /// A channel found messages that the feed did not deliver.
    pub fn report_missed(&self, room: &str) {
        self.missed.notify_one();
        if let Some(entry) = self.queues.get(room) {
            entry.missed.notify_one();
        }
    }

    /// Ends when this channel finds messages that the feed did not deliver.
    pub async fn missed_events(&self, room: &str) {
        match self.queues.get(room) {
            Some(entry) => entry.missed.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Queues an event for a channel.
    pub fn dispatch(&self, room: &str, event: ChannelEvent) {
        let Some(entry) = self.queues.get(room) else {
            return;
        };
        // After one event was dropped all are dropped, until the channel has begun to catch up: this keeps the order.
        if entry.overflowed.load(Ordering::Acquire) {
            return;
        }
        if entry.queue.try_send(event).is_err() {
            entry.overflowed.store(true, Ordering::Release);
        }
    }

    /// Queues an event for every channel.
    pub fn dispatch_all(&self, event: impl Fn() -> ChannelEvent) {
        for room in self.rooms() {
            self.dispatch(room, event());
        }
    }

    /// The connection ended: all channels have to catch up.
    pub fn disconnected(&self) {
        self.health.all_behind();
    }

    /// The room, if it can be listened to (again).
    pub async fn reopened(&self, room: String) -> Option<String> {
        let found = self.client.room(&room).await.ok()?;
        (found.member != Some(false)).then_some(room)
    }

    /// A channel is caught up and follows the live feed.
    pub fn caught_up(&self, room: &str) {
        if self.health.caught_up(room) {
            tracing::info!(silo.name = %self.silo, silo.channel = %room, "Channel is open again");
        }
    }

    /// A room is closed to the account. The other rooms continue.
    pub fn close(&self, room: &str, reason: &str) {
        if self.health.close(room) {
            tracing::error!(silo.name = %self.silo, silo.channel = %room, error = %reason,
                "Channel is closed to this account; the bridge tries again every five minutes");
        }
    }
}
