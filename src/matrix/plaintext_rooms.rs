//! Unencrypted rooms are recorded as such, so that encryption that is enabled later is recognised as new: it needs
//! consent.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use footbridge_store::{Place, Store};
use matrix_sdk::{
    RoomState,
    ruma::{OwnedRoomId, RoomId},
};

use super::{MatrixError, account_client::AccountClient, room_flags::RoomFlags, rooms::PortalRoom};

/// The rooms that the store has recorded as unencrypted.
#[derive(Debug)]
pub(super) struct PlaintextRooms {
    account: AccountClient,
    store: Store,
    flags: Arc<RoomFlags>,
    recorded: Mutex<HashSet<Place>>,
}

impl PlaintextRooms {
    pub(super) fn of(account: AccountClient, store: Store, flags: Arc<RoomFlags>) -> Self {
        Self {
            account,
            store,
            flags,
            recorded: Mutex::default(),
        }
    }

    /// Records each joined unencrypted room as such. Called when the sync loop starts: a portal that was removed and
    /// added again has to be recorded again.
    pub(super) async fn record(
        &self,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
    ) -> Result<(), MatrixError> {
        self.lock().clear();
        for (id, followed) in rooms {
            let joined = self.account.client().get_room(id);
            if joined.is_some_and(|room| room.state() == RoomState::Joined)
                && self.is_unrecorded(id, &followed.place).await?
            {
                self.store.note_unencrypted_room(&followed.place).await?;
                self.remember(&followed.place);
            }
        }
        Ok(())
    }

    /// Whether the room is unencrypted and not yet recorded as such. The SDK does not know this of a room before it has
    /// requested its encryption state; but a sync that brings a room brings all of its state.
    pub(super) async fn is_unrecorded(
        &self,
        id: &RoomId,
        place: &Place,
    ) -> Result<bool, MatrixError> {
        let known = self.lock().contains(place);
        let room = self.account.client().get_room(id);
        let state = room.map(|room| room.encryption_state());
        let in_clear = state.is_some_and(|state| !state.is_encrypted());
        Ok(!known && in_clear && !self.flags.was_encrypted(place).await?)
    }

    /// Remembers a room that the store has recorded.
    pub(super) fn remember(&self, place: &Place) {
        self.lock().insert(place.clone());
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
