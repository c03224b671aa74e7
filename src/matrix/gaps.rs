//! Filling gaps: events that a limited timeline omitted are fetched page by page, backwards, up to an event that was
//! processed before, and written to the journal oldest first. The same code serves start, outage and join.
//!
//! The order of history differs from that of syncs: an event of another server that arrives late is among events that
//! were processed before. So a gap overlaps older events, and unknown ones among them are accepted as well.

use std::{collections::HashSet, sync::Arc};

use footbridge_core::{
    crash_points,
    inbox::{Batch, Inbox},
};
use footbridge_store::{Gap, Place, RemoteId, Store};
use matrix_sdk::{Room, deserialized_responses::TimelineEvent};
use tokio_util::sync::CancellationToken;

use super::{
    MatrixError,
    account_client::AccountClient,
    encryption_boundary::EncryptionBoundary,
    event_fields::DisplayNames,
    history_pages::{GapBounds, GapPages, History, id_of},
    journal_writer::JournalWriter,
    request_error::RequestError,
    room_cursor_name,
    room_flags::RoomFlags,
    sync_response,
    timeline::{EventOutcome, Timeline},
};

/// How many events are written to the journal at once; the gap is then shorter by them, so that a process that is
/// killed again and again still makes progress.
const CHUNK: usize = 100;

/// The result of filling a gap.
#[derive(Debug)]
pub(super) enum GapFill {
    /// All events are in the journal; with the newest of them, if there was one.
    Complete(Option<RemoteId>),
    /// Stopped; the gap stays open.
    Stopped,
    /// The homeserver refused or failed; the gap stays open.
    Failed(RequestError),
}

/// Fills the gaps of one account's rooms.
#[derive(Debug)]
pub(super) struct GapFiller {
    account: AccountClient,
    store: Store,
    flags: Arc<RoomFlags>,
    history: History,
    timeline: Arc<Timeline>,
    journal: Arc<JournalWriter>,
}

impl GapFiller {
    pub(super) fn of(
        account: AccountClient,
        store: Store,
        flags: Arc<RoomFlags>,
        timeline: Arc<Timeline>,
        journal: Arc<JournalWriter>,
    ) -> Self {
        Self {
            history: History::of(account.clone(), store.clone()),
            account,
            store,
            flags,
            timeline,
            journal,
        }
    }

    /// Fills one gap. If this ends early, `gap` is what remains of it.
    pub(super) async fn fill(
        &self,
        room: &Room,
        gap: &mut Gap,
        inbox: &Inbox,
        stop: &CancellationToken,
    ) -> Result<GapFill, MatrixError> {
        let first = match self.history.first_after_entry(room, gap).await {
            Ok(first) => first,
            Err(error) => return Ok(GapFill::Failed(error)),
        };
        let GapPages {
            all: mut pages,
            begins,
            skip_to,
        } = match self
            .history
            .fetch_gap(room, gap, first.as_deref(), stop)
            .await
        {
            Ok(Some(pages)) => pages,
            Ok(None) => return Ok(GapFill::Stopped),
            Err(error) => return Ok(GapFill::Failed(error)),
        };
        let encrypted = self.is_encrypted(room, gap).await?;
        let boundary = EncryptionBoundary::begin(&self.flags, &gap.place, encrypted, begins);
        let mut boundary = boundary.await?;
        let mut newest = None;
        while let Some(mut page) = pages.pop() {
            let fetched = if let Some(fetched) = page.fetched.take() {
                Ok(fetched)
            } else {
                let first = first.as_deref();
                self.history
                    .fetch(room, &GapBounds { gap, first }, page.from.as_deref())
                    .await
            };
            let (mut events, overlap, mut names) = match fetched {
                Ok(fetched) => (fetched.events, fetched.overlap, fetched.names),
                Err(error) => return Ok(GapFill::Failed(error)),
            };
            let known = overlap.iter().filter_map(id_of).collect();
            let known = self.store.known_events(&gap.place, known).await?;
            let mut late = late(overlap, &known);
            loop {
                if stop.is_cancelled() {
                    return Ok(GapFill::Stopped);
                }
                let mut chunk = events.split_off(events.len().saturating_sub(CHUNK));
                let mark = chunk.first().and_then(id_of);
                let mark = mark.or_else(|| skip_to.clone().or_else(|| gap.stop.clone()));
                let older: Vec<RemoteId> = late.iter().filter_map(id_of).collect();
                chunk.append(&mut late);
                let processed =
                    self.process_chunk(room, &gap.place, &chunk, &mut names, &mut boundary);
                let (mut batch, shared) = processed.await;
                if shared {
                    inbox.wait_settled(&gap.place).await?;
                }
                batch.flags = boundary.flags();
                let older = older
                    .into_iter()
                    .map(|event_id| (gap.place.clone(), event_id));
                batch.out_of_order = older.collect();
                if begins {
                    // The room was unencrypted while the account was in it, however briefly.
                    batch.unencrypted.push(gap.place.clone());
                }
                batch.filled.push(gap.clone());
                if let Some(mark) = mark {
                    batch
                        .cursors
                        .push((room_cursor_name(&gap.place), mark.0.clone()));
                    gap.stop = Some(mark.clone());
                    newest = Some(mark);
                }
                if !(events.is_empty() && pages.is_empty()) {
                    batch.gaps.push(gap.clone());
                }
                crash_points::point("gap.fetched");
                let flags = batch.flags.clone();
                self.journal.accept(batch, inbox).await?;
                self.flags.remember(flags);
                if events.is_empty() {
                    break;
                }
            }
        }
        Ok(GapFill::Complete(newest))
    }

    /// Whether the gap's room is encrypted, as of the last sync that was processed.
    async fn is_encrypted(&self, room: &Room, gap: &Gap) -> Result<bool, MatrixError> {
        let encrypted = room.encryption_state().is_encrypted();
        Ok(encrypted && self.flags.was_encrypted(&gap.place).await?)
    }

    /// Processes a part of a page, oldest first. Returns also whether the account wrote something that, by the
    /// homeserver's claim, this device did not send.
    async fn process_chunk(
        &self,
        room: &Room,
        place: &Place,
        events: &[TimelineEvent],
        names: &mut DisplayNames,
        boundary: &mut EncryptionBoundary,
    ) -> (Batch, bool) {
        let (mut batch, mut shared) = (Batch::default(), false);
        for event in events.iter().rev() {
            let encrypted = boundary.pass(event);
            sync_response::changes(&self.account, place, event, &mut batch);
            match self
                .timeline
                .process(room, place, event, names, encrypted)
                .await
            {
                EventOutcome::Nothing => {}
                EventOutcome::Arrival(processed) => processed.file(&mut batch),
                EventOutcome::OwnAccount(processed) => {
                    shared = true;
                    processed.file(&mut batch);
                }
            }
        }
        (batch, shared)
    }
}

/// The events of an overlap, newest first, that arrived late: they are unknown, and an older event is known. Events
/// older than all known ones may have been written before the room was linked.
fn late(mut overlap: Vec<TimelineEvent>, known: &HashSet<RemoteId>) -> Vec<TimelineEvent> {
    let is_known = |event: &TimelineEvent| id_of(event).is_some_and(|id| known.contains(&id));
    let linked = overlap.iter().rposition(is_known).unwrap_or_default();
    overlap.truncate(linked);
    overlap.retain(|event| !is_known(event));
    overlap
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::serde::Raw;
    use serde_json::json;

    use super::*;

    fn event(id: &str) -> TimelineEvent {
        let json = json!({"event_id": id, "type": "m.room.message", "content": {}});
        TimelineEvent::from_plaintext(Raw::from_json_string(json.to_string()).unwrap())
    }

    #[test]
    fn what_is_unknown_among_the_known_came_late_and_what_is_older_was_never_linked() {
        let check = |overlap: &[&str], known: &[&str]| -> Vec<String> {
            let known = known.iter().map(|id| RemoteId::from(*id)).collect();
            let late = late(overlap.iter().map(|id| event(id)).collect(), &known);
            late.iter().filter_map(id_of).map(|id| id.0).collect()
        };
        let page = [
            "$late",
            "$known2",
            "$later",
            "$known1",
            "$before",
            "$long_before",
        ];
        assert_eq!(check(&page, &["$known1", "$known2"]), ["$late", "$later"]);
        assert_eq!(check(&page, &["$known2"]), ["$late"]);
        assert!(check(&page, &[]).is_empty());
        assert!(check(&[], &["$known1"]).is_empty());
    }
}
