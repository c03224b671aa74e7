//! Where the encryption of a room begins. As soon as the bridge knows of it, nothing is sent in plaintext; but an event
//! that was written in plaintext before it, and is read after the bridge knows of it, is relayed.

use footbridge_store::{Flag, Place};
use matrix_sdk::deserialized_responses::TimelineEvent;

use super::{MatrixError, event_fields::EventFields, room_flags::RoomFlags};

/// A span of a room's timeline that is processed oldest event first.
#[derive(Debug)]
pub(super) struct EncryptionBoundary {
    place: Place,
    /// Whether processing is past the beginning of encryption.
    past: bool,
    recorded: bool,
}

impl EncryptionBoundary {
    /// Starts a span. `encrypted` says whether the room is encrypted at the end of the span or later, `within` whether
    /// its encryption begins in the span.
    pub(super) async fn begin(
        flags: &RoomFlags,
        place: &Place,
        encrypted: bool,
        within: bool,
    ) -> Result<Self, MatrixError> {
        let raised = flags.is_set(place, Flag::HistoryReachesEncrypted).await?;
        Ok(Self {
            place: place.clone(),
            past: raised || encrypted && !within,
            recorded: raised,
        })
    }

    /// Processes one event. Returns whether plaintext is refused from here on.
    pub(super) fn pass(&mut self, event: &TimelineEvent) -> bool {
        self.past = self.past || shows_encryption(event);
        self.past
    }

    /// The flags that must be saved together with the events processed so far.
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

/// Whether the encryption of the room begins with this event. An event that changes the settings of an encrypted room
/// replaces another one.
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
