//! Rooms of portals that the account has not joined. As soon as that is known, their lanes are closed, even if nothing
//! is pending; as soon as the account joins, the lanes are opened.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use footbridge_core::{clock::Clock, inbox::Inbox, outlet::SendError};
use footbridge_store::{LaneId, Place, PortalSource, Side, Store};
use matrix_sdk::{
    Room, RoomState,
    ruma::{OwnedRoomId, RoomId},
};

use super::{
    MatrixError, account_client::AccountClient, request_error::RequestError, rooms::PortalRoom,
};

const REFUSED: &str =
    "the bridge refused the invite to this room when no portal named it; invite it again";
/// The account's id follows.
const NOT_YET: &str = "the bridge is not in the room yet; invite ";
const CANNOT_JOIN: &str = "the homeserver does not let the bridge join the room although it is invited; see the bridge's log";
const REMOVED: &str = "the bridge's account was removed from the room; invite it again";

/// Whether a lane is closed for this reason because the account was not in the room.
fn is_unjoined_reason(reason: &str) -> bool {
    [REFUSED, CANNOT_JOIN, REMOVED].contains(&reason) || reason.starts_with(NOT_YET)
}

/// The rooms of portals that the account is known not to be in.
#[derive(Debug)]
pub(super) struct UnjoinedRooms {
    account: AccountClient,
    store: Store,
    clock: Clock,
    rooms: Mutex<HashSet<Place>>,
}

impl UnjoinedRooms {
    pub(super) fn of(account: AccountClient, store: Store, clock: Clock) -> Self {
        Self {
            account,
            store,
            clock,
            rooms: Mutex::default(),
        }
    }

    /// Whether this is the room of a portal that the account is known not to be in.
    pub(super) fn contains(&self, room: &Place) -> bool {
        self.lock().contains(room)
    }

    /// Records that the account is not in a portal's room: the homeserver refused the join, or shows that the account
    /// has left.
    pub(super) async fn mark_unjoined(&self, room: &Place) -> Result<(), MatrixError> {
        self.lock().insert(room.clone());
        let (reason, now) = (self.unjoined_reason(room).await, self.clock.now());
        for lane in self.lanes_into(room).await? {
            self.store.close_lane(lane, &reason, now).await?;
        }
        Ok(())
    }

    /// Records that the account is in the room: pending deliveries are sent.
    pub(super) async fn mark_joined(&self, room: &Place, inbox: &Inbox) -> Result<(), MatrixError> {
        self.lock().remove(room);
        let now = self.clock.now();
        for lane in self.lanes_into(room).await? {
            self.store.open_lane(lane, now).await?;
            inbox.signals().wake(lane);
        }
        Ok(())
    }

    /// Closes the lanes of rooms that the account had left before this start: no sync shows them.
    pub(super) async fn mark_left_rooms(
        &self,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
    ) -> Result<(), MatrixError> {
        for (id, followed) in rooms {
            if self.has_left(id) {
                self.mark_unjoined(&followed.place).await?;
            }
        }
        Ok(())
    }

    /// The room, if the account is in it.
    pub(super) async fn joined_room(&self, place: &Place) -> Result<Room, SendError> {
        let room = self.known_room(place).await?;
        match room.state() {
            RoomState::Joined => Ok(room),
            RoomState::Left | RoomState::Banned => Err(self.closed(place).await),
            RoomState::Invited | RoomState::Knocked if self.contains(place) => {
                Err(self.closed(place).await)
            }
            // The invite is accepted as soon as a sync shows it.
            RoomState::Invited | RoomState::Knocked => {
                Err(RequestError::NotJoined.into_send_error())
            }
        }
    }

    /// Opens the lanes of rooms that the account has entered while the bridge did not run: no sync shows them as news. A lane that
    /// is closed for another reason is opened by its next delivery.
    pub(super) async fn open_entered_rooms(
        &self,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let counters = self.store.lane_counters().await?.into_iter();
        let closed: HashSet<LaneId> = counters
            .filter(|lane| lane.closed_since.is_some())
            .filter(|lane| {
                lane.closed_reason
                    .as_deref()
                    .is_some_and(is_unjoined_reason)
            })
            .map(|lane| lane.lane)
            .collect();
        if closed.is_empty() {
            return Ok(());
        }
        for (id, followed) in rooms {
            let room = self.account.client().get_room(id);
            if room.is_none_or(|room| room.state() != RoomState::Joined) {
                continue;
            }
            let lanes = self.lanes_into(&followed.place).await?;
            if lanes.iter().any(|lane| closed.contains(lane)) {
                self.mark_joined(&followed.place, inbox).await?;
            }
        }
        Ok(())
    }

    /// The room, if it is known. An unknown room may be shown by the next sync, unless the account could not join it.
    pub(super) async fn known_room(&self, place: &Place) -> Result<Room, SendError> {
        match self.account.room(place) {
            Some(room) => Ok(room),
            None if self.contains(place) => Err(self.closed(place).await),
            None => Err(RequestError::NotJoined.into_send_error()),
        }
    }

    /// The error of a step into a room that the account is not in.
    async fn closed(&self, room: &Place) -> SendError {
        SendError::Closed {
            reason: self.unjoined_reason(room).await,
        }
    }

    /// Why the account is not in a portal's room and what helps, as text for people.
    async fn unjoined_reason(&self, room: &Place) -> String {
        let refused = self.store.refused_invites().await.unwrap_or_default();
        if refused.iter().any(|invite| invite.room == *room) {
            return REFUSED.to_owned();
        }
        let state = self.account.room(room).map(|room| room.state());
        match state {
            None => format!("{NOT_YET}{}", self.account.user()),
            Some(RoomState::Invited) => CANNOT_JOIN.to_owned(),
            Some(_) => REMOVED.to_owned(),
        }
    }

    fn has_left(&self, room: &RoomId) -> bool {
        let room = self.account.client().get_room(room);
        room.is_some_and(|room| matches!(room.state(), RoomState::Left | RoomState::Banned))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lanes_into(&self, room: &Place) -> Result<Vec<LaneId>, MatrixError> {
        let portals = self.store.portals().await?.into_iter();
        let here = portals.filter(|portal| {
            portal.active && portal.source != PortalSource::Management && portal.room == *room
        });
        let lanes = here.map(|portal| LaneId {
            portal: portal.id,
            toward: Side::Matrix,
        });
        Ok(lanes.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_in_which_the_bridge_may_not_write_is_no_room_that_it_has_not_entered() {
        let not_yet = format!("{NOT_YET}@bridge:x");
        for reason in [REFUSED, CANNOT_JOIN, REMOVED, &not_yet] {
            assert!(is_unjoined_reason(reason), "{reason}");
        }
        assert!(!is_unjoined_reason("the bridge may not write in the room"));
    }
}
