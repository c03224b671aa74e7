//! Unencrypted rooms are recorded as such, so that encryption that is enabled later is recognised as new: it needs
//! consent.

use std::{collections::HashMap, sync::PoisonError};

use footbridge_store::Place;
use matrix_sdk::{
    RoomState,
    ruma::{OwnedRoomId, RoomId},
};

use super::{Matrix, MatrixError, rooms::PortalRoom};

/// Records each joined unencrypted room as such, so that encryption that is enabled later is recognised as new.
pub(super) async fn record_plaintext_rooms(
    matrix: &Matrix,
    rooms: &HashMap<OwnedRoomId, PortalRoom>,
) -> Result<(), MatrixError> {
    for (id, followed) in rooms {
        let joined = matrix.account.client().get_room(id);
        if joined.is_some_and(|room| room.state() == RoomState::Joined)
            && matrix.is_unrecorded_plaintext(id, &followed.place).await?
        {
            matrix.store.note_unencrypted_room(&followed.place).await?;
            matrix.remember_plaintext(&followed.place);
        }
    }
    Ok(())
}

impl Matrix {
    /// Whether the room is unencrypted and not yet recorded as such. The SDK does not know this of a room before it has
    /// requested its encryption state; but a sync that brings a room brings all of its state.
    pub(super) async fn is_unrecorded_plaintext(
        &self,
        id: &RoomId,
        place: &Place,
    ) -> Result<bool, MatrixError> {
        let known = self
            .plaintext_rooms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(place);
        let state = self
            .account
            .client()
            .get_room(id)
            .map(|room| room.encryption_state());
        let in_clear = state.is_some_and(|state| !state.is_encrypted());
        Ok(!known && in_clear && !self.flags.was_encrypted(place).await?)
    }

    /// Remembers a room that the store has recorded.
    pub(super) fn remember_plaintext(&self, place: &Place) {
        let mut plaintext_rooms = self
            .plaintext_rooms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        plaintext_rooms.insert(place.clone());
    }

    /// The sync loop starts: a portal that was removed and added again has to be recorded again.
    pub(super) fn forget_plaintext(&self) {
        let mut plaintext_rooms = self
            .plaintext_rooms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        plaintext_rooms.clear();
    }
}
