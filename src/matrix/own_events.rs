//! The bridge's own events, read back from the homeserver before an edit: their content gets the bridge's signature
//! when it is sent again. So it is trusted only if a keyed digest proves that the bridge sent it, and that it is the
//! newest content that the bridge sent. Without a saved digest, an event of an encrypted room must have been encrypted
//! by this device.

use std::sync::Arc;

use footbridge_core::outlet::{Outcome, SendError};
use footbridge_store::{Place, RemoteId, Store};
use matrix_sdk::{
    Room,
    deserialized_responses::{
        AlgorithmInfo, EncryptionInfo, TimelineEvent, UnsignedEventLocation, VerificationLevel,
        VerificationState,
    },
    ruma::EventId,
};
use serde_json::Value;
use tracing::error;

use super::{
    account_client::AccountClient,
    convert::bundles::{self, LatestContent},
    request_error::{RequestError, retry},
    room_flags::RoomFlags,
    security_metrics::{SecurityClass, SecurityMetrics},
};

/// The result of reading an own event back.
pub(super) enum ReadBack {
    /// The bridge sent this content; with the verified part of it, if any.
    Ours(Value, Option<String>),
    /// It was redacted.
    Redacted,
    /// It cannot be read, or the bridge did not send it.
    Unknown,
}

/// Reads the account's own events back, and keeps the digests by which they are recognised.
#[derive(Debug)]
pub(super) struct OwnEvents {
    account: AccountClient,
    store: Store,
    flags: Arc<RoomFlags>,
    security: Arc<SecurityMetrics>,
}

impl OwnEvents {
    pub(super) fn of(
        account: AccountClient,
        store: Store,
        flags: Arc<RoomFlags>,
        security: Arc<SecurityMetrics>,
    ) -> Self {
        Self {
            account,
            store,
            flags,
            security,
        }
    }

    /// The latest content of an own event. `to_verify` returns the part of a content that will be sent again.
    pub(super) async fn read_back(
        &self,
        room: &Room,
        place: &Place,
        target: &RemoteId,
        to_verify: impl Fn(&Value) -> Option<String>,
    ) -> Result<ReadBack, SendError> {
        let Some(event) = self.fetch_event(room, target).await? else {
            return Ok(ReadBack::Unknown);
        };
        let Ok(json) = serde_json::from_str(event.raw().json().get()) else {
            return Ok(ReadBack::Unknown);
        };
        let content = match bundles::newest(&json, self.account.user().as_str()) {
            LatestContent::Content(content) => content,
            LatestContent::Redacted => return Ok(ReadBack::Redacted),
            LatestContent::Unreadable => return Ok(ReadBack::Unknown),
        };
        let verified = to_verify(&content);
        let matches = match &verified {
            Some(digest_input) => self
                .store
                .matches_event_digest(place, target, digest_input)
                .await
                .map_err(|error| broken(&error))?,
            None => None,
        };
        let is_ours = match matches {
            Some(matches) => matches,
            None => {
                !self
                    .flags
                    .was_encrypted(place)
                    .await
                    .map_err(|error| broken(&error))?
                    || self.has_encrypted(&event, &json).await
            }
        };
        if is_ours {
            return Ok(ReadBack::Ours(content, verified));
        }
        if verified.is_some() {
            self.security.record(SecurityClass::ReadBack, 1);
            error!(
                matrix.room = place.address(),
                "The homeserver returned another content for an event of the bridge; it is not sent again"
            );
        }
        Ok(ReadBack::Unknown)
    }

    /// Saves the digest of an event that was sent.
    pub(super) async fn save_digest(
        &self,
        place: &Place,
        remote: &RemoteId,
        digest_input: Option<String>,
    ) -> Result<(), SendError> {
        match digest_input {
            Some(digest_input) => self
                .store
                .save_event_digest(place, remote, &digest_input)
                .await
                .map_err(|error| retry(None, Outcome::Unknown, &error.to_string())),
            None => Ok(()),
        }
    }

    /// Saves the digest of an event with the content `now` that is about to be edited to `next`.
    pub(super) async fn save_next_digest(
        &self,
        place: &Place,
        target: &RemoteId,
        now: &str,
        next: &str,
    ) -> Result<(), SendError> {
        let saved = self
            .store
            .save_next_event_digest(place, target, now, next)
            .await;
        saved.map_err(|error| broken(&error))
    }

    /// Whether this device has encrypted the event and its latest edit.
    async fn has_encrypted(&self, event: &TimelineEvent, json: &Value) -> bool {
        let Some(own) = self.account.client().encryption().curve25519_key().await else {
            return false;
        };
        let own = own.to_base64();
        let is_own = |info: &EncryptionInfo| {
            let AlgorithmInfo::MegolmV1AesSha2 { curve25519_key, .. } = &info.algorithm_info else {
                return false;
            };
            // A key from a backup names any sender that its creator chose.
            let is_known = matches!(
                info.verification_state,
                VerificationState::Verified
                    | VerificationState::Unverified(VerificationLevel::UnverifiedIdentity)
            );
            info.sender == self.account.user() && *curve25519_key == own && is_known
        };
        let newer = json.pointer("/unsigned/m.relations/m.replace").is_some();
        let bundled = event.kind.unsigned_encryption_map().and_then(|map| {
            map.get(&UnsignedEventLocation::RelationsReplace)?
                .encryption_info()
        });
        event.encryption_info().is_some_and(|info| is_own(info))
            && (!newer || bundled.is_some_and(|info| is_own(info)))
    }

    /// An event, decrypted; `None` where the homeserver has none of this id.
    async fn fetch_event(
        &self,
        room: &Room,
        target: &RemoteId,
    ) -> Result<Option<TimelineEvent>, SendError> {
        let Ok(id) = <&EventId>::try_from(target.as_str()) else {
            return Ok(None);
        };
        match room.event(id, None).await {
            Ok(event) => Ok(Some(event)),
            Err(error) => match RequestError::from(&error) {
                RequestError::NotFound(_) => Ok(None),
                error => Err(error.into_unsent_error()),
            },
        }
    }
}

/// The store could not be read before anything was sent.
fn broken(error: &footbridge_store::Error) -> SendError {
    retry(None, Outcome::NotDone, &error.to_string())
}
