//! Gaps: what a limited timeline left out is fetched page by page, backwards, until an event is met that was
//! walked before, and journalled oldest first. The same code serves start, outage and join.

use footbridge_store::{Batch, Gap, RemoteId};
use matrix_sdk::{
    Room,
    deserialized_responses::TimelineEvent,
    room::MessagesOptions,
    ruma::{api::client::filter::LazyLoadOptions, uint},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Matrix, MatrixError,
    beginning::{Beginning, begins_encryption},
    fault::Fault,
    mark_cursor,
    senders::writer,
    walk::{Envelope, Names, Walked},
};
use crate::{crash, inbox::Inbox};

/// Pages that stay in memory between finding the end of a gap and journalling it (500 events each). Those
/// beyond are fetched a second time.
const PAGES_KEPT: usize = 10;

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

/// One page of history, newest first, cut where the gap ends.
struct Page {
    from: String,
    events: Option<Vec<TimelineEvent>>,
    names: Names,
}

/// The pages of a gap, newest first.
struct Pages {
    pages: Vec<Page>,
    /// Whether the encryption of the room begins in one of them.
    begins: bool,
}

/// A page as fetched.
struct Fetched {
    events: Vec<TimelineEvent>,
    names: Names,
    /// Where to go on; `None` at the end of the gap.
    next: Option<String>,
}

impl Matrix {
    /// Fills one gap.
    pub(super) async fn fill(
        &self,
        room: &Room,
        gap: &Gap,
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
            if stop.is_cancelled() {
                return Ok(Filled::Stopped);
            }
            let events = match page.events.take() {
                Some(events) => events,
                None => match self.fetch(room, gap, &page.from).await {
                    Ok(fetched) => {
                        page.names = fetched.names;
                        fetched.events
                    }
                    Err(fault) => return Ok(Filled::Failed(fault)),
                },
            };
            let mark = events
                .first()
                .and_then(TimelineEvent::event_id)
                .map(|id| RemoteId(id.to_string()));
            let mut batch = self
                .walk_page(room, gap, events, &mut page.names, &mut beginning, inbox)
                .await?;
            batch.flags = beginning.flags();
            if let Some(mark) = mark {
                batch
                    .cursors
                    .push((mark_cursor(&gap.place), mark.0.clone()));
                newest = Some(mark);
            }
            if pages.is_empty() {
                batch.filled.push(gap.clone());
            }
            crash::point("gap.fetched");
            let flags = batch.flags.clone();
            inbox.accept(batch).await?;
            self.remember_flags(flags);
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
            pages.push(Page {
                from: from.clone(),
                events: Some(fetched.events),
                names: fetched.names,
            });
            if pages.len() > PAGES_KEPT
                && let Some(page) = pages.iter_mut().find(|page| page.events.is_some())
            {
                page.events = None;
                page.names = Names::default();
            }
            match fetched.next {
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
        let mut options = MessagesOptions::backward().from(from);
        options.limit = uint!(500);
        options.filter.lazy_load_options = LazyLoadOptions::Enabled {
            include_redundant_members: false,
        };
        let page = room
            .messages(options)
            .await
            .map_err(|error| Fault::from(&error))?;
        let mut names = Names::default();
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
        let mut events = page.chunk;
        let end = events.iter().position(|event| self.ends(gap, event));
        if let Some(end) = end {
            events.truncate(end);
        }
        debug!(
            matrix.room = gap.place.address(),
            events = events.len(),
            "Fetched a page of a gap"
        );
        Ok(Fetched {
            events,
            names,
            next: page.end.filter(|_| end.is_none()),
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

    /// Walks a page, oldest first.
    async fn walk_page(
        &self,
        room: &Room,
        gap: &Gap,
        events: Vec<TimelineEvent>,
        names: &mut Names,
        beginning: &mut Beginning,
        inbox: &Inbox,
    ) -> Result<Batch, MatrixError> {
        let (mut batch, mut shared) = (Batch::default(), false);
        for event in events.iter().rev() {
            let encrypted = beginning.pass(event);
            match self.walk(room, &gap.place, event, names, encrypted).await {
                Walked::Nothing => {}
                Walked::Arrival(arrival) => {
                    batch.writers.extend(writer(&arrival, event));
                    batch.arrivals.push(arrival);
                }
                Walked::Ours(arrival) => {
                    shared = true;
                    batch.writers.extend(writer(&arrival, event));
                    batch.arrivals.push(arrival);
                }
            }
        }
        if shared {
            inbox.settled(&gap.place).await?;
        }
        Ok(batch)
    }
}
