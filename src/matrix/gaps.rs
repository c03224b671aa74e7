//! Gaps: what a limited timeline left out is fetched page by page, backwards, until an event is met that was
//! walked before, and journalled oldest first. The same code serves start, outage and join.
//!
//! History is ordered otherwise than syncs are: an event of another server that arrives late stands among those that
//! were walked before. So a gap overlaps what is older, and what is not known of it is taken as well.

use std::collections::HashSet;

use footbridge_core::{crash_points, inbox::Inbox};
use footbridge_store::{Batch, Gap, RemoteId};
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

/// So many of them are journalled at once, and the gap is that much shorter: a process that dies again and again gets
/// on all the same.
const CHUNK: usize = 100;

/// How filling a gap ended.
#[derive(Debug)]
pub(super) enum GapFill {
    /// All of it is in the journal; this is the newest event of it, if it held any.
    Complete(Option<RemoteId>),
    /// Told to stop; the gap stays open.
    Stopped,
    /// The server would not; the gap stays open.
    Failed(RequestError),
}

impl Matrix {
    /// Fills one gap. What is left of it when this ends early is in `gap`.
    pub(super) async fn fill(
        &self,
        room: &Room,
        gap: &mut Gap,
        inbox: &Inbox,
        stop: &CancellationToken,
    ) -> Result<GapFill, MatrixError> {
        let first = match self.first_after_entry(room, gap).await {
            Ok(first) => first,
            Err(fault) => return Ok(GapFill::Failed(fault)),
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
            Err(fault) => return Ok(GapFill::Failed(fault)),
        };
        let encrypted = self.is_encrypted(room, &gap.place).await?;
        let mut beginning = self
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
                Err(fault) => return Ok(GapFill::Failed(fault)),
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
                    .process_chunk(room, gap, chunk, (&mut names, &mut beginning), inbox)
                    .await?;
                batch.flags = beginning.flags();
                let older = older
                    .into_iter()
                    .map(|event_id| (gap.place.clone(), event_id));
                batch.out_of_order = older.collect();
                if begins {
                    // It stood in the clear while we were in it, however short.
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

    /// Of a page, newest first: whether something on it was walked before, and where, behind all such, the first event
    /// stands that was seen before the room was linked.
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

    /// Walks a part of a page, oldest first.
    async fn process_chunk(
        &self,
        room: &Room,
        gap: &Gap,
        events: Vec<TimelineEvent>,
        (names, beginning): (&mut DisplayNames, &mut EncryptionBoundary),
        inbox: &Inbox,
    ) -> Result<Batch, MatrixError> {
        let (mut batch, mut shared) = (Batch::default(), false);
        for event in events.iter().rev() {
            let encrypted = beginning.pass(event);
            sync_response::changes(self, &gap.place, event, &mut batch);
            match self
                .process_event(room, &gap.place, event, names, encrypted)
                .await
            {
                EventOutcome::Nothing => {}
                EventOutcome::Arrival(found) => found.file(&mut batch),
                EventOutcome::OwnAccount(found) => {
                    shared = true;
                    found.file(&mut batch);
                }
            }
        }
        if shared {
            inbox.wait_settled(&gap.place).await?;
        }
        Ok(batch)
    }
}

/// What of an overlap, newest first, arrived late: it is not known, and something older is. What is older than all
/// that is known may have been written before the room was linked.
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
