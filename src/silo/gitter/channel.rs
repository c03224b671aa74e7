//! One channel's listener: takes what is heard of the channel in order, finds what was not heard, and writes
//! all of it down with the cursor. Knows Gitter's messages; knows no connection.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use footbridge_store::{Accepted, Arrival, Batch, Millis, Place, RemoteId};
use tokio::time::Instant;

use super::{
    api::{ChatMessage, id_of_moment},
    arrival,
    client::{PAGE, Page, Range},
    fault::Fault,
    hub::{Ear, Heard, Hub, pause},
    ledger::{Change, Ledger},
    pacing::Need,
};
use crate::{
    inbox::Inbox,
    silo::{Channel, SiloError},
};

/// Ids and moments of different servers of Gitter's agree within this.
const SKEW: Duration = Duration::from_secs(2);
/// A message younger than this may be missing from a listing because a replica lags.
const YOUNG: Duration = Duration::from_secs(5);
/// A message that a listing shows this long after it was sent should have been heard.
const DEAF: Duration = Duration::from_secs(30);
/// A channel is re-read because of garbage at most this often.
const REREAD_EVERY: Duration = Duration::from_secs(10);
/// Messages re-read at a page's border, in case earlier ones were deleted meanwhile.
const BORDER: usize = 20;
/// The most that a listing can leave out.
const LONGEST_SKIP: usize = 5000;
/// The most deletions that one listing is searched for.
const MOST_MISSING: usize = 20;
/// Events written down together when they come fast.
const BURST: usize = 64;

/// The listener of one channel.
pub struct Listener {
    hub: Arc<Hub>,
    inbox: Inbox,
    ear: Ear,
    place: Place,
    room: String,
    overlap: Duration,
    /// The newest moment written down as read; everything before `since` is history.
    cursor: Millis,
    since: Millis,
    moved: bool,
    ledger: Ledger,
    arrivals: Vec<Arrival>,
    /// When it was last re-read because of garbage, and when it will be again.
    reread_last: Option<Instant>,
    reread_at: Option<Instant>,
}

impl Listener {
    /// Opens the channel's cursor. A channel that never had one starts now: what was said before it was
    /// linked is not relayed.
    pub async fn open(
        hub: Arc<Hub>,
        inbox: Inbox,
        (channel, ear): (Channel, Ear),
        overlap: Duration,
    ) -> Result<Self, SiloError> {
        let (cursor, since) = names(&channel.place);
        let mut listener = Self {
            room: channel.place.address().to_owned(),
            place: channel.place,
            cursor: hub.client.now(),
            since: hub.client.now(),
            hub,
            inbox,
            ear,
            overlap,
            moved: false,
            ledger: Ledger::default(),
            arrivals: Vec::new(),
            reread_last: None,
            reread_at: None,
        };
        let store = listener.inbox.store();
        let (stored, started) = (store.cursor(&cursor).await?, store.cursor(&since).await?);
        let moment = |text: Option<String>| text.and_then(|text| text.parse().ok()).map(Millis);
        match (moment(stored), moment(started)) {
            (Some(stored), Some(started)) => (listener.cursor, listener.since) = (stored, started),
            _ => {
                let batch = Batch {
                    cursors: vec![
                        (cursor, listener.cursor.0.to_string()),
                        (since, listener.since.0.to_string()),
                    ],
                    ..Batch::default()
                };
                listener.inbox.accept(batch).await?;
            }
        }
        Ok(listener)
    }

    /// Listens for as long as somebody talks.
    pub async fn run(mut self) -> Result<(), SiloError> {
        loop {
            let heard = match self.reread_at {
                None => self.ear.hear().await,
                Some(at) => tokio::select! {
                    heard = self.ear.hear() => heard,
                    () = tokio::time::sleep_until(at) => {
                        self.reread().await?;
                        continue;
                    }
                },
            };
            let Some(heard) = heard else {
                return Ok(());
            };
            self.take_burst(heard).await?;
            if self.ear.has_overflowed() {
                tracing::warn!(silo.channel = %self.room, "Events came faster than they were written down");
                self.catch_up().await?;
            }
        }
    }

    /// Takes what was heard, and with it the events that wait behind it already.
    async fn take_burst(&mut self, first: Heard) -> Result<(), SiloError> {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(heard) = next.take() {
            match heard {
                Heard::Message(message) => {
                    self.take(&message).await?;
                }
                Heard::Removed(id) => self.removed(&id).await?,
                other => {
                    self.flush().await?;
                    return self.look_around(other).await;
                }
            }
            taken += 1;
            if taken < BURST {
                next = self.ear.hear_now();
            }
        }
        self.flush().await?;
        Ok(())
    }

    /// Takes what is no event.
    async fn look_around(&mut self, heard: Heard) -> Result<(), SiloError> {
        match heard {
            Heard::Connected(snapshot) => self.connected(snapshot).await,
            Heard::Lost => self.catch_up().await,
            Heard::Garbled => match self.reread_last {
                // A stream of garbage must not become a stream of requests.
                Some(last) if last.elapsed() < REREAD_EVERY => {
                    self.reread_at.get_or_insert(last + REREAD_EVERY);
                    Ok(())
                }
                _ => self.reread().await,
            },
            Heard::Listing {
                messages,
                full,
                asked_at,
            } => self.audited(messages, full, asked_at).await,
            Heard::Message(_) | Heard::Removed(_) => Ok(()),
        }
    }

    async fn reread(&mut self) -> Result<(), SiloError> {
        self.reread_at = None;
        self.catch_up().await?;
        self.reread_last = Some(Instant::now());
        Ok(())
    }

    /// The feed begins (again): what it did not bring is fetched before what it brings is taken.
    async fn connected(&mut self, snapshot: Option<Vec<ChatMessage>>) -> Result<(), SiloError> {
        let start = self.start();
        match snapshot {
            Some(messages) if reaches(&messages, start) => {
                let asked_at = self.hub.client.now();
                let full = messages.len() >= PAGE;
                self.reconcile(messages, full, asked_at).await?;
                self.hub.health.caught_up(&self.room);
                tracing::debug!(silo.channel = %self.room, "Caught up from the snapshot");
                Ok(())
            }
            _ => self.catch_up().await,
        }
    }

    /// Re-reads from a little before the cursor to the end, page by page.
    async fn catch_up(&mut self) -> Result<(), SiloError> {
        let start = self.start();
        let asked_at = self.hub.client.now();
        let mut seen = BTreeSet::new();
        let mut range = Range {
            after: Some(id_of_moment(start)),
            skip: 0,
        };
        loop {
            let Some(page) = self.page(&range).await? else {
                return Ok(());
            };
            let before = seen.len();
            seen.extend(page.messages.iter().map(|message| message.id.clone()));
            let next = page
                .full
                .then(|| next_range(&range, &page.messages, &seen, before))
                .flatten();
            self.take_all(page.messages).await?;
            match next {
                Some(next) => range = next,
                None => break,
            }
        }
        let from = start.plus(Duration::from_secs(1));
        self.find_missing(&seen, from, asked_at).await?;
        self.hub.health.caught_up(&self.room);
        tracing::debug!(silo.channel = %self.room, count = seen.len(), "Caught up by re-reading");
        Ok(())
    }

    /// A listing that somebody made beside the feed.
    async fn audited(
        &mut self,
        messages: Vec<ChatMessage>,
        full: bool,
        asked_at: Millis,
    ) -> Result<(), SiloError> {
        let unheard = self.reconcile(messages, full, asked_at).await?;
        if unheard > 0 {
            tracing::warn!(silo.channel = %self.room, count = unheard,
                "Messages were found that the feed did not bring; connecting anew");
            self.hub.deaf.notify_one();
        }
        Ok(())
    }

    /// Takes a listing of the newest messages. Answers how many of them should have been heard before.
    async fn reconcile(
        &mut self,
        messages: Vec<ChatMessage>,
        full: bool,
        asked_at: Millis,
    ) -> Result<usize, SiloError> {
        let oldest = messages.iter().map(ChatMessage::sent_at).min();
        let from = match oldest {
            Some(oldest) if full => oldest.plus(Duration::from_millis(1)),
            _ => self.since,
        };
        let ids = messages.iter().map(|message| message.id.clone()).collect();
        let unheard = self.take_all(messages).await?;
        self.find_missing(&ids, from, asked_at).await?;
        Ok(unheard
            .into_iter()
            .filter(|sent_at| asked_at.since(*sent_at) > DEAF)
            .count())
    }

    /// One page, however long it takes; `None` if the room is closed to us.
    async fn page(&self, range: &Range) -> Result<Option<Page>, SiloError> {
        let mut failures = 0;
        loop {
            match self
                .hub
                .client
                .messages(Need::Read, &self.room, range)
                .await
            {
                Ok(page) => return Ok(Some(page)),
                Err(Fault::SignedOut) => return Err(Fault::SignedOut.into()),
                Err(Fault::Closed(reason)) => {
                    self.hub.close(&self.room, reason);
                    return Ok(None);
                }
                Err(fault) => {
                    let wait = match &fault {
                        Fault::Busy { after } => *after,
                        _ => pause(failures),
                    };
                    tracing::warn!(silo.channel = %self.room, error = %fault, attempt = failures + 1,
                        "Cannot read the channel yet");
                    failures += 1;
                    tokio::time::sleep(wait).await;
                }
            }
        }
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
        if sent_at > self.cursor {
            self.cursor = sent_at;
            self.moved = true;
        }
        Ok(fresh)
    }

    fn take_known(&mut self, message: &ChatMessage, ours: bool, change: Change) {
        match change {
            Change::None => return,
            Change::Emptied if self.hub.echoes.has_removed(&message.id) => {}
            Change::Emptied => {
                let seen_at = self.hub.client.now();
                self.arrivals
                    .push(arrival::deletion(&self.place, &message.id, seen_at));
            }
            // Only its author can edit a message: a changed copy of ours was changed by us.
            Change::Edited if ours => {}
            Change::Edited => self.arrivals.push(arrival::edit(&self.place, message)),
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
                .linked(&self.place, &message.remote())
                .await?
        } else {
            // A plain message needs no question: the journal takes it once.
            None
        };
        let ours = made || link.as_ref().is_some_and(|link| !link.original);
        self.ledger.keep(message, ours);
        if emptied {
            if link.is_some_and(|link| !link.gone) && !self.hub.echoes.has_removed(&message.id) {
                let seen_at = self.hub.client.now();
                self.arrivals
                    .push(arrival::deletion(&self.place, &message.id, seen_at));
            }
        } else if ours {
        } else if edited && link.is_some() {
            self.arrivals.push(arrival::edit(&self.place, message));
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
                settled = self.inbox.settled(&self.place) => return Ok(settled?),
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
            .linked(&self.place, &RemoteId::from(id))
            .await?;
        let seen_at = self.hub.client.now();
        self.ledger.deleted(id, seen_at);
        if link.is_some_and(|link| !link.gone) {
            self.arrivals
                .push(arrival::deletion(&self.place, id, seen_at));
        }
        Ok(())
    }

    /// Messages that we know and that a listing of their time does not show are asked for one by one, and
    /// deleted if Gitter says that they are gone.
    async fn find_missing(
        &mut self,
        listed: &BTreeSet<String>,
        from: Millis,
        asked_at: Millis,
    ) -> Result<(), SiloError> {
        let first = RemoteId(id_of_moment(from));
        let links = self.inbox.store().links_from(&self.place, &first).await?;
        let missing: Vec<String> = links
            .into_iter()
            .filter(|link| link.copy.sent_at >= from && asked_at.since(link.copy.sent_at) > YOUNG)
            .map(|link| link.copy.remote.0)
            .filter(|id| !listed.contains(id) && !self.ledger.is_deleted(id))
            .filter(|id| !self.hub.echoes.has_removed(id))
            .take(MOST_MISSING)
            .collect();
        for id in missing {
            match self.hub.client.message(Need::Audit, &self.room, &id).await {
                Err(Fault::Gone) => {
                    // A deletion of ours may be on its way.
                    self.inbox.settled(&self.place).await?;
                    self.removed(&id).await?;
                }
                Err(Fault::SignedOut) => return Err(Fault::SignedOut.into()),
                Err(_) => break,
                Ok(_) => {}
            }
        }
        self.flush().await?;
        Ok(())
    }

    /// Writes down what was gathered, with the cursor. Answers when those messages were sent that are new.
    async fn flush(&mut self) -> Result<Vec<Millis>, SiloError> {
        if self.arrivals.is_empty() && !self.moved {
            return Ok(Vec::new());
        }
        let arrivals = std::mem::take(&mut self.arrivals);
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

    /// Where re-reading starts.
    fn start(&self) -> Millis {
        let overlap = i64::try_from(self.overlap.as_millis()).unwrap_or(i64::MAX);
        Millis(self.cursor.0.saturating_sub(overlap)).max(self.since)
    }
}

/// The names of a channel's cursors: how far it was read, and since when it is linked.
fn names(place: &Place) -> (String, String) {
    (place.as_str().to_owned(), format!("{place}/since"))
}

/// Whether a listing of the newest messages shows everything from `start` on.
fn reaches(messages: &[ChatMessage], start: Millis) -> bool {
    messages.len() < PAGE || messages.iter().any(|message| message.sent_at() < start)
}

/// Where the next page begins. Listings filter by id but sort by time, and ids are only ordered by their second,
/// so the page starts a little before the newest message seen and leaves out what is known of that stretch.
fn next_range(
    range: &Range,
    messages: &[ChatMessage],
    seen: &BTreeSet<String>,
    before: usize,
) -> Option<Range> {
    let newest = messages.iter().map(ChatMessage::sent_at).max()?;
    let skew = i64::try_from(SKEW.as_millis()).unwrap_or_default();
    let moment = id_of_moment(Millis(newest.0.saturating_sub(skew)));
    let after = range.after.clone().max(Some(moment))?;
    if seen.len() > before {
        let known = seen.range(after.clone()..).count();
        let skip = known.saturating_sub(BORDER).min(LONGEST_SKIP);
        return Some(Range {
            after: Some(after),
            skip,
        });
    }
    // Nothing new on a full page: more messages in one second than a listing can leave out.
    let last = messages.iter().map(|message| message.id.clone()).max()?;
    (Some(&last) > range.after.as_ref()).then_some(Range {
        after: Some(last),
        skip: 0,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(second: i64, number: usize, process: u8) -> ChatMessage {
        let sent = jiff::Timestamp::from_millisecond(
            second * 1000 + i64::try_from(number % 1000).unwrap(),
        )
        .unwrap();
        serde_json::from_value(json!({
            "id": format!("{second:08x}{process:02x}{number:014x}"), "sent": sent.to_string(), "text": "x"
        }))
        .unwrap()
    }

    /// Gitter's listing: filtered by id, sorted by time.
    fn list(all: &[ChatMessage], range: &Range) -> Vec<ChatMessage> {
        let mut found: Vec<_> = all
            .iter()
            .filter(|message| Some(&message.id) > range.after.as_ref())
            .cloned()
            .collect();
        found.sort_by_key(ChatMessage::sent_at);
        found.into_iter().skip(range.skip).take(PAGE).collect()
    }

    #[test]
    fn paging_finds_every_message_although_ids_are_not_in_order() {
        for per_second in [1, 7, 60, 130, 450] {
            let all: Vec<_> = (0..20 * per_second)
                .map(|n| {
                    message(
                        1_600_000_000 + (n / per_second) as i64,
                        n % per_second,
                        [9, 3, 7][n % 3],
                    )
                })
                .collect();
            let mut range = Range {
                after: Some(id_of_moment(Millis(1_599_999_990_000))),
                skip: 0,
            };
            let mut seen = BTreeSet::new();
            let mut pages = 0;
            loop {
                let page = list(&all, &range);
                let before = seen.len();
                seen.extend(page.iter().map(|message| message.id.clone()));
                pages += 1;
                assert!(pages < all.len() / 50 + 10, "paging ends");
                if page.len() < PAGE {
                    break;
                }
                range = next_range(&range, &page, &seen, before).expect("there is more");
            }
            assert_eq!(seen.len(), all.len(), "{per_second} a second");
        }
    }

    #[test]
    fn a_snapshot_reaches_back_only_if_it_shows_something_older() {
        let newest: Vec<_> = (0..PAGE).map(|n| message(1_600_000_000, n, 1)).collect();
        assert!(!reaches(&newest, Millis(1_600_000_000_000)));
        assert!(reaches(&newest, Millis(1_600_000_000_001)));
        assert!(reaches(&newest[..5], Millis(0)) && reaches(&[], Millis(0)));
    }
}
