//! One event must not stop all others: an event that makes the bridge panic is skipped and counted. Otherwise it would
//! cause the same panic at every start (C25).

use std::panic::AssertUnwindSafe;

use footbridge_store::{Place, SkipRule};
use futures_util::FutureExt as _;
use matrix_sdk::Room;
use tracing::error;

use super::{
    Matrix,
    decrypt::DecryptionResult,
    timeline::{Classification, DisplayNames, EventFields},
};

impl Matrix {
    /// Classifies one event, by the rules about trust and encryption.
    pub(super) async fn classify(
        &self,
        room: &Room,
        unsealed: &DecryptionResult<'_>,
        envelope: &EventFields,
        names: &mut DisplayNames,
        encrypted: bool,
    ) -> Classification {
        let classification = self.classify_unguarded(room, unsealed, envelope, names, encrypted);
        let outcome = AssertUnwindSafe(classification).catch_unwind().await;
        let place = Place::room(room.room_id().as_str());
        if matches!(outcome, Ok(Classification::Message(_)))
            && !self
                .peer_bridges
                .peers_in(&place, &envelope.content)
                .is_empty()
        {
            return Classification::Skipped(SkipRule::PeerBridge);
        }
        outcome.unwrap_or_else(|_| {
            error!(
                matrix.room = %room.room_id(),
                "Panic while handling an event; event skipped. Please report this bug"
            );
            Classification::Skipped(SkipRule::Panic)
        })
    }
}
