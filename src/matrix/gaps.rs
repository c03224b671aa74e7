//! Gaps: what a limited timeline left out is fetched page by page, backwards, until an event is met that was
//! walked before, and journalled oldest first. The same code serves start, outage and join.
//!
//! History is ordered otherwise than syncs are: an event of another server that arrives late stands among those that
//! were walked before. So a gap overlaps what is older, and what is not known of it is taken as well.

use std::collections::HashSet;

use footbridge_store::{Batch, Gap, RemoteId};
use matrix_sdk::{
    Room,
    deserialized_responses::TimelineEvent,
    ruma::api::{
        Direction,
        client::{filter::LazyLoadOptions, message::get_message_events},
    },
    ruma::{events::AnyTimelineEvent, serde::Raw},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Matrix, MatrixError,
    beginning::{Beginning, begins_encryption},
    fault::Fault,
    intake, mark_cursor,
    walk::{Envelope, Names, Walked},
};
use crate::{crash, inbox::Inbox};

/// Pages that stay in memory between finding the end of a gap and journalling it (500 events each). Those
/// beyond are fetched a second time.
const PAGES_KEPT: usize = 10;
/// Events on a page.
const PAGE: u16 = 500;
/// So many of them are journalled at once, and the gap is that much shorter: a process that dies again and again gets
/// on all the same.
const CHUNK: usize = 100;
/// So many events before the end of a gap are looked at.
const OVERLAP: u16 = 50;

/// How filling a gap ended.
#[derive(Debug)]
pub(super) enum Filled {
    /// All of it is in the journal; this is the newest event of it, if it held any.
    Whole(Option<RemoteId>),
    /// Told to stop; the gap stays open.
    Stopped,
    /// The server would not; the gap stays open.
    Failed(Fault),
}

/// One page of history, as long as it is kept.
struct Page {
    from: String,
    fetched: Option<Fetched>,
}

/// The pages of a gap, newest first.
struct Pages {
    pages: Vec<Page>,
    /// Whether the encryption of the room begins in one of them.
    begins: bool,
}

/// A page as fetched: newest first, cut where the gap ends.
struct Fetched {
    events: Vec<TimelineEvent>,
    /// What stands before the end of the gap, newest first.
    overlap: Vec<TimelineEvent>,
    names: Names,
    /// Where to go on; `None` at the end of the gap.
    next: Option<String>,
}

impl Matrix {
    /// Fills one gap. What is left of it when this ends early is in `gap`.
    pub(super) async fn fill(
        &self,
        room: &Room,
        gap: &mut Gap,
        inbox: &Inbox,
        stop: &CancellationToken,
    ) -> Result<Filled, MatrixError> {
        let Pages { mut pages, begins } = match self.page_back(room, gap, stop).await {
            Ok(Some(pages)) => pages,
            Ok(None) => return Ok(Filled::Stopped),
            Err(fault) => return Ok(Filled::Failed(fault)),
        };
        let encrypted = self.is_encrypted(room, &gap.place).await?;
        let mut beginning = self.beginning(&gap.place, encrypted, begins).await?;
        let mut newest = None;
        while let Some(mut page) = pages.pop() {
            let fetched = match page.fetched.take() {
                Some(fetched) => Ok(fetched),
                None => self.fetch(room, gap, &page.from).await,
            };
            let (mut events, overlap, mut names) = match fetched {
                Ok(fetched) => (fetched.events, fetched.overlap, fetched.names),
                Err(fault) => return Ok(Filled::Failed(fault)),
            };
            let known = overlap.iter().filter_map(id_of).collect();
            let known = self.store.known(&gap.place, known).await?;
            let mut late = late(overlap, &known);
            loop {
                if stop.is_cancelled() {
                    return Ok(Filled::Stopped);
                }
                let mut chunk = events.split_off(events.len().saturating_sub(CHUNK));
                let mark = chunk.first().and_then(id_of);
                chunk.append(&mut late);
                let mut batch = self
                    .walk_chunk(room, gap, chunk, (&mut names, &mut beginning), inbox)
                    .await?;
                batch.flags = beginning.flags();
                if begins {
                    // It stood in the clear while we were in it, however short.
                    batch.clear.push(gap.place.clone());
                }
                batch.filled.push(gap.clone());
                if let Some(mark) = mark {
                    batch
                        .cursors
                        .push((mark_cursor(&gap.place), mark.0.clone()));
                    gap.stop = Some(mark.clone());
                    newest = Some(mark);
                }
                if !(events.is_empty() && pages.is_empty()) {
                    batch.gaps.push(gap.clone());
                }
                crash::point("gap.fetched");
                let flags = batch.flags.clone();
                self.accept(batch, inbox).await?;
                self.remember_flags(flags);
                if events.is_empty() {
                    break;
                }
            }
        }
        Ok(Filled::Whole(newest))
    }

    /// Finds where the gap ends. The pages come newest first; `None` when told to stop.
    async fn page_back(
        &self,
        room: &Room,
        gap: &Gap,
        stop: &CancellationToken,
    ) -> Result<Option<Pages>, Fault> {
        let mut pages: Vec<Page> = Vec::new();
        let mut begins = false;
        let mut from = gap.from.clone();
        let mut events = 0;
        loop {
            if stop.is_cancelled() {
                return Ok(None);
            }
            let fetched = self.fetch(room, gap, &from).await?;
            events += fetched.events.len();
            begins = begins || fetched.events.iter().any(begins_encryption);
            let next = fetched.next.clone();
            pages.push(Page {
                from: from.clone(),
                fetched: Some(fetched),
            });
            if pages.len() > PAGES_KEPT
                && let Some(page) = pages.iter_mut().find(|page| page.fetched.is_some())
            {
                page.fetched = None;
            }
            match next {
                Some(next) if next != from => from = next,
                _ => break,
            }
        }
        let pages_kept = pages.len().min(PAGES_KEPT);
        if pages.len() > PAGES_KEPT {
            warn!(
                matrix.room = gap.place.address(),
                events,
                pages_kept,
                "A gap is longer than what memory is given to it; parts are fetched twice"
            );
        } else {
            info!(matrix.room = gap.place.address(), events, "Filling a gap");
        }
        Ok(Some(Pages { pages, begins }))
    }

    async fn fetch(&self, room: &Room, gap: &Gap, from: &str) -> Result<Fetched, Fault> {
        let mut names = Names::default();
        let (mut events, mut next) = page(room, from, PAGE, &mut names).await?;
        let mut overlap = Vec::new();
        if let Some(end) = events.iter().position(|event| self.ends(gap, event)) {
            let before = events.split_off(end).into_iter().skip(1);
            let from = next.take();
            if gap.stop.is_some() {
                overlap.extend(before);
                if overlap.len() < usize::from(OVERLAP)
                    && let Some(from) = from
                {
                    overlap.extend(page(room, &from, OVERLAP, &mut names).await?.0);
                }
                overlap.truncate(OVERLAP.into());
            }
        }
        debug!(
            matrix.room = gap.place.address(),
            events = events.len(),
            overlap = overlap.len(),
            "Fetched a page of a gap"
        );
        Ok(Fetched {
            events,
            overlap,
            names,
            next,
        })
    }

    /// Whether the gap ends before this event: it was walked before, or, where nothing was, it is our own entry into
    /// the room.
    fn ends(&self, gap: &Gap, event: &TimelineEvent) -> bool {
        match &gap.stop {
            Some(stop) => event
                .event_id()
                .is_some_and(|id| stop.as_str() == id.as_str()),
            None => Envelope::open(event).is_some_and(|envelope| envelope.is_join_of(&self.own)),
        }
    }

    /// Walks a part of a page, oldest first.
    async fn walk_chunk(
        &self,
        room: &Room,
        gap: &Gap,
        events: Vec<TimelineEvent>,
        (names, beginning): (&mut Names, &mut Beginning),
        inbox: &Inbox,
    ) -> Result<Batch, MatrixError> {
        let (mut batch, mut shared) = (Batch::default(), false);
        for event in events.iter().rev() {
            let encrypted = beginning.pass(event);
            intake::changes(self, &gap.place, event, &mut batch);
            match self.walk(room, &gap.place, event, names, encrypted).await {
                Walked::Nothing => {}
                Walked::Arrival(found) => found.file(&mut batch),
                Walked::Ours(found) => {
                    shared = true;
                    found.file(&mut batch);
                }
            }
        }
        if shared {
            inbox.settled(&gap.place).await?;
        }
        Ok(batch)
    }
}

/// A page of history as it came, nothing opened: newest first, and where to go on.
async fn page(
    room: &Room,
    from: &str,
    limit: u16,
    names: &mut Names,
) -> Result<(Vec<TimelineEvent>, Option<String>), Fault> {
    let id = room.room_id().to_owned();
    let mut request = get_message_events::v3::Request::new(id, Direction::Backward);
    request.from = Some(from.to_owned());
    request.limit = limit.into();
    request.filter.lazy_load_options = LazyLoadOptions::Enabled {
        include_redundant_members: false,
    };
    let page = room
        .client()
        .send(request)
        .await
        .map_err(|error| Fault::from(&error))?;
    for event in page.state {
        let Ok(member) = event.deserialize_as_unchecked::<Value>() else {
            continue;
        };
        if let (Some(user), Some(name)) = (
            member.get("state_key").and_then(Value::as_str),
            member
                .pointer("/content/displayname")
                .and_then(Value::as_str),
        ) {
            names.learn(user, name);
        }
    }
    let came = |event: Raw<AnyTimelineEvent>| TimelineEvent::from_plaintext(event.cast());
    Ok((page.chunk.into_iter().map(came).collect(), page.end))
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

fn id_of(event: &TimelineEvent) -> Option<RemoteId> {
    Some(RemoteId(event.event_id()?.to_string()))
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::serde::Raw;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_unknown_among_the_known_came_late_and_what_is_older_was_never_linked() {
        let event = |id: &&str| {
            let json = json!({"event_id": id, "type": "m.room.message", "content": {}});
            TimelineEvent::from_plaintext(Raw::from_json_string(json.to_string()).unwrap())
        };
        let check = |overlap: &[&str], known: &[&str]| -> Vec<String> {
            let known = known.iter().map(|id| RemoteId::from(*id)).collect();
            let late = late(overlap.iter().map(event).collect(), &known);
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
