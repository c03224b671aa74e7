//! Rooms in the clear: that they are is noted, so that their encryption, when it comes, is known as news to which
//! somebody has to agree.

use std::{collections::HashMap, sync::PoisonError};

use footbridge_store::Place;
use matrix_sdk::{
    RoomState,
    ruma::{OwnedRoomId, RoomId},
};

use super::{Matrix, MatrixError, rooms::PortalRoom};

/// Notes of each room in the clear that it is, so that its encryption is known as news.
pub(super) async fn record_plaintext_rooms(
    matrix: &Matrix,
    rooms: &HashMap<OwnedRoomId, PortalRoom>,
) -> Result<(), MatrixError> {
    for (id, followed) in rooms {
        let joined = matrix.client.get_room(id);
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
    /// Whether it is news that the room stands in the clear. The SDK does not say so of a room before it has asked for
    /// that by itself; but a sync that brings a room brings all of its state.
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
        let state = self.client.get_room(id).map(|room| room.encryption_state());
        let in_clear = state.is_some_and(|state| !state.is_encrypted());
        Ok(!known && in_clear && !self.was_encrypted(place).await?)
    }

    /// Once it is written down.
    pub(super) fn remember_plaintext(&self, place: &Place) {
        let mut clear = self
            .plaintext_rooms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        clear.insert(place.clone());
    }

    /// A listener begins: what was noted of a portal that was taken apart and joined again has to be noted again.
    pub(super) fn forget_plaintext(&self) {
        let mut clear = self
            .plaintext_rooms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        clear.clear();
    }
}
