//! Rooms whose events a sync leaves closed. The SDK opens what a sync brings and forgets the ciphertext, which is needed
//! to tell an old message from a new one; where it finds no key it hands the event over as it came. So, while a sync
//! reads what happened in the rooms that are joined to channels, their keys are not to be found; we open the events
//! afterwards. Of these rooms the SDK itself reads nothing that way, so nobody can verify the bridge by messages in a
//! portal's room. Direct rooms are left open to it for that, and what is said there is fetched once more (`intake`).

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use ruma::{OwnedRoomId, RoomId};

use super::BufferedCryptoStore;

/// The rooms.
#[derive(Debug, Default)]
pub(super) struct DeferredRooms(RwLock<HashSet<OwnedRoomId>>);

impl DeferredRooms {
    pub(super) fn has(&self, room: &RoomId) -> bool {
        let rooms = self.0.read().unwrap_or_else(PoisonError::into_inner);
        rooms.contains(room)
    }
}

impl BufferedCryptoStore {
    /// From the next sync on these rooms are the ones that we open ourselves.
    pub(crate) fn defer_rooms(&self, rooms: impl Iterator<Item = OwnedRoomId>) {
        let mut walked = self
            .deferred
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *walked = rooms.collect();
    }
}
