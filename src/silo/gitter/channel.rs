//! One channel's listener: takes what is heard of the channel in order, finds what was not heard, and writes
//! all of it down with the cursor. Knows Gitter's messages; knows no connection.

mod catch_up;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use footbridge_core::inbox::Inbox;
use footbridge_store::{Accepted, Arrival, Batch, LinkBarrier, Millis, Place, RemoteId};
use tokio::time::Instant;

use super::{
    api::ChatMessage,
    arrival,
    dispatcher::{ChannelEvent, Dispatcher, EventReceiver},
    message_cache::{MessageCache, MessageChange},
};
use crate::{Channel, SiloError, backfill::Backfill, server_clock::is_ahead};

/// A channel is re-read because of garbage at most this often.
const REREAD_INTERVAL: Duration = Duration::from_secs(10);
/// A channel that could not be re-read because it is closed to us is tried again after this long.
const CLOSED_POLL_INTERVAL: Duration = Duration::from_mins(5);
/// Events written down together when they come fast.
const BURST: usize = 64;

/// The listener of one channel.
pub struct Listener {
    hub: Arc<Dispatcher>,
    inbox: Inbox,
    ear: EventReceiver,
    place: Place,
    room: String,
    overlap: Duration,
    /// The newest moment written down as read; everything before `since` is history.
    cursor: Millis,
    since: Millis,
    moved: bool,
    /// Whether nobody has read yet what was said between the cursor and what the feed brings now. The cursor may
    /// not move past that.
    behind: bool,
    /// The newest link before which something may have been said that is still to be read.
    link: Option<LinkBarrier>,
    /// What was said before, and comes along.
    history: Backfill,
    ledger: MessageCache,
    arrivals: Vec<Arrival>,
    /// When it was last re-read because of garbage, and when it will be again.
    reread_last: Option<Instant>,
    reread_at: Option<Instant>,
    /// Messages that a listing did not show and that were too young to be believed deleted, and when to ask for
    /// them.
    young: BTreeSet<String>,
    recheck_at: Option<Instant>,
}

impl Listener {
    /// Opens the channel's cursor. A channel that never had one starts now: what was said before it was
    /// linked is not relayed.
    pub async fn open(
        hub: Arc<Dispatcher>,
        inbox: Inbox,
        (channel, ear): (Channel, EventReceiver),
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
            hub,
            inbox,
            ear,
            overlap,
            moved: false,
            behind: true,
            link,
            history,
            ledger: MessageCache::default(),
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
                    "A channel was read up to a moment that Gitter has not reached; reading it again since it was linked");
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

    /// Listens for as long as somebody talks.
    pub async fn run(mut self) -> Result<(), SiloError> {
        loop {
            let due = [self.reread_at, self.recheck_at]
                .into_iter()
                .flatten()
                .min();
            let heard = match due {
                None => self.ear.recv().await,
                Some(at) => tokio::select! {
                    heard = self.ear.recv() => heard,
                    () = tokio::time::sleep_until(at) => {
                        self.recheck_due(at).await?;
                        continue;
                    }
                },
            };
            let Some(heard) = heard else {
                return Ok(());
            };
            self.take_burst(heard).await?;
            if self.ear.has_overflowed() {
                tracing::warn!(silo.channel = %self.room, "Event queue overflowed; catching up");
                self.catch_up().await?;
            }
        }
    }

    /// Takes what was heard, and with it the events that wait behind it already.
    async fn take_burst(&mut self, first: ChannelEvent) -> Result<(), SiloError> {
        if self.behind && matches!(first, ChannelEvent::Message(_) | ChannelEvent::Removed(_)) {
            self.catch_up().await?;
            if self.behind {
                // What was heard will be read with the rest.
                return Ok(());
            }
        }
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(heard) = next.take() {
            match heard {
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

    /// Takes what is no event.
    async fn handle_other(&mut self, heard: ChannelEvent) -> Result<(), SiloError> {
        match heard {
            ChannelEvent::Connected(snapshot) => self.connected(snapshot).await,
            ChannelEvent::Lost => self.catch_up().await,
            ChannelEvent::Garbled => match self.reread_last {
                // A stream of garbage must not become a stream of requests.
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

    /// It is time to look again at what was left for this moment.
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

    /// Takes messages of a listing in the order they were sent. Answers when those were sent that are new.
    async fn take_all(&mut self, mut messages: Vec<ChatMessage>) -> Result<Vec<Millis>, SiloError> {
        // Stable: what was sent in the same millisecond stays as Gitter lists it.
        messages.sort_by_key(ChatMessage::sent_at);
        let mut fresh = Vec::new();
        for message in &messages {
            fresh.extend(self.take(message).await?);
        }
        fresh.extend(self.flush().await?);
        Ok(fresh)
    }

    /// Takes one look at a message. What was gathered is written first when this one has to wait.
    async fn take(&mut self, message: &ChatMessage) -> Result<Vec<Millis>, SiloError> {
        let mut fresh = Vec::new();
        let sent_at = message.sent_at();
        if sent_at < self.since || message.text.is_none() {
            return Ok(fresh);
        }
        if let Some(last) = self.ledger.get(&message.id) {
            self.take_known(message, last.ours, self.ledger.compare(last, message));
        } else if message.is_from(&self.hub.me) && !self.hub.echoes.has_made(&message.id) {
            fresh = self.flush().await?;
            self.settled(&message.id).await?;
            self.take_unknown(message).await?;
        } else {
            self.take_unknown(message).await?;
        }
        // A message from the future does not take the cursor there.
        let read_until = sent_at.min(self.hub.client.now());
        if read_until > self.cursor {
            self.cursor = read_until;
            self.moved = true;
        }
        Ok(fresh)
    }

    fn take_known(&mut self, message: &ChatMessage, ours: bool, change: MessageChange) {
        match change {
            MessageChange::None => return,
            MessageChange::Emptied if self.hub.echoes.has_removed(&message.id) => {}
            MessageChange::Emptied => {
                let seen_at = self.hub.client.now();
                self.arrivals
                    .push(arrival::deletion(&self.place, &message.id, seen_at));
            }
            // Only its author can edit a message: a changed copy of ours was changed by us.
            MessageChange::Edited if ours => {}
            MessageChange::Edited => self.arrivals.push(arrival::edit(&self.place, message)),
        }
        self.ledger.keep(message, ours);
    }

    async fn take_unknown(&mut self, message: &ChatMessage) -> Result<(), SiloError> {
        let mine = message.is_from(&self.hub.me);
        let emptied = message.raw().is_empty();
        let made = self.hub.echoes.has_made(&message.id);
        let edited = message.edited_at().is_some();
        let link = if made || mine || emptied || edited {
            self.inbox
                .store()
                .find_message(&self.place, &message.remote())
                .await?
        } else {
            // A plain message needs no question: the journal takes it once.
            None
        };
        let ours = made || link.as_ref().is_some_and(|link| !link.original);
        self.ledger.keep(message, ours);
        if emptied {
            if link.is_some_and(|link| !link.deleted) && !self.hub.echoes.has_removed(&message.id) {
                let seen_at = self.hub.client.now();
                self.arrivals
                    .push(arrival::deletion(&self.place, &message.id, seen_at));
            }
        } else if ours {
        } else if edited && link.is_some() {
            self.arrivals.push(arrival::edit(&self.place, message));
        } else if mine && link.is_none() && self.hub.echoes.is_late_echo(&self.room, message.raw())
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

    /// Waits until it is known whether we made this message.
    async fn settled(&self, id: &str) -> Result<(), SiloError> {
        let remote = RemoteId::from(id);
        loop {
            let changed = self.hub.echoes.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.hub.echoes.has_made(id)
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

    /// A message is gone.
    async fn removed(&mut self, id: &str) -> Result<(), SiloError> {
        if self.hub.echoes.has_removed(id) || self.ledger.is_deleted(id) {
            return Ok(());
        }
        self.flush().await?;
        let link = self
            .inbox
            .store()
            .find_message(&self.place, &RemoteId::from(id))
            .await?;
        let seen_at = self.hub.client.now();
        self.ledger.deleted(id, seen_at);
        if link.is_some_and(|link| !link.deleted) {
            self.arrivals
                .push(arrival::deletion(&self.place, id, seen_at));
        }
        Ok(())
    }

    /// Writes down what was gathered, with the cursor. Answers when those messages were sent that are new.
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
