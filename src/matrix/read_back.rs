//! Events of ours, read back from the homeserver to be changed: what it shows is signed by us as soon as it is sent again.
//! So it is believed only where a keyed digest says that we sent it, and that it is the newest that we sent. Where none was
//! kept, an encrypted room must show what this device has encrypted.

use footbridge_core::outlet::{Outcome, SendError};
use footbridge_store::{Place, RemoteId};
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
    Matrix,
    convert::bundles::{self, LatestContent},
    request_error::{RequestError, retry},
    security_metrics::SecurityClass,
    send::not_sent,
};

/// What an event of ours that was read back turns out to be.
pub(super) enum ReadBack {
    /// We sent this content; with what of it is verified, if anything.
    Ours(Value, Option<String>),
    /// It was redacted.
    Redacted,
    /// It cannot be read, or it is not what we sent.
    Unknown,
}

impl Matrix {
    /// The newest form of an event of ours. `to_verify` answers what of a content will be sent again.
    pub(super) async fn read_back(
        &self,
        room: &Room,
        (place, target): (&Place, &RemoteId),
        to_verify: impl Fn(&Value) -> Option<String>,
    ) -> Result<ReadBack, SendError> {
        let Some(event) = self.fetch_event(room, target).await? else {
            return Ok(ReadBack::Unknown);
        };
        let Ok(json) = serde_json::from_str(event.raw().json().get()) else {
            return Ok(ReadBack::Unknown);
        };
        let content = match bundles::newest(&json, self.own.as_str()) {
            LatestContent::Content(content) => content,
            LatestContent::Redacted => return Ok(ReadBack::Redacted),
            LatestContent::UndecryptableTexts => return Ok(ReadBack::Unknown),
        };
        let verified = to_verify(&content);
        let says = match &verified {
            Some(said) => self
                .store
                .matches_event_digest(place, target, said)
                .await
                .map_err(|error| broken(&error))?,
            None => None,
        };
        let is_ours = match says {
            Some(says) => says,
            None => {
                !self
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
            self.alarms.record(SecurityClass::ReadBack, 1);
            error!(
                matrix.room = place.address(),
                "The homeserver shows an event of ours that is not what we sent: it is not sent again"
            );
        }
        Ok(ReadBack::Unknown)
    }

    /// Keeps what an event that was sent says.
    pub(super) async fn save_event_digest(
        &self,
        place: &Place,
        remote: &RemoteId,
        said: Option<String>,
    ) -> Result<(), SendError> {
        match said {
            Some(said) => self
                .store
                .save_event_digest(place, remote, &said)
                .await
                .map_err(|error| retry(None, Outcome::Unknown, &error.to_string())),
            None => Ok(()),
        }
    }

    /// Keeps what an event is about to say.
    pub(super) async fn save_next_event_digest(
        &self,
        place: &Place,
        target: &RemoteId,
        said: (&str, &str),
    ) -> Result<(), SendError> {
        let kept = self.store.save_next_event_digest(place, target, said).await;
        kept.map_err(|error| broken(&error))
    }

    /// Whether this device has encrypted the event, and its newest form.
    async fn has_encrypted(&self, event: &TimelineEvent, json: &Value) -> bool {
        let Some(own) = self.client.encryption().curve25519_key().await else {
            return false;
        };
        let own = own.to_base64();
        let is_own = |info: &EncryptionInfo| {
            let AlgorithmInfo::MegolmV1AesSha2 { curve25519_key, .. } = &info.algorithm_info else {
                return false;
            };
            // A key out of a backup names whomever its maker wanted.
            let is_known = matches!(
                info.verification_state,
                VerificationState::Verified
                    | VerificationState::Unverified(VerificationLevel::UnverifiedIdentity)
            );
            info.sender == self.own && *curve25519_key == own && is_known
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
                fault => Err(not_sent(&fault)),
            },
        }
    }
}

/// The store cannot be read before anything was sent.
fn broken(error: &footbridge_store::Error) -> SendError {
    retry(None, Outcome::NotDone, &error.to_string())
}
