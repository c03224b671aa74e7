//! What the trust policy refuses: it is counted; what an honest homeserver never shows is logged as an error; and the
//! people in a room are told when a plaintext message was refused there.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use footbridge_core::inbox::Inbox;
use footbridge_store::{Place, SkipRule};
use matrix_sdk::Room;
use tracing::error;

use super::{
    MatrixError,
    identities::fingerprint,
    security_metrics::{SecurityClass, SecurityMetrics},
};

/// The refusals of one account.
#[derive(Debug)]
pub(super) struct Refusals {
    security: Arc<SecurityMetrics>,
    /// Rooms in which a plaintext event was refused and the people there have not been notified yet.
    plaintext: Mutex<HashSet<Place>>,
}

impl Refusals {
    pub(super) fn of(security: Arc<SecurityMetrics>) -> Self {
        Self {
            security,
            plaintext: Mutex::default(),
        }
    }

    /// Counts what was skipped by this rule, if it is one of the trust policy.
    pub(super) fn refused(&self, rule: SkipRule, room: &Room) {
        self.security.skipped(rule);
        if rule == SkipRule::PlaintextInEncryptedRoom {
            self.lock().insert(Place::room(room.room_id().as_str()));
        }
        if rule == SkipRule::SenderMismatch || rule == SkipRule::ForeignRoom {
            error!(
                matrix.room = %room.room_id(),
                rule = rule.as_str(),
                "An event does not match the homeserver's claims about it; dropped"
            );
        }
    }

    /// Counts a message that is held until an admin has approved its sender's identity.
    pub(super) fn identity_changed(&self) {
        self.security.record(SecurityClass::IdentityChanged, 1);
    }

    /// Counts ciphertexts that were replayed in a new event.
    pub(super) fn replayed(&self, times: usize) {
        if times > 0 {
            let count = times.try_into().unwrap_or(u64::MAX);
            self.security.record(SecurityClass::Replay, count);
            error!(
                times,
                "Two events with the same ratchet index of a room key; the second was dropped"
            );
        }
    }

    /// Sends one notice to each room in which a plaintext message was refused.
    pub(super) async fn notify_plaintext(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let places: HashSet<Place> = std::mem::take(&mut *self.lock());
        for place in places {
            let notice_id = fingerprint(&[place.as_str()]);
            let text = "⚠ A message in this room was not encrypted, although the room is. It was not relayed, and no \
                        such message will be: anybody could have written it.";
            inbox
                .send_notice(&place, &format!("plaintext-{notice_id}"), text)
                .await?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.plaintext
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
