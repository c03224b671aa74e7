//! Rooms whose events a sync leaves encrypted. The SDK decrypts the events of a sync and drops the ciphertext, which is
//! needed to detect replays; where it finds no room key it passes the event on as it came. So while a sync processes
//! the rooms that are linked to channels, the SDK does not find their room keys, and the bridge decrypts the events
//! afterwards. The SDK itself reads no event of these rooms that way, so nobody can verify the bridge by messages in a
//! portal's room. Direct rooms are left to the SDK for that, and their events are fetched once more (`sync_response`).

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use ruma::{OwnedRoomId, RoomId};

use super::BufferedCryptoStore;

/// The deferred rooms.
#[derive(Debug, Default)]
pub(super) struct DeferredRooms(RwLock<HashSet<OwnedRoomId>>);

impl DeferredRooms {
    pub(super) fn has(&self, room: &RoomId) -> bool {
        let rooms = self.0.read().unwrap_or_else(PoisonError::into_inner);
        rooms.contains(room)
    }
}

impl BufferedCryptoStore {
    /// Sets the rooms whose events the bridge decrypts itself, from the next sync on.
    pub(crate) fn defer_rooms(&self, rooms: impl Iterator<Item = OwnedRoomId>) {
        let mut deferred = self
            .deferred
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *deferred = rooms.collect();
    }
}
