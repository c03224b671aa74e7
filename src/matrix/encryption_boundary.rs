//! Where the encryption of a room begins. Nothing is sent in the clear from the moment we hear of it; but what was
//! written in the clear before it, and is read after we heard of it, crosses.

use footbridge_store::{Flag, Place};
use matrix_sdk::{Room, deserialized_responses::TimelineEvent};

use super::{Matrix, MatrixError, timeline::EventFields};

/// A stretch of a room that is walked, oldest event first.
#[derive(Debug)]
pub(super) struct EncryptionBoundary {
    place: Place,
    /// Whether the walk is past the beginning of encryption.
    past: bool,
    recorded: bool,
}

impl Matrix {
    /// Begins to walk a stretch. `encrypted` says whether the room is encrypted at its end or later, `within` whether
    /// its encryption begins in the stretch.
    pub(super) async fn encryption_boundary(
        &self,
        place: &Place,
        encrypted: bool,
        within: bool,
    ) -> Result<EncryptionBoundary, MatrixError> {
        let raised = self.flagged(place, Flag::HistoryReachesEncrypted).await?;
        Ok(EncryptionBoundary {
            place: place.clone(),
            past: raised || encrypted && !within,
            recorded: raised,
        })
    }

    /// Whether a room was encrypted by now, as the last sync that was taken in tells.
    pub(super) async fn is_encrypted(
        &self,
        room: &Room,
        place: &Place,
    ) -> Result<bool, MatrixError> {
        Ok(room.encryption_state().is_encrypted() && self.was_encrypted(place).await?)
    }
}

impl EncryptionBoundary {
    /// Walks one event. Answers whether nothing in the clear is taken any more.
    pub(super) fn pass(&mut self, event: &TimelineEvent) -> bool {
        self.past = self.past || shows_encryption(event);
        self.past
    }

    /// What must be raised with what was walked so far.
    pub(super) fn flags(&mut self) -> Vec<(Place, Flag)> {
        if !self.past || self.recorded {
            return Vec::new();
        }
        self.recorded = true;
        [Flag::EverEncrypted, Flag::HistoryReachesEncrypted]
            .map(|flag| (self.place.clone(), flag))
            .to_vec()
    }
}

/// Whether the encryption of the room begins with this event. One that changes the settings of a room that is
/// encrypted already takes the place of another.
pub(super) fn begins_encryption(event: &TimelineEvent) -> bool {
    EventFields::open(event).is_some_and(|envelope| {
        envelope.event_type == "m.room.encryption"
            && envelope.state_key.as_deref() == Some("")
            && envelope.unsigned.replaces_state.is_none()
            && envelope.unsigned.prev_content.is_null()
    })
}

/// Whether the event shows that its room is encrypted.
fn shows_encryption(event: &TimelineEvent) -> bool {
    event.encryption_info().is_some()
        || event.kind.is_utd()
        || EventFields::open(event).is_some_and(|envelope| {
            matches!(
                envelope.event_type.as_str(),
                "m.room.encryption" | "m.room.encrypted"
            )
        })
}
