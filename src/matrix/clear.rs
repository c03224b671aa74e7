//! Rooms in the clear: that they are is noted, so that their encryption, when it comes, is known as news to which
//! somebody has to agree.

use std::{collections::HashMap, sync::PoisonError};

use footbridge_store::Place;
use matrix_sdk::{
    EncryptionState, RoomState,
    ruma::{OwnedRoomId, RoomId},
};

use super::{Matrix, MatrixError, rooms::Followed};

/// Notes of each room in the clear that it is, so that its encryption is known as news.
pub(super) async fn note_clear(
    matrix: &Matrix,
    rooms: &HashMap<OwnedRoomId, Followed>,
) -> Result<(), MatrixError> {
    for (id, followed) in rooms {
        let joined = matrix.client.get_room(id);
        if joined.is_some_and(|room| room.state() == RoomState::Joined)
            && matrix.is_clear(id, &followed.place).await?
        {
            matrix.store.seen_in_clear(&followed.place).await?;
            matrix.remember_clear(&followed.place);
        }
    }
    Ok(())
}

impl Matrix {
    /// Whether it is news that the room stands in the clear.
    pub(super) async fn is_clear(&self, id: &RoomId, place: &Place) -> Result<bool, MatrixError> {
        let known = self
            .clear
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(place);
        let state = self.client.get_room(id).map(|room| room.encryption_state());
        Ok(!known
            && matches!(state, Some(EncryptionState::NotEncrypted))
            && !self.was_encrypted(place).await?)
    }

    /// Once it is written down.
    pub(super) fn remember_clear(&self, place: &Place) {
        let mut clear = self.clear.lock().unwrap_or_else(PoisonError::into_inner);
        clear.insert(place.clone());
    }

    /// A listener begins: what was noted of a portal that was taken apart and joined again has to be noted again.
    pub(super) fn forget_clear(&self) {
        let mut clear = self.clear.lock().unwrap_or_else(PoisonError::into_inner);
        clear.clear();
    }
}
