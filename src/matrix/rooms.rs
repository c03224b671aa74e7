//! Rooms: resolving them, and up to where each has been processed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use footbridge_core::{
    backoff::Backoff,
    inbox::{Batch, Inbox},
};
use footbridge_store::{Gap, Place, PortalSource, RemoteId, Store};
use matrix_sdk::{
    Client,
    deserialized_responses::TimelineEvent,
    ruma::{OwnedRoomId, RoomAliasId, RoomId, api::client::membership::joined_rooms},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    MatrixError,
    account_client::AccountClient,
    decrypt::Decryptor,
    event_fields::DisplayNames,
    history_pages::{PAGE, page_of},
    request_error::RequestError,
    room_cursor_name,
};

/// The cursor of a room in which every event after the bridge's own join is still to be processed.
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

/// Up to where a room has been processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RoomCursor {
    /// Up to the bridge's own join.
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

    /// Where a gap after this cursor ends.
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
    /// Up to where it has been processed; `None` before the first time.
    pub mark: Option<RoomCursor>,
    /// The events that still have to be fetched.
    pub gap: Option<Gap>,
    /// When to try the gap next, and how often it has failed.
    pub gap_retry_at: Instant,
    pub backoff: Backoff,
}

/// Reads which rooms have a portal, and sets the cursors of those that are new to the sync loop.
#[derive(Debug)]
pub(super) struct PortalRooms {
    account: AccountClient,
    store: Store,
    decryptor: Arc<Decryptor>,
}

impl PortalRooms {
    pub(super) fn of(account: AccountClient, store: Store, decryptor: Arc<Decryptor>) -> Self {
        Self {
            account,
            store,
            decryptor,
        }
    }

    /// The rooms that have a portal, with up to where each has been processed.
    pub(super) async fn followed(
        &self,
        places: Vec<Place>,
    ) -> Result<HashMap<OwnedRoomId, PortalRoom>, MatrixError> {
        let gaps = self.store.gaps(Place::MATRIX).await?;
        let mut rooms = HashMap::new();
        for place in places {
            let id = RoomId::parse(place.address()).map_err(|_| {
                MatrixError::NoRoom(format!("{} is not a room id", place.address()))
            })?;
            let mark = self
                .store
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

    /// The rooms that are linked to a channel; not management rooms.
    pub(super) async fn with_channels(&self) -> Result<HashSet<Place>, MatrixError> {
        let portals = self.store.portals().await?.into_iter();
        let joined =
            portals.filter(|portal| portal.active && portal.source != PortalSource::Management);
        Ok(joined.map(|portal| portal.room).collect())
    }

    /// Sets the cursor of rooms that the account had joined before they were linked to their newest event, which was
    /// written before the link. Later syncs bring nothing of a quiet room until somebody writes, and that message is to be
    /// relayed. The first sync of an account that has never synced shows all its rooms.
    pub(super) async fn init(
        &self,
        rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
        stop: &CancellationToken,
    ) -> Result<(), MatrixError> {
        let unmarked = rooms.values().any(|followed| followed.mark.is_none());
        if !unmarked
            || self
                .store
                .cursor(&self.account.sync_cursor())
                .await?
                .is_none()
        {
            return Ok(());
        }
        let mut backoff = Backoff::default();
        let marks = loop {
            let error = match self.newest_of_unmarked(rooms).await {
                Ok(marks) => break marks,
                Err(error @ RequestError::SignedOut(_)) => {
                    return Err(error.into_matrix_error("list the rooms"));
                }
                Err(error) => error,
            };
            // A sync now would make it impossible to distinguish events from before and after the link.
            let wait = backoff.failed();
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let error = format!(
                "{:#}",
                error.into_matrix_error("read the room of a new portal")
            );
            warn!(
                wait_ms,
                error, "Failed to read the rooms of new portals; trying again"
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
            let room = self.account.client().get_room(&id);
            let shown = self
                .decryptor
                .shown_events(room.as_ref(), &followed.place, &events);
            batch.before_link.extend(shown.await);
            batch
                .cursors
                .push((room_cursor_name(&followed.place), newest.0.clone()));
            followed.mark = Some(RoomCursor::Event(newest));
        }
        inbox.accept(batch).await?;
        Ok(())
    }

    /// The newest events of each joined room without a cursor, newest first.
    async fn newest_of_unmarked(
        &self,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
    ) -> Result<Vec<(OwnedRoomId, Vec<TimelineEvent>)>, RequestError> {
        let client = self.account.client();
        let failed = |error: matrix_sdk::HttpError| RequestError::from(&error);
        let joined = client.send(joined_rooms::v3::Request::new()).await;
        let mut marks = Vec::new();
        for id in joined.map_err(failed)?.joined_rooms {
            if rooms
                .get(&id)
                .is_none_or(|followed| followed.mark.is_some())
            {
                continue;
            }
            let (events, _) =
                page_of(client, &id, None, PAGE, &mut DisplayNames::default()).await?;
            marks.push((id, events));
        }
        Ok(marks)
    }
}
