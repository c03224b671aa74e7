//! How a channel's listener finds missed messages: it re-reads from the cursor, compares listings with its records, and
//! finds deletions.

use std::{collections::BTreeSet, time::Duration};

use footbridge_core::inbox::Batch;
use footbridge_store::{Millis, RemoteId};
use tokio::time::Instant;

use super::{
    super::{
        api::{ChatMessage, id_at_time, time_of_id},
        client::{PAGE, Page, Range},
        errors::RequestError,
        rate_limiter::Priority,
    },
    CLOSED_POLL_INTERVAL, Listener,
};
use crate::{SiloError, reconnect::Failures};

/// How far ids and times of different Gitter servers may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(2);
/// A younger message may be missing from a listing because a replica lags: the listener requests it this much later.
const YOUNG_AGE: Duration = Duration::from_secs(5);
/// How many messages of the previous page are read again, in case earlier ones were deleted in between.
const PAGE_OVERLAP: usize = 20;
/// The most messages that a listing can skip.
const MAX_SKIP: usize = 5000;
/// The most deletions that one listing is searched for.
const MAX_MISSING: usize = 20;

impl Listener {
    /// The feed begins (again): messages that it missed are read before its events are processed.
    pub(super) async fn connected(
        &mut self,
        snapshot: Option<Vec<ChatMessage>>,
    ) -> Result<(), SiloError> {
        let start = self.start();
        match snapshot {
            Some(messages) if self.history.wanted == 0 && reaches(&messages, start) => {
                let asked_at = self.dispatcher.client.now();
                let full = messages.len() >= PAGE;
                self.reconcile(messages, full, asked_at).await?;
                self.caught_up().await?;
                tracing::debug!(silo.channel = %self.room, "Caught up from the snapshot");
                Ok(())
            }
            _ => self.catch_up().await,
        }
    }

    /// Begins before the messages of the backfill. Returns whether the room is open to the account.
    async fn begin_backfill(&mut self) -> Result<bool, SiloError> {
        let now = self.dispatcher.client.now();
        let Some(page) = self.page(&Range::default()).await? else {
            return Ok(false);
        };
        let mut shown: Vec<Millis> = page.messages.iter().map(ChatMessage::sent_at).collect();
        shown.sort_unstable();
        let (begin, linked) = self.history.begin(&self.place, shown.into_iter(), now);
        (self.cursor, self.since) = (begin, begin);
        let (cursor, since) = super::names(&self.place);
        let begin = begin.0.to_string();
        let batch = Batch {
            cursors: vec![(cursor, begin.clone()), (since, begin), linked],
            ..Batch::default()
        };
        self.inbox.accept(batch).await?;
        Ok(true)
    }

    /// Re-reads from a little before the cursor to the end, page by page.
    pub(super) async fn catch_up(&mut self) -> Result<(), SiloError> {
        if self.history.wanted > 0 && !self.begin_backfill().await? {
            self.behind = true;
            self.reread_at
                .get_or_insert(Instant::now() + CLOSED_POLL_INTERVAL);
            return Ok(());
        }
        let start = self.start();
        let asked_at = self.dispatcher.client.now();
        let mut seen = BTreeSet::new();
        let mut count = 0;
        let mut pages = 0;
        let mut from = start;
        let mut range = Range {
            after: Some(id_at_time(start)),
            ..Range::default()
        };
        loop {
            let Some(page) = self.page(&range).await? else {
                self.behind = true;
                self.reread_at
                    .get_or_insert(Instant::now() + CLOSED_POLL_INTERVAL);
                return Ok(());
            };
            pages += 1;
            let before = seen.len();
            seen.extend(page.messages.iter().map(|message| message.id.clone()));
            count += seen.len() - before;
            let next = page
                .full
                .then(|| next_range(&range, &page.messages, &seen, before))
                .flatten();
            self.take_all(page.messages).await?;
            let end = next.as_ref().and_then(|next| next.after.clone());
            self.find_missing(&seen, from, end.as_deref(), asked_at)
                .await?;
            let Some(next) = next else { break };
            if let Some(end) = end {
                // Messages before the next page were compared: only the ids after them are still needed.
                from = from.max(time_of_id(&end).unwrap_or(from));
                seen = seen.split_off(&end);
            }
            range = next;
        }
        if pages > 1 {
            self.compare_older(start, asked_at).await?;
        }
        self.caught_up().await?;
        tracing::debug!(silo.channel = %self.room, count, "Caught up by re-reading");
        Ok(())
    }

    /// All earlier messages were written to the journal.
    async fn caught_up(&mut self) -> Result<(), SiloError> {
        if let Some(link) = self.link.take() {
            let places = vec![self.place.clone()];
            self.inbox.store().lift_link_barriers(places, link).await?;
        }
        self.behind = false;
        self.dispatcher.caught_up(&self.room);
        Ok(())
    }

    /// Compares the newest messages before this time with the bridge's records. After a long absence no audit reaches
    /// back to them, and they may have been edited or deleted since.
    async fn compare_older(&mut self, until: Millis, asked_at: Millis) -> Result<(), SiloError> {
        let end = id_at_time(until);
        let range = Range {
            before: Some(end.clone()),
            ..Range::default()
        };
        let Some(page) = self.page(&range).await? else {
            return Ok(());
        };
        let ids = page.messages.iter().map(|message| message.id.clone());
        let (ids, from) = (
            ids.collect(),
            self.oldest_compared(&page.messages, page.full),
        );
        self.take_all(page.messages).await?;
        self.find_missing(&ids, from, Some(&end), asked_at).await
    }

    /// The time from which on a listing is complete.
    fn oldest_compared(&self, messages: &[ChatMessage], full: bool) -> Millis {
        match messages.iter().map(ChatMessage::sent_at).min() {
            Some(oldest) if full => oldest.plus(Duration::from_millis(1)),
            _ => self.since,
        }
    }

    /// A listing of the audit. If it does not reach back to the cursor, the messages in between may not have been read.
    pub(super) async fn audited(
        &mut self,
        messages: Vec<ChatMessage>,
        full: bool,
        asked_at: Millis,
    ) -> Result<(), SiloError> {
        if self.behind || full && !reaches(&messages, self.start()) {
            return self.catch_up().await;
        }
        let missed = self.reconcile(messages, full, asked_at).await?;
        if missed > 0 {
            tracing::warn!(silo.channel = %self.room, count = missed,
                "The feed missed messages; reconnecting");
            self.dispatcher.report_missed(&self.room);
        }
        Ok(())
    }

    /// Processes a listing of the newest messages. Returns how many of them the feed should have delivered before.
    async fn reconcile(
        &mut self,
        messages: Vec<ChatMessage>,
        full: bool,
        asked_at: Millis,
    ) -> Result<usize, SiloError> {
        let from = self.oldest_compared(&messages, full);
        let ids = messages.iter().map(|message| message.id.clone()).collect();
        let missed = self.take_all(messages).await?;
        self.find_missing(&ids, from, None, asked_at).await?;
        let missed_after = self.dispatcher.missed_after;
        Ok(missed
            .into_iter()
            .filter(|sent_at| asked_at.since(*sent_at) > missed_after)
            .count())
    }

    /// One page, with retries; `None` if the room is closed to the account.
    async fn page(&self, range: &Range) -> Result<Option<Page>, SiloError> {
        let mut failures = Failures::default();
        loop {
            match self
                .dispatcher
                .client
                .messages(Priority::Read, &self.room, range)
                .await
            {
                Ok(page) => return Ok(Some(page)),
                Err(error @ RequestError::SignedOut(_)) => return Err(error.into()),
                Err(RequestError::Closed(reason)) => {
                    self.dispatcher.close(&self.room, reason);
                    return Ok(None);
                }
                Err(error) => {
                    failures.note(Duration::ZERO, false);
                    tracing::warn!(silo.channel = %self.room, error = %error, attempt = failures.count(),
                        "Failed to read the channel; retrying");
                    tokio::time::sleep(error.wait().unwrap_or_else(|| failures.pause())).await;
                }
            }
        }
    }

    /// Requests each linked message that a listing of its time does not show, and deletes it if Gitter says that it is
    /// gone. The range begins at a time and ends at an id, or never.
    async fn find_missing(
        &mut self,
        listed: &BTreeSet<String>,
        from: Millis,
        end: Option<&str>,
        asked_at: Millis,
    ) -> Result<(), SiloError> {
        let (first, end) = (RemoteId(id_at_time(from)), end.map(RemoteId::from));
        let store = self.inbox.store();
        let links = store
            .links_between(&self.place, &first, end.as_ref())
            .await?;
        let missing = links
            .into_iter()
            .filter(|link| link.copy.sent_at >= from)
            .map(|link| (link.copy.remote.0, link.copy.sent_at))
            .filter(|(id, _)| !listed.contains(id) && !self.message_cache.is_deleted(id))
            .filter(|(id, _)| !self.dispatcher.echoes.has_removed(id))
            .take(MAX_MISSING);
        let (ripe, young): (Vec<_>, Vec<_>) =
            missing.partition(|(_, sent_at)| asked_at.since(*sent_at) > YOUNG_AGE);
        if !young.is_empty() {
            self.young.extend(young.into_iter().map(|(id, _)| id));
            self.recheck_at.get_or_insert(Instant::now() + YOUNG_AGE);
        }
        self.ask_for(ripe.into_iter().map(|(id, _)| id)).await
    }

    /// Requests the messages that were too young to count as missing.
    pub(super) async fn recheck(&mut self) -> Result<(), SiloError> {
        self.recheck_at = None;
        let young = std::mem::take(&mut self.young);
        self.ask_for(young.into_iter()).await
    }

    /// Requests messages one by one; missing ones were deleted.
    async fn ask_for(&mut self, missing: impl Iterator<Item = String>) -> Result<(), SiloError> {
        for id in missing {
            match self
                .dispatcher
                .client
                .message(Priority::Read, &self.room, &id)
                .await
            {
                Err(RequestError::Gone(_)) => {
                    // A deletion of the bridge may be in flight.
                    self.inbox.wait_settled(&self.place).await?;
                    self.removed(&id).await?;
                }
                Err(error @ RequestError::SignedOut(_)) => return Err(error.into()),
                Err(_) => break,
                Ok(_) => {}
            }
        }
        self.flush().await?;
        Ok(())
    }

    /// Where re-reading starts.
    fn start(&self) -> Millis {
        let overlap = i64::try_from(self.overlap.as_millis()).unwrap_or(i64::MAX);
        Millis(self.cursor.0.saturating_sub(overlap)).max(self.since)
    }
}

/// Whether a listing of the newest messages shows everything from `start` on.
fn reaches(messages: &[ChatMessage], start: Millis) -> bool {
    messages.len() < PAGE || messages.iter().any(|message| message.sent_at() < start)
}

/// Where the next page begins. Listings filter by id but sort by time, and ids are ordered by their second only, so the
/// page starts a little before the newest message and skips the known ones in that range.
fn next_range(
    range: &Range,
    messages: &[ChatMessage],
    seen: &BTreeSet<String>,
    before: usize,
) -> Option<Range> {
    let newest = messages.iter().map(ChatMessage::sent_at).max()?;
    let skew = i64::try_from(CLOCK_SKEW.as_millis()).unwrap_or_default();
    let moment = id_at_time(Millis(newest.0.saturating_sub(skew)));
    let after = range.after.clone().max(Some(moment))?;
    if seen.len() > before {
        let known = seen.range(after.clone()..).count();
        let skip = known.saturating_sub(PAGE_OVERLAP).min(MAX_SKIP);
        return Some(Range {
            after: Some(after),
            skip,
            ..Range::default()
        });
    }
    // A full page without a new message: one second has more messages than a listing can skip.
    let last = messages.iter().map(|message| message.id.clone()).max()?;
    (Some(&last) > range.after.as_ref()).then_some(Range {
        after: Some(last),
        ..Range::default()
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
                        1_600_000_000 + i64::try_from(n / per_second).unwrap(),
                        n % per_second,
                        [9, 3, 7][n % 3],
                    )
                })
                .collect();
            let mut range = Range {
                after: Some(id_at_time(Millis(1_599_999_990_000))),
                ..Range::default()
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
