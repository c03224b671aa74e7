//! The check before every send: whether the event may be sent, and whether it will be encrypted (P04).

use std::{sync::Arc, time::Duration};

use footbridge_core::outlet::{Outcome, SendError};
use footbridge_store::{Place, Store};
use matrix_sdk::{
    Room,
    ruma::{api::client::state::get_state_event_for_key, events::StateEventType},
};
use tracing::error;

use super::{
    encryption_states::{EncryptionDecision, EncryptionState},
    request_error::{RequestError, retry},
    room_flags::RoomFlags,
    security_metrics::{SecurityClass, SecurityMetrics},
};

/// How long a lane waits when the homeserver reports its encrypted room as unencrypted.
const DOWNGRADE_RETRY: Duration = Duration::from_mins(1);

/// How long a lane waits until the SDK also knows that its room is encrypted.
const BOUNDARY_RETRY: Duration = Duration::from_secs(2);

/// The encryption check of every send.
#[derive(Debug)]
pub(super) struct EncryptionGuard {
    store: Store,
    flags: Arc<RoomFlags>,
    security: Arc<SecurityMetrics>,
}

impl EncryptionGuard {
    pub(super) fn of(store: Store, flags: Arc<RoomFlags>, security: Arc<SecurityMetrics>) -> Self {
        Self {
            store,
            flags,
            security,
        }
    }

    /// Nothing is sent into a room that is or ever was encrypted unless the SDK will encrypt it. Returns whether it
    /// will.
    ///
    /// The SDK's knowledge of a room is as old as the last sync, so the homeserver is asked before anything is sent in
    /// plaintext (F36). What remains is encryption that begins between its answer and the event: some milliseconds, in
    /// which every client sends in plaintext.
    pub(super) async fn check(&self, room: &Room, to: &Place) -> Result<bool, SendError> {
        let kept =
            |error: footbridge_store::Error| retry(None, Outcome::NotDone, &error.to_string());
        let ever = self.flags.was_encrypted(to).await.map_err(kept)?;
        let state = room
            .latest_encryption_state()
            .await
            .map_err(|error| RequestError::from(&error).into_unsent_error())?;
        let will_encrypt = state.is_encrypted();
        let known = EncryptionState {
            ever,
            will_encrypt,
            is_now: will_encrypt || is_encrypted_now(room).await?,
        };
        if known.is_newly_encrypted() {
            self.flags.raise_encrypted(to).await.map_err(kept)?;
            if self.store.may_not_relay_into(to).await.map_err(kept)? {
                return Err(retry(
                    Some(BOUNDARY_RETRY),
                    Outcome::NotDone,
                    "the room has just been encrypted, and nobody there has given consent yet",
                ));
            }
        }
        match known.decide() {
            EncryptionDecision::Plaintext => Ok(false),
            EncryptionDecision::Encrypted => Ok(true),
            EncryptionDecision::NotYet => Err(retry(
                Some(BOUNDARY_RETRY),
                Outcome::NotDone,
                "the room has just been encrypted, and no sync has reported it yet",
            )),
            EncryptionDecision::Downgraded => {
                self.security.record(SecurityClass::Downgrade, 1);
                error!(
                    matrix.room = to.address(),
                    "The homeserver reports an encrypted room as unencrypted; nothing is sent"
                );
                Err(retry(
                    Some(DOWNGRADE_RETRY),
                    Outcome::NotDone,
                    "the room was encrypted and no longer is",
                ))
            }
        }
    }
}

/// Asks the homeserver, not the SDK's cache, whether the room is encrypted.
async fn is_encrypted_now(room: &Room) -> Result<bool, SendError> {
    let request = get_state_event_for_key::v3::Request::new(
        room.room_id().to_owned(),
        StateEventType::RoomEncryption,
        String::new(),
    );
    match room.client().send(request).await {
        Ok(_) => Ok(true),
        Err(error) => match RequestError::from(&error) {
            RequestError::NotFound(_) => Ok(false),
            error => Err(error.into_unsent_error()),
        },
    }
}
