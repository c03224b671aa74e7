//! The listener of one channel: processes the channel's events in order, finds those that the feed missed, and writes
//! all to the journal with the cursor. It knows Gitter's messages and no connection.

mod catch_up;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use footbridge_core::inbox::{Arrival, Batch, Inbox};
use footbridge_store::{Accepted, LinkBarrier, Millis, Place, RemoteId};
use tokio::time::Instant;

use super::{
    api::ChatMessage,
    arrival,
    dispatcher::{ChannelEvent, Dispatcher, EventReceiver},
    message_cache::{MessageCache, MessageChange},
};
use crate::{Channel, SiloError, backfill::Backfill, server_clock::is_ahead};

/// The shortest interval at which unreadable events cause a channel to be re-read.
const REREAD_INTERVAL: Duration = Duration::from_secs(10);
/// How long to wait before a channel that is closed to the account is read again.
const CLOSED_POLL_INTERVAL: Duration = Duration::from_mins(5);
/// The most events in one transaction when they arrive fast.
const BURST: usize = 64;

/// The listener of one channel.
pub struct Listener {
    dispatcher: Arc<Dispatcher>,
    inbox: Inbox,
    ear: EventReceiver,
    place: Place,
    room: String,
    overlap: Duration,
    /// The newest time that was read, as stored; everything before `since` is older than the link.
    cursor: Millis,
    since: Millis,
    moved: bool,
    /// Whether messages between the cursor and the feed's present events have not been read. The cursor must not move
    /// past them.
    behind: bool,
    /// The newest link barrier: messages before that link may still be unread.
    link: Option<LinkBarrier>,
    /// The backfill.
    history: Backfill,
    message_cache: MessageCache,
    arrivals: Vec<Arrival>,
    /// When the channel was last re-read because of unreadable events, and when it will be again.
    reread_last: Option<Instant>,
    reread_at: Option<Instant>,
    /// Messages that a listing did not show and that were too young to count as deleted, and when to request them.
    young: BTreeSet<String>,
    recheck_at: Option<Instant>,
}

impl Listener {
    /// Opens the channel's cursor. A channel without one starts now: messages from before it was linked are not
    /// relayed.
    pub async fn open(
        hub: Arc<Dispatcher>,
        inbox: Inbox,
        channel: Channel,
        ear: EventReceiver,
        overlap: Duration,
    ) -> Result<Self, SiloError> {
        let (cursor, since) = names(&channel.place);
        let now = hub.client.now();
        let link = inbox
            .store()
            .newest_link_barrier(vec![channel.place.clone()])
            .await?;
        let history = Backfill::open(&channel.place, inbox.store()).await?;
        let mut listener = Self {
            room: channel.place.address().to_owned(),
            place: channel.place,
            cursor: now,
            since: now,
            dispatcher: hub,
            inbox,
            ear,
            overlap,
            moved: false,
            behind: true,
            link,
            history,
            message_cache: MessageCache::default(),
            arrivals: Vec::new(),
            reread_last: None,
            reread_at: None,
            young: BTreeSet::new(),
            recheck_at: None,
        };
        let store = listener.inbox.store();
        let (stored, started) = (store.cursor(&cursor).await?, store.cursor(&since).await?);
        let moment = |text: Option<String>| text.and_then(|text| text.parse().ok()).map(Millis);
        if let (Some(stored), Some(started)) = (moment(stored), moment(started)) {
            (listener.cursor, listener.since) = (stored, started);
            if is_ahead(stored, now) {
                tracing::warn!(silo.channel = %listener.room,
                    "The cursor of a channel is in Gitter's future; reading the channel again from when it was linked");
                listener.since = started.min(now);
                listener.cursor = listener.since;
                let moment = listener.since.0.to_string();
                let batch = Batch {
                    cursors: vec![(cursor, moment.clone()), (since, moment)],
                    ..Batch::default()
                };
                listener.inbox.accept(batch).await?;
            }
        } else if channel.backfill > 0 {
            listener.history.wanted = channel.backfill;
        } else {
            let now = listener.cursor.0.to_string();
            let batch = Batch {
                cursors: vec![(cursor, now.clone()), (since, now)],
                ..Batch::default()
            };
            listener.inbox.accept(batch).await?;
        }
        Ok(listener)
    }

    /// Listens until the dispatcher is dropped.
    pub async fn run(mut self) -> Result<(), SiloError> {
        loop {
            let due = [self.reread_at, self.recheck_at]
                .into_iter()
                .flatten()
                .min();
            let event = match due {
                None => self.ear.recv().await,
                Some(at) => tokio::select! {
                    event = self.ear.recv() => event,
                    () = tokio::time::sleep_until(at) => {
                        self.recheck_due(at).await?;
                        continue;
                    }
                },
            };
            let Some(event) = event else {
                return Ok(());
            };
            self.take_burst(event).await?;
            if self.ear.has_overflowed() {
                tracing::warn!(silo.channel = %self.room, "Event queue overflowed; catching up");
                self.catch_up().await?;
            }
        }
    }

    /// Processes an event and those that are already queued behind it.
    async fn take_burst(&mut self, first: ChannelEvent) -> Result<(), SiloError> {
        if self.behind && matches!(first, ChannelEvent::Message(_) | ChannelEvent::Removed(_)) {
            self.catch_up().await?;
            if self.behind {
                // Catch-up will read the message of this event.
                return Ok(());
            }
        }
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(event) = next.take() {
            match event {
                ChannelEvent::Message(message) => {
                    self.take(&message).await?;
                }
                ChannelEvent::Removed(id) => self.removed(&id).await?,
                other => {
                    self.flush().await?;
                    return self.handle_other(other).await;
                }
            }
            taken += 1;
            if taken < BURST {
                next = self.ear.try_recv();
            }
        }
        self.flush().await?;
        Ok(())
    }

    /// Processes an event that is neither a message nor a removal.
    async fn handle_other(&mut self, event: ChannelEvent) -> Result<(), SiloError> {
        match event {
            ChannelEvent::Connected(snapshot) => self.connected(snapshot).await,
            ChannelEvent::Lost => self.catch_up().await,
            ChannelEvent::Garbled => match self.reread_last {
                // A stream of unreadable events must not become a stream of requests.
                Some(last) if last.elapsed() < REREAD_INTERVAL => {
                    self.reread_at.get_or_insert(last + REREAD_INTERVAL);
                    Ok(())
                }
                _ => self.reread().await,
            },
            ChannelEvent::Listing {
                messages,
                full,
                asked_at,
            } => self.audited(messages, full, asked_at).await,
            ChannelEvent::Message(_) | ChannelEvent::Removed(_) => Ok(()),
        }
    }

    /// Does the re-reading and rechecking that was planned for this time.
    async fn recheck_due(&mut self, now: Instant) -> Result<(), SiloError> {
        if self.recheck_at.is_some_and(|at| at <= now) {
            self.recheck().await?;
        }
        if self.reread_at.is_some_and(|at| at <= now) {
            self.reread().await?;
        }
        Ok(())
    }

    async fn reread(&mut self) -> Result<(), SiloError> {
        self.reread_at = None;
        self.catch_up().await?;
        self.reread_last = Some(Instant::now());
        Ok(())
    }

    /// Processes the messages of a listing in the order of their time. Returns the times of the new ones.
    async fn take_all(&mut self, mut messages: Vec<ChatMessage>) -> Result<Vec<Millis>, SiloError> {
        // A stable sort: messages of the same millisecond stay in Gitter's order.
        messages.sort_by_key(ChatMessage::sent_at);
        let mut new = Vec::new();
        for message in &messages {
            new.extend(self.take(message).await?);
        }
        new.extend(self.flush().await?);
        Ok(new)
    }

    /// Processes one version of a message. Pending arrivals are written first when this message has to wait.
    async fn take(&mut self, message: &ChatMessage) -> Result<Vec<Millis>, SiloError> {
        let mut new = Vec::new();
        let sent_at = message.sent_at();
        if sent_at < self.since || message.text.is_none() {
            return Ok(new);
        }
        if let Some(last) = self.message_cache.get(&message.id) {
            self.take_known(
                message,
                last.ours,
                self.message_cache.compare(last, message),
            );
        } else if message.is_from(&self.dispatcher.me)
            && !self.dispatcher.echoes.has_made(&message.id)
        {
            new = self.flush().await?;
            self.settled(&message.id).await?;
            self.take_unknown(message).await?;
        } else {
            self.take_unknown(message).await?;
        }
        // A message with a time in the future does not move the cursor there.
        let read_until = sent_at.min(self.dispatcher.client.now());
        if read_until > self.cursor {
            self.cursor = read_until;
            self.moved = true;
        }
        Ok(new)
    }

    fn take_known(&mut self, message: &ChatMessage, ours: bool, change: MessageChange) {
        match change {
            MessageChange::None => return,
            MessageChange::Emptied if self.dispatcher.echoes.has_removed(&message.id) => {}
            MessageChange::Emptied => {
                let seen_at = self.dispatcher.client.now();
                self.arrivals
                    .push(arrival::deletion(&self.place, &message.id, seen_at));
            }
            // Only its author can edit a message: the bridge itself changed its own message.
            MessageChange::Edited if ours => {}
            MessageChange::Edited => self.arrivals.push(arrival::edit(&self.place, message)),
        }
        self.message_cache.keep(message, ours);
    }

    async fn take_unknown(&mut self, message: &ChatMessage) -> Result<(), SiloError> {
        let mine = message.is_from(&self.dispatcher.me);
        let emptied = message.raw().is_empty();
        let made = self.dispatcher.echoes.has_made(&message.id);
        let edited = message.edited_at().is_some();
        let link = if made || mine || emptied || edited {
            self.inbox
                .store()
                .find_message(&self.place, &message.remote())
                .await?
        } else {
            // A plain message needs no look-up: the journal accepts it once.
            None
        };
        let ours = made || link.as_ref().is_some_and(|link| !link.original);
        self.message_cache.keep(message, ours);
        if emptied {
            if link.is_some_and(|link| !link.deleted)
                && !self.dispatcher.echoes.has_removed(&message.id)
            {
                let seen_at = self.dispatcher.client.now();
                self.arrivals
                    .push(arrival::deletion(&self.place, &message.id, seen_at));
            }
        } else if ours {
        } else if edited && link.is_some() {
            self.arrivals.push(arrival::edit(&self.place, message));
        } else if mine
            && link.is_none()
            && self
                .dispatcher
                .echoes
                .is_late_echo(&self.room, message.raw())
        {
            self.arrivals
                .push(arrival::late_duplicate(&self.place, message));
        } else {
            self.arrivals.push(arrival::post(&self.place, message));
            if edited {
                self.arrivals
                    .push(arrival::edit_included(&self.place, message));
            }
        }
        Ok(())
    }

    /// Waits until it is known whether the bridge made this message.
    async fn settled(&self, id: &str) -> Result<(), SiloError> {
        let remote = RemoteId::from(id);
        loop {
            let changed = self.dispatcher.echoes.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.dispatcher.echoes.has_made(id)
                || self.inbox.store().is_linked(&self.place, &remote).await?
            {
                return Ok(());
            }
            tokio::select! {
                settled = self.inbox.wait_settled(&self.place) => return Ok(settled?),
                () = changed => {}
            }
        }
    }

    /// A message was deleted.
    async fn removed(&mut self, id: &str) -> Result<(), SiloError> {
        if self.dispatcher.echoes.has_removed(id) || self.message_cache.is_deleted(id) {
            return Ok(());
        }
        self.flush().await?;
        let link = self
            .inbox
            .store()
            .find_message(&self.place, &RemoteId::from(id))
            .await?;
        let seen_at = self.dispatcher.client.now();
        self.message_cache.deleted(id, seen_at);
        if link.is_some_and(|link| !link.deleted) {
            self.arrivals
                .push(arrival::deletion(&self.place, id, seen_at));
        }
        Ok(())
    }

    /// Writes the pending arrivals with the cursor. Returns the times of the new messages.
    async fn flush(&mut self) -> Result<Vec<Millis>, SiloError> {
        if self.arrivals.is_empty() && !self.moved {
            return Ok(Vec::new());
        }
        let mut arrivals = std::mem::take(&mut self.arrivals);
        self.history.mark(&mut arrivals);
        let posts: Vec<Option<Millis>> = arrivals
            .iter()
            .map(|arrival| arrival.message.as_ref().map(|_| arrival.sent_at))
            .collect();
        let batch = Batch {
            arrivals,
            cursors: vec![(names(&self.place).0, self.cursor.0.to_string())],
            ..Batch::default()
        };
        let accepted = self.inbox.accept(batch).await?;
        self.moved = false;
        Ok(posts
            .into_iter()
            .zip(&accepted)
            .filter_map(|(sent_at, accepted)| {
                sent_at.filter(|_| matches!(accepted, Accepted::New(_)))
            })
            .collect())
    }
}

/// The names of a channel's cursors: how far it was read, and since when it is linked.
fn names(place: &Place) -> (String, String) {
    (place.as_str().to_owned(), format!("{place}/since"))
}
