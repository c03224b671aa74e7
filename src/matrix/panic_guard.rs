//! One event may not stop all the others: what breaks us is passed over and counted. It would break us again at every
//! start (C25).

use std::panic::AssertUnwindSafe;

use footbridge_core::peer_bridges::PEER_BRIDGE;
use footbridge_store::Place;
use futures_util::FutureExt as _;
use matrix_sdk::Room;
use tracing::error;

use super::{
    Matrix,
    decrypt::DecryptionResult,
    timeline::{Classification, DisplayNames, EventFields},
};

/// The rule for an event that breaks us.
const PANICKED: &str = "panic";

impl Matrix {
    /// Reads one event, by the rules about trust and encryption.
    pub(super) async fn classify(
        &self,
        room: &Room,
        unsealed: &DecryptionResult<'_>,
        envelope: &EventFields,
        names: &mut DisplayNames,
        encrypted: bool,
    ) -> Classification {
        let reading = self.classify_unguarded(room, unsealed, envelope, names, encrypted);
        let read = AssertUnwindSafe(reading).catch_unwind().await;
        let place = Place::room(room.room_id().as_str());
        if matches!(read, Ok(Classification::Message(_)))
            && !self
                .peer_bridges
                .peers_in(&place, &envelope.content)
                .is_empty()
        {
            return Classification::Skipped(PEER_BRIDGE);
        }
        read.unwrap_or_else(|_| {
            error!(
                matrix.room = %room.room_id(),
                "Panic while handling an event; event skipped. Please report this bug"
            );
            Classification::Skipped(PANICKED)
        })
    }
}
