//! Rooms: finding them, and how far each has been walked.

use std::collections::{HashMap, HashSet};

use footbridge_core::{backoff::Backoff, inbox::Inbox};
use footbridge_store::{Batch, Gap, Place, PortalSource, RemoteId, Store};
use matrix_sdk::{
    Client,
    deserialized_responses::TimelineEvent,
    ruma::{OwnedRoomId, RoomAliasId, RoomId, api::client::membership::joined_rooms},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Matrix, MatrixError, SYNC_CURSOR,
    history_pages::{PAGE, page_of},
    request_error::RequestError,
    room_cursor_name,
    timeline::DisplayNames,
};

/// The mark of a room whose every event after our own entry is wanted.
pub(super) const JOIN: &str = "join";

/// Finds a room by alias or id.
pub(super) async fn resolve(client: &Client, room: &str) -> Result<Place, MatrixError> {
    if let Ok(id) = <&RoomId>::try_from(room) {
        return Ok(Place::room(id.as_str()));
    }
    let alias = <&RoomAliasId>::try_from(room)
        .map_err(|_| MatrixError::NoRoom(format!("{room} is neither a room id nor an alias")))?;
    let answer = client
        .resolve_room_alias(alias)
        .await
        .map_err(|error| RequestError::from(&error).into_matrix_error(&format!("find {room}")))?;
    Ok(Place::room(answer.room_id.as_str()))
}

/// How far a room has been walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RoomCursor {
    /// Up to our own entry.
    Join,
    /// Up to this event.
    Event(RemoteId),
}

impl RoomCursor {
    fn parse(text: String) -> Self {
        if text == JOIN {
            Self::Join
        } else {
            Self::Event(RemoteId(text))
        }
    }

    /// Where a gap after this mark ends.
    pub(super) fn as_stop(&self) -> Option<RemoteId> {
        match self {
            Self::Join => None,
            Self::Event(id) => Some(id.clone()),
        }
    }
}

/// A room that has a portal.
#[derive(Debug)]
pub(super) struct PortalRoom {
    /// The room.
    pub place: Place,
    /// How far it has been walked; `None` before it was ever seen.
    pub mark: Option<RoomCursor>,
    /// What must still be fetched.
    pub gap: Option<Gap>,
    /// When the gap is tried, and how often it failed.
    pub gap_retry_at: Instant,
    pub backoff: Backoff,
}

/// The rooms that have a portal, with how far each has been walked.
pub(super) async fn followed(
    store: &Store,
    places: Vec<Place>,
) -> Result<HashMap<OwnedRoomId, PortalRoom>, MatrixError> {
    let gaps = store.gaps(Place::MATRIX).await?;
    let mut rooms = HashMap::new();
    for place in places {
        let id = RoomId::parse(place.address())
            .map_err(|_| MatrixError::NoRoom(format!("{} is no room id", place.address())))?;
        let mark = store
            .cursor(&room_cursor_name(&place))
            .await?
            .map(RoomCursor::parse);
        let gap = gaps.iter().find(|gap| gap.place == place).cloned();
        let followed = PortalRoom {
            place,
            mark,
            gap,
            gap_retry_at: Instant::now(),
            backoff: Backoff::default(),
        };
        rooms.insert(id, followed);
    }
    Ok(rooms)
}

/// The rooms that are joined to a channel, and not only listened in.
pub(super) async fn rooms_with_channels(store: &Store) -> Result<HashSet<Place>, MatrixError> {
    let portals = store.portals().await?.into_iter();
    let joined =
        portals.filter(|portal| portal.active && portal.source != PortalSource::Management);
    Ok(joined.map(|portal| portal.room).collect())
}

/// Marks the rooms that were linked while we were in them already, by their newest event: it was written before.
/// The syncs that follow bring nothing of a quiet room until somebody writes, and that is wanted. An account that
/// has never synced is shown all its rooms by its first sync.
pub(super) async fn init_cursors(
    matrix: &Matrix,
    rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
    inbox: &Inbox,
    stop: &CancellationToken,
) -> Result<(), MatrixError> {
    let unmarked = rooms.values().any(|followed| followed.mark.is_none());
    if !unmarked || matrix.store.cursor(SYNC_CURSOR).await?.is_none() {
        return Ok(());
    }
    let mut backoff = Backoff::default();
    let marks = loop {
        let fault = match newest_of_unmarked(matrix, rooms).await {
            Ok(marks) => break marks,
            Err(fault @ RequestError::SignedOut(_)) => {
                return Err(fault.into_matrix_error("list the rooms"));
            }
            Err(fault) => fault,
        };
        // A sync now would leave nothing to tell what was written before from what is written after.
        let wait = backoff.failed();
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let error = format!(
            "{:#}",
            fault.into_matrix_error("look at a new portal's room")
        );
        warn!(
            wait_ms,
            error, "The rooms of new portals cannot be looked at; trying again"
        );
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(wait) => {}
        }
    };
    let mut batch = Batch::default();
    for (id, events) in marks {
        let newest = events.iter().find_map(TimelineEvent::event_id);
        let (Some(followed), Some(newest)) = (rooms.get_mut(&id), newest) else {
            continue;
        };
        let newest = RemoteId(newest.to_string());
        let room = matrix.client.get_room(&id);
        let shown = matrix.shown_events(room.as_ref(), &followed.place, &events);
        batch.before_link.extend(shown.await);
        batch
            .cursors
            .push((room_cursor_name(&followed.place), newest.0.clone()));
        followed.mark = Some(RoomCursor::Event(newest));
    }
    inbox.accept(batch).await?;
    Ok(())
}

/// The newest events of each room that we are in and that has no mark, newest first.
async fn newest_of_unmarked(
    matrix: &Matrix,
    rooms: &HashMap<OwnedRoomId, PortalRoom>,
) -> Result<Vec<(OwnedRoomId, Vec<TimelineEvent>)>, RequestError> {
    let client = &matrix.client;
    let fault = |error: matrix_sdk::HttpError| RequestError::from(&error);
    let joined = client.send(joined_rooms::v3::Request::new()).await;
    let mut marks = Vec::new();
    for id in joined.map_err(fault)?.joined_rooms {
        if rooms
            .get(&id)
            .is_none_or(|followed| followed.mark.is_some())
        {
            continue;
        }
        let (events, _) = page_of(client, &id, None, PAGE, &mut DisplayNames::default()).await?;
        marks.push((id, events));
    }
    Ok(marks)
}

/// We are no longer in this room: there is nobody to answer.
pub(super) async fn leave_management_room(
    matrix: &Matrix,
    place: &Place,
    inbox: &Inbox,
) -> Result<(), MatrixError> {
    if matrix
        .store
        .close_management_room(place, matrix.clock.now())
        .await?
    {
        inbox.signals().notify_portals_changed();
    }
    Ok(())
}
