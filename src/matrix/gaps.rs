//! Filling gaps: events that a limited timeline omitted are fetched page by page, backwards, up to an event that was
//! processed before, and written to the journal oldest first. The same code serves start, outage and join.
//!
//! The order of history differs from that of syncs: an event of another server that arrives late is among events that
//! were processed before. So a gap overlaps older events, and unknown ones among them are accepted as well.

use std::collections::HashSet;

use footbridge_core::{crash_points, inbox::Batch, inbox::Inbox};
use footbridge_store::{Gap, RemoteId};
use matrix_sdk::{Room, deserialized_responses::TimelineEvent};
use tokio_util::sync::CancellationToken;

use super::{
    Matrix, MatrixError,
    encryption_boundary::EncryptionBoundary,
    history_pages::{GapBounds, GapPages},
    request_error::RequestError,
    room_cursor_name, sync_response,
    timeline::{DisplayNames, EventOutcome},
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

impl Matrix {
    /// Fills one gap. If this ends early, `gap` is what remains of it.
    pub(super) async fn fill(
        &self,
        room: &Room,
        gap: &mut Gap,
        inbox: &Inbox,
        stop: &CancellationToken,
    ) -> Result<GapFill, MatrixError> {
        let first = match self.first_after_entry(room, gap).await {
            Ok(first) => first,
            Err(error) => return Ok(GapFill::Failed(error)),
        };
        let GapPages {
            all: mut pages,
            begins,
            skip_to,
        } = match self
            .fetch_gap_pages(room, gap, first.as_deref(), stop)
            .await
        {
            Ok(Some(pages)) => pages,
            Ok(None) => return Ok(GapFill::Stopped),
            Err(error) => return Ok(GapFill::Failed(error)),
        };
        let encrypted = self.is_encrypted(room, &gap.place).await?;
        let mut boundary = self
            .encryption_boundary(&gap.place, encrypted, begins)
            .await?;
        let mut newest = None;
        while let Some(mut page) = pages.pop() {
            let fetched = if let Some(fetched) = page.fetched.take() {
                Ok(fetched)
            } else {
                let first = first.as_deref();
                self.fetch(room, &GapBounds { gap, first }, page.from.as_deref())
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
                let mut batch = self
                    .process_chunk(room, gap, chunk, (&mut names, &mut boundary), inbox)
                    .await?;
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
                self.accept(batch, inbox).await?;
                self.remember_flags(flags);
                if events.is_empty() {
                    break;
                }
            }
        }
        Ok(GapFill::Complete(newest))
    }

    /// For a page, newest first: whether an event on it was processed before, and the position of the first event older
    /// than all such that was seen before the room was linked.
    pub(super) async fn before_link(
        &self,
        gap: &Gap,
        events: &[TimelineEvent],
    ) -> Result<(bool, Option<usize>), RequestError> {
        let ids: Vec<RemoteId> = events.iter().filter_map(id_of).collect();
        let broken = |error: footbridge_store::Error| RequestError::NotSent(error.to_string());
        let known = self.store.known_events(&gap.place, ids.clone()).await;
        let known = known.map_err(broken)?;
        let unlinked = self
            .store
            .events_before_link(&gap.place, ids)
            .await
            .map_err(broken)?;
        let is_in = |set: &HashSet<RemoteId>, event: &TimelineEvent| {
            id_of(event).is_some_and(|id| set.contains(&id))
        };
        let last_known = events.iter().rposition(|event| is_in(&known, event));
        let behind = last_known.map_or(0, |last| last + 1);
        let mut rest = events.iter().enumerate().skip(behind);
        let before = rest.find(|(_, event)| is_in(&unlinked, event));
        Ok((last_known.is_some(), before.map(|(place, _)| place)))
    }

    /// Processes a part of a page, oldest first.
    async fn process_chunk(
        &self,
        room: &Room,
        gap: &Gap,
        events: Vec<TimelineEvent>,
        (names, boundary): (&mut DisplayNames, &mut EncryptionBoundary),
        inbox: &Inbox,
    ) -> Result<Batch, MatrixError> {
        let (mut batch, mut shared) = (Batch::default(), false);
        for event in events.iter().rev() {
            let encrypted = boundary.pass(event);
            sync_response::changes(self, &gap.place, event, &mut batch);
            match self
                .process_event(room, &gap.place, event, names, encrypted)
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
        if shared {
            inbox.wait_settled(&gap.place).await?;
        }
        Ok(batch)
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

pub(super) fn id_of(event: &TimelineEvent) -> Option<RemoteId> {
    Some(RemoteId(event.event_id()?.to_string()))
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
