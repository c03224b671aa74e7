//! Pages of a room's history: as many as a gap needs, newest first.
//!
//! Pages are requested from the newest event on and not from a position in a sync response: some homeservers treat that
//! position as exclusive and omit the newest event of the sync. The newest event that the sync returned must be on a
//! page; otherwise the events around it are requested. Where the bridge's own join is the end of the gap, no event from
//! before it is accepted, whether a page shows the join or not.

use std::collections::HashSet;

use footbridge_store::{Gap, RemoteId, Store};
use matrix_sdk::{
    Client, Room,
    deserialized_responses::TimelineEvent,
    ruma::api::{
        Direction,
        client::{context::get_context, filter::LazyLoadOptions, message::get_message_events},
    },
    ruma::{EventId, OwnedEventId, RoomId, events::AnyTimelineEvent, serde::Raw, uint},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    account_client::AccountClient,
    encryption_boundary::begins_encryption,
    event_fields::{DisplayNames, EventFields},
    request_error::RequestError,
};

/// Pages that stay in memory between finding the end of a gap and writing it to the journal (500 events each). Further
/// pages are fetched a second time.
const MAX_PAGES_IN_MEMORY: usize = 10;
/// Events on a page.
pub(super) const PAGE: u16 = 500;
/// How many events before the end of a gap are compared with the journal.
const OVERLAP_EVENTS: u16 = 50;

/// One page of history, as long as it is kept in memory.
pub(super) struct HistoryPage {
    /// `None` for the newest page, which is always kept.
    pub from: Option<String>,
    /// Whether the encryption of the room begins on it.
    pub begins: bool,
    pub fetched: Option<FetchedPage>,
}

/// The pages of a gap, newest first.
pub(super) struct GapPages {
    pub all: Vec<HistoryPage>,
    /// Whether the encryption of the room begins on one of them.
    pub begins: bool,
    /// Up to where the room counts as processed although no event of the gap is accepted.
    pub skip_to: Option<RemoteId>,
}

/// The older end of a gap.
pub(super) struct GapBounds<'a> {
    pub gap: &'a Gap,
    /// The end is the bridge's own join: the homeserver says that this event was the first after it.
    pub first: Option<&'a EventId>,
}

/// A fetched page: newest first, cut at the end of the gap.
#[derive(Default)]
pub(super) struct FetchedPage {
    pub events: Vec<TimelineEvent>,
    /// The events before the end of the gap, newest first.
    pub overlap: Vec<TimelineEvent>,
    pub names: DisplayNames,
    /// Where to continue; `None` at the end of the gap.
    pub next: Option<String>,
    /// Whether the end of the gap is on this page.
    pub ends: bool,
    /// Whether the newest event that the sync returned is on this page.
    pub anchored: bool,
}

/// Fetches the history of rooms.
#[derive(Debug)]
pub(super) struct History {
    account: AccountClient,
    store: Store,
}

impl History {
    pub(super) fn of(account: AccountClient, store: Store) -> Self {
        Self { account, store }
    }

    /// Finds the end of the gap. The pages are newest first; `None` when stopped.
    pub(super) async fn fetch_gap(
        &self,
        room: &Room,
        gap: &Gap,
        first: Option<&EventId>,
        stop: &CancellationToken,
    ) -> Result<Option<GapPages>, RequestError> {
        let bounds = GapBounds { gap, first };
        let mut pages: Vec<HistoryPage> = Vec::new();
        let mut from: Option<String> = None;
        let (mut events, mut anchored, mut ends) = (0, false, false);
        // The first event from before the link, in case the end of the gap is on no page: page, position on it.
        let mut linked: Option<(usize, usize)> = None;
        loop {
            if stop.is_cancelled() {
                return Ok(None);
            }
            let fetched = self.fetch(room, &bounds, from.as_deref()).await?;
            events += fetched.events.len();
            anchored = anchored || fetched.anchored;
            ends = ends || fetched.ends;
            let next = fetched.next.clone();
            if !fetched.ends {
                let (is_known, before) = self.before_link(gap, &fetched.events).await?;
                linked = linked.filter(|_| !is_known);
                linked = linked.or(before.map(|before| (pages.len(), before)));
            }
            pages.push(HistoryPage {
                from: from.clone(),
                begins: fetched.events.iter().any(begins_encryption),
                fetched: Some(fetched),
            });
            // The newest page is never dropped: requested again, it would be another page.
            if pages.len() > MAX_PAGES_IN_MEMORY
                && let Some(page) = pages.iter_mut().skip(1).find(|page| page.fetched.is_some())
            {
                page.fetched = None;
            }
            match next {
                next @ Some(_) if next != from => from = next,
                _ => break,
            }
        }
        if !ends && let Some((number, before)) = linked.filter(|_| gap.stop.is_some()) {
            pages.truncate(number + 1);
            if let Some(page) = pages.last_mut()
                && let Some(oldest) = &mut page.fetched
            {
                oldest.events.truncate(before);
                page.begins = oldest.events.iter().any(begins_encryption);
            }
        }
        if !ends && gap.stop.is_none() {
            return Ok(Some(without_entry(gap, &pages)));
        }
        if !anchored && let Some(anchor) = anchor_of(gap) {
            self.add_omitted(room, &bounds, anchor, &mut pages).await?;
        }
        let pages_kept = pages.len().min(MAX_PAGES_IN_MEMORY);
        if pages.len() > MAX_PAGES_IN_MEMORY {
            warn!(
                matrix.room = gap.place.address(),
                events, pages_kept, "A gap does not fit in memory; some pages are fetched twice"
            );
        } else {
            info!(matrix.room = gap.place.address(), events, "Filling a gap");
        }
        Ok(Some(GapPages {
            begins: pages.iter().any(|page| page.begins),
            all: pages,
            skip_to: None,
        }))
    }

    /// For a page, newest first: whether an event on it was processed before, and the position of the first event older
    /// than all such that was seen before the room was linked.
    async fn before_link(
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

    /// Adds to the newest page what history omits of the newest events that the sync returned.
    async fn add_omitted(
        &self,
        room: &Room,
        bounds: &GapBounds<'_>,
        anchor: &EventId,
        pages: &mut [HistoryPage],
    ) -> Result<(), RequestError> {
        let single_page = pages.len() == 1;
        let Some(page) = pages.first_mut() else {
            return Ok(());
        };
        let Some(newest) = &mut page.fetched else {
            return Ok(());
        };
        let around = self.around(room, anchor, &mut newest.names).await?;
        let added = add_omitted(&mut newest.events, around, anchor, |event| {
            single_page && self.ends(bounds, event) == Some(false)
        });
        page.begins = newest.events.iter().any(begins_encryption);
        warn!(
            matrix.room = bounds.gap.place.address(),
            added,
            "The homeserver's history omits events that its sync returned; they were fetched on their own"
        );
        Ok(())
    }

    pub(super) async fn fetch(
        &self,
        room: &Room,
        bounds: &GapBounds<'_>,
        from: Option<&str>,
    ) -> Result<FetchedPage, RequestError> {
        let gap = bounds.gap;
        let mut names = DisplayNames::default();
        let (mut events, mut next) = page(room, from, PAGE, &mut names).await?;
        let anchored = anchor_of(gap).is_none_or(|anchor| {
            let is_anchor = |event: &TimelineEvent| event.event_id().is_some_and(|id| id == anchor);
            events.iter().any(is_anchor)
        });
        let mut overlap = Vec::new();
        let mut numbered = events.iter().enumerate();
        let end = numbered
            .find_map(|(number, event)| Some(number + usize::from(self.ends(bounds, event)?)));
        if let Some(end) = end {
            let before = events.split_off(end).into_iter().skip(1);
            let from = next.take();
            if gap.stop.is_some() {
                overlap.extend(before);
                if overlap.len() < usize::from(OVERLAP_EVENTS)
                    && let Some(from) = from
                {
                    overlap.extend(page(room, Some(&from), OVERLAP_EVENTS, &mut names).await?.0);
                }
                overlap.truncate(OVERLAP_EVENTS.into());
            }
        }
        debug!(
            matrix.room = gap.place.address(),
            events = events.len(),
            overlap = overlap.len(),
            "Fetched a page of a gap"
        );
        Ok(FetchedPage {
            events,
            overlap,
            names,
            next,
            ends: end.is_some(),
            anchored,
        })
    }

    /// Whether the gap ends at this event, and then whether the event itself is part of the gap: an event that was
    /// processed before, or, if there is none, the bridge's own join or the first event after it.
    fn ends(&self, bounds: &GapBounds<'_>, event: &TimelineEvent) -> Option<bool> {
        let id = event.event_id();
        let ends = match &bounds.gap.stop {
            Some(stop) => id.as_ref().is_some_and(|id| stop.as_str() == id.as_str()),
            None => EventFields::open(event)
                .is_some_and(|envelope| envelope.is_join_of(self.account.user())),
        };
        if ends {
            return Some(false);
        }
        let first = bounds.first;
        (first.is_some() && first == id.as_deref()).then_some(true)
    }

    /// Where the gap ends at the bridge's own join: the first event after the membership event, if the homeserver
    /// returns one. After a change of the display name, that event is later than the join.
    pub(super) async fn first_after_entry(
        &self,
        room: &Room,
        gap: &Gap,
    ) -> Result<Option<OwnedEventId>, RequestError> {
        if gap.stop.is_some() {
            return Ok(None);
        }
        let own = room.get_member_no_sync(self.account.user()).await;
        let own = own.map_err(|error| RequestError::from(&error))?;
        let Some(entry) = own.and_then(|own| Some(own.event().event_id()?.to_owned())) else {
            return Ok(None);
        };
        let context = context(room, &entry).await?;
        let first = context.and_then(|context| context.events_after.into_iter().next());
        Ok(first.and_then(|event| came(event).event_id()))
    }

    /// The events around an event, newest first.
    async fn around(
        &self,
        room: &Room,
        event: &EventId,
        names: &mut DisplayNames,
    ) -> Result<Vec<TimelineEvent>, RequestError> {
        let Some(context) = context(room, event).await? else {
            return Ok(Vec::new());
        };
        for state in &context.state {
            learn(names, state.deserialize_as_unchecked().ok().as_ref());
        }
        let after = context.events_after.into_iter().rev();
        let events = after.chain(context.event).chain(context.events_before);
        Ok(events.map(came).collect())
    }
}

/// A page of history as received, nothing decrypted: newest first, and where to continue.
pub(super) async fn page(
    room: &Room,
    from: Option<&str>,
    limit: u16,
    names: &mut DisplayNames,
) -> Result<(Vec<TimelineEvent>, Option<String>), RequestError> {
    page_of(&room.client(), room.room_id(), from, limit, names).await
}

/// The same, for a room that no sync may have reported.
pub(super) async fn page_of(
    client: &Client,
    room: &RoomId,
    from: Option<&str>,
    limit: u16,
    names: &mut DisplayNames,
) -> Result<(Vec<TimelineEvent>, Option<String>), RequestError> {
    let mut request = get_message_events::v3::Request::new(room.to_owned(), Direction::Backward);
    request.from = from.map(str::to_owned);
    request.limit = limit.into();
    request.filter.lazy_load_options = LazyLoadOptions::Enabled {
        include_redundant_members: false,
    };
    let page = client
        .send(request)
        .await
        .map_err(|error| RequestError::from(&error))?;
    for event in page.state {
        learn(names, event.deserialize_as_unchecked().ok().as_ref());
    }
    Ok((page.chunk.into_iter().map(came).collect(), page.end))
}

fn came(event: Raw<AnyTimelineEvent>) -> TimelineEvent {
    TimelineEvent::from_plaintext(event.cast())
}

/// Records the display name in a member event.
fn learn(names: &mut DisplayNames, member: Option<&Value>) {
    let text = |at: &str| member?.pointer(at)?.as_str();
    if let (Some(user), Some(name)) = (text("/state_key"), text("/content/displayname")) {
        names.learn(user, name);
    }
}

/// The events around an event; `None` where the homeserver does not return them.
async fn context(
    room: &Room,
    event: &EventId,
) -> Result<Option<get_context::v3::Response>, RequestError> {
    let mut request = get_context::v3::Request::new(room.room_id().to_owned(), event.to_owned());
    request.limit = uint!(100);
    match room.client().send(request).await {
        Ok(context) => Ok(Some(context)),
        Err(error) => match RequestError::from(&error) {
            RequestError::NotFound(_) | RequestError::Forbidden(_) | RequestError::Invalid(_) => {
                Ok(None)
            }
            error => Err(error),
        },
    }
}

/// No events of a gap whose end, the bridge's own join, is on none of its pages.
fn without_entry(gap: &Gap, pages: &[HistoryPage]) -> GapPages {
    warn!(
        matrix.room = gap.place.address(),
        "The homeserver does not show when the bridge joined the room; none of its history is accepted"
    );
    let newest = pages.first().and_then(|page| page.fetched.as_ref());
    let newest_id = newest.and_then(|page| page.events.first().and_then(id_of));
    let brought = anchor_of(gap).map(|id| RemoteId(id.to_string()));
    GapPages {
        all: vec![HistoryPage {
            from: None,
            begins: false,
            fetched: Some(FetchedPage::default()),
        }],
        begins: false,
        skip_to: brought.or(newest_id),
    }
}

/// The newest event that the sync returned when the gap was recorded. Gaps of older versions have a position instead.
fn anchor_of(gap: &Gap) -> Option<&EventId> {
    <&EventId>::try_from(gap.from.as_str()).ok()
}

/// Adds to a page, newest first, the events around this one that it lacks, if they follow an event on the page or the
/// end of the gap. Otherwise only the event itself is added, as the newest. Returns how many were added.
fn add_omitted(
    page: &mut Vec<TimelineEvent>,
    mut around: Vec<TimelineEvent>,
    anchor: &EventId,
    ends: impl Fn(&TimelineEvent) -> bool,
) -> usize {
    page.reverse();
    let is_anchor = |event: &TimelineEvent| event.event_id().is_some_and(|id| id == anchor);
    let alone = around.iter().find(|event| is_anchor(event)).cloned();
    let before = page.len();
    let mut at = None;
    while let Some(event) = around.pop() {
        let id = event.event_id();
        if let Some(found) = page.iter().position(|one| one.event_id() == id) {
            at = Some(found + 1);
        } else if ends(&event) {
            at = Some(0);
        } else if let Some(place) = &mut at {
            page.insert(*place, event);
            *place += 1;
        }
    }
    if at.is_none() {
        page.extend(alone);
    }
    let added = page.len() - before;
    page.reverse();
    added
}

/// The id of an event, if it has one.
pub(super) fn id_of(event: &TimelineEvent) -> Option<RemoteId> {
    Some(RemoteId(event.event_id()?.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: &str) -> TimelineEvent {
        let json = json!({"event_id": id, "type": "m.room.message", "content": {}});
        TimelineEvent::from_plaintext(Raw::from_json_string(json.to_string()).unwrap())
    }

    fn ids(events: &[TimelineEvent]) -> Vec<String> {
        events.iter().filter_map(id_of).map(|id| id.0).collect()
    }

    #[test]
    fn events_that_history_omits_are_placed_by_their_neighbours() {
        let check = |page: &[&str], around: &[&str], stop: &str| {
            let mut page: Vec<_> = page.iter().map(|id| event(id)).collect();
            let around = around.iter().map(|id| event(id)).collect();
            add_omitted(&mut page, around, "$6".try_into().unwrap(), |event| {
                event.event_id().is_some_and(|id| id == stop)
            });
            ids(&page)
        };
        let around = ["$6", "$5", "$4", "$3", "$2", "$1"];
        let missing_newest = check(&["$4", "$3"], &around, "$none");
        assert_eq!(missing_newest, ["$6", "$5", "$4", "$3"]);
        assert_eq!(
            check(&["$6", "$4", "$3"], &around, "$2"),
            ["$6", "$5", "$4", "$3"]
        );
        assert_eq!(check(&["$6"], &around, "$4"), ["$6", "$5"]);
        assert_eq!(check(&[], &around, "$4"), ["$6", "$5"]);
        // Nothing says where these belong.
        assert_eq!(check(&["$9"], &around, "$none"), ["$6", "$9"]);
    }
}
