//! Whom we believe: the first identity under which a message of a user came, until somebody in charge accepts another.
//! And what is said of messages that are held or refused for the sake of trust; the table that decides is in `verdict`.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
};

use footbridge_core::{inbox::Inbox, persons::UserIdentities};
use footbridge_store::{EntryId, HeldIdentity, Place};
use matrix_sdk::{
    Room,
    encryption::identities::UserIdentity,
    ruma::{UserId, events::room::member::MembershipState},
};
use sha2::{Digest, Sha256};
use tracing::{error, info, warn};

use super::{
    Boxed, Matrix, MatrixError,
    crypto_store::BufferedCryptoStore,
    decrypt::DecryptionResult,
    security_metrics::SecurityClass,
    timeline::{Classification, EventFields, WaitReason, waits},
    trust_policy::{MISMATCH, PLAINTEXT, PinStatus, TrustHold},
    undecryptable::{self, CHANGED},
};

/// What came of accepting an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// How many messages were held for it.
    pub held: u64,
}

impl Matrix {
    /// What is known of a user's identities; the one that the homeserver shows is among them.
    pub fn identities_of<'a>(
        &'a self,
        user: &'a str,
    ) -> Boxed<'a, Result<UserIdentities, MatrixError>> {
        Box::pin(async move {
            let mut known = UserIdentities {
                pinned: self.keys.pins().pinned_key(user),
                changed: self.store.changed_identities_of(user).await?,
            };
            let shown = self.identity(user).await?.and_then(|shown| key_of(&shown));
            if let Some(key) = shown
                && known.pinned.as_ref() != Some(&key)
                && known.changed.iter().all(|(other, _)| *other != key)
            {
                known.changed.push((key, 0));
            }
            Ok(known)
        })
    }

    /// Somebody in charge accepts the identity of a user that has this public master key and no other, also where an
    /// older one had been verified. What was held for it is relayed, late. `None` when no such identity of the user is
    /// known.
    pub fn approve<'a>(
        &'a self,
        user: &'a str,
        key: &'a str,
    ) -> Boxed<'a, Result<Option<Approved>, MatrixError>> {
        Box::pin(async move {
            let known = self.identities_of(user).await?;
            let other = known.changed.iter().find(|(other, _)| other == key);
            let held = other.map_or(0, |(_, held)| *held);
            if other.is_none() && known.pinned.as_deref() != Some(key) {
                return Ok(None);
            }
            self.keys.pins().accept(user, key).await?;
            // The one that the homeserver shows now may be another one again.
            check_identity(&self.keys, user).await?;
            let shown = self.identity(user).await?;
            if let Some(shown) = shown.filter(|shown| key_of(shown).as_deref() == Some(key)) {
                if shown.has_verification_violation() {
                    let withdrawn = shown.withdraw_verification().await;
                    withdrawn.map_err(|error| broken(&error))?;
                }
                shown.pin().await.map_err(|error| broken(&error))?;
            }
            info!("An admin approved an identity");
            self.approved.notify_one();
            Ok(Some(Approved { held }))
        })
    }

    /// Somebody has compared the emoji with a user: the identity that they belong to is accepted.
    pub(super) async fn pin_verified(&self, user: &UserId) {
        let believed = async {
            let shown = self.identity(user.as_str()).await?;
            let Some(key) = shown
                .filter(UserIdentity::is_verified)
                .as_ref()
                .and_then(key_of)
            else {
                return Ok(());
            };
            self.approve(user.as_str(), &key).await.map(drop)
        };
        if let Err(error) = believed.await {
            let error = format!("{error:#}");
            warn!(error, "A verified identity could not be accepted");
        }
    }

    /// Whose messages are held until somebody in charge accepts their identity, and how many of each.
    pub fn held_for_approval(&self) -> Boxed<'_, Result<Vec<(String, u64)>, MatrixError>> {
        Box::pin(async move { Ok(self.store.trust_holds().await?) })
    }

    /// Tries again what was held for identities that are believed by now, and what no identity had signed. Where one
    /// message of a room key is held still, so are all that follow it.
    pub(super) async fn retry_held(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let mut held = HashSet::new();
        for waiting in self.store.releasable_trust_holds().await? {
            if !held.contains(&waiting.session) && !self.retry_entry(&waiting, inbox).await? {
                held.insert(waiting.session);
            }
        }
        Ok(())
    }

    /// Believes the sender of what has just been read by the identity that signed it, if none was believed before. What
    /// another identity has signed is held.
    pub(super) async fn pin_sender(
        &self,
        reading: Classification,
        unsealed: &DecryptionResult<'_>,
        envelope: &EventFields,
    ) -> Classification {
        let (PinStatus::First(key), Classification::Message(_) | Classification::Command(_)) =
            (&unsealed.pin, &reading)
        else {
            return reading;
        };
        let user = &envelope.sender;
        let believed = async {
            let is_same = self.keys.pins().pin_identity(user, key).await?;
            // The homeserver may have shown another one since the room key came.
            check_identity(&self.keys, user).await?;
            Ok::<_, MatrixError>(is_same)
        };
        match believed.await {
            Ok(true) => reading,
            Ok(false) => waits(WaitReason::Trust(TrustHold::Approval), unsealed, envelope),
            Err(error) => {
                let error = format!("{error:#}");
                warn!(error, "Failed to save an identity pin; message held");
                waits(WaitReason::Trust(TrustHold::Approval), unsealed, envelope)
            }
        }
    }

    /// For whose identity a message is held.
    pub(super) fn suspect(&self, sender: &str, unsealed: &DecryptionResult<'_>) -> HeldIdentity {
        let key = unsealed.signer.clone();
        self.keys.pins().suspect(sender, key.as_deref());
        HeldIdentity {
            user: sender.to_owned(),
            master_key: key,
        }
    }

    /// A user's identity, as far as the SDK knows; no request is made.
    async fn identity(&self, user: &str) -> Result<Option<UserIdentity>, MatrixError> {
        let id = <&UserId>::try_from(user)
            .map_err(|_| MatrixError::Identity(format!("{user} is no user id")))?;
        let identity = self.client.encryption().get_user_identity(id).await;
        identity.map_err(|error| broken(&error))
    }

    /// An entry that waited turned out to be one for somebody in charge.
    pub(super) async fn hold_for_approval(&self, entry: EntryId, suspect: &HeldIdentity) {
        if let Err(error) = self
            .store
            .hold_for_trust(entry, suspect, self.clock.now())
            .await
        {
            warn!(entry.id = %entry, error = %error, "Failed to save that an entry is held");
        }
    }

    /// Says in the rooms of users whose identity has changed what that means, also where they say nothing: they get no
    /// room keys any more.
    pub(super) async fn notify_identity_changes(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        for (user, key) in self.keys.pins().take_unannounced() {
            let Ok(id) = <&UserId>::try_from(user.as_str()) else {
                continue;
            };
            for room in self.client.joined_rooms() {
                let member = room.get_member_no_sync(id).await;
                if !matches!(member, Ok(Some(member)) if *member.membership() == MembershipState::Join)
                {
                    continue;
                }
                let place = Place::room(room.room_id().as_str());
                let name = self.name_of(&place, &user).await;
                self.notify_identity_change(&place, (&user, &key), &name, inbox)
                    .await?;
            }
        }
        Ok(())
    }

    /// Says in the room, once for each other identity of a user, that its messages are held and who can do what about
    /// it.
    pub(super) async fn notify_identity_change(
        &self,
        place: &Place,
        (sender, key): (&str, &str),
        name: &str,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let text = format!(
            "⚠ The identity of {name} ({sender}) has changed: they have reset it, or somebody else speaks in their \
             name. Messages under the new identity are held and will follow, and it gets no room keys from the \
             bridge. Whoever is in charge of the bridge asks them by another way, and accepts this identity and no \
             other with `!bridge trust {sender} {key}`."
        );
        let notice_id = fingerprint(&[place.as_str(), sender, key]);
        let notice_id = format!("identity-{notice_id}");
        if !inbox
            .send_notice_about(place, sender, &notice_id, &text)
            .await?
        {
            let believed = self.keys.pins();
            believed.announce_later(sender.to_owned(), key.to_owned());
        }
        Ok(())
    }

    /// Says in each room, once, that something in the clear did not cross.
    pub(super) async fn notify_plaintext(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let places: HashSet<Place> = std::mem::take(&mut *self.lock_plaintext());
        for place in places {
            let notice_id = fingerprint(&[place.as_str()]);
            let text = "⚠ A message in this room was not encrypted, although the room is. It did not cross, and none \
                        like it will: anybody could have written it.";
            inbox
                .send_notice(&place, &format!("plaintext-{notice_id}"), text)
                .await?;
        }
        Ok(())
    }

    /// Counts what did not cross, and says loudly what an honest homeserver never shows.
    pub(super) fn refused(&self, rule: &'static str, room: &Room) {
        self.alarms.skipped(rule);
        if rule == PLAINTEXT {
            self.lock_plaintext()
                .insert(Place::room(room.room_id().as_str()));
        }
        if rule == MISMATCH || rule == SecurityClass::ForeignRoom.as_str() {
            error!(
                matrix.room = %room.room_id(),
                rule,
                "An event is not what the homeserver says: it was dropped"
            );
        }
    }

    /// Counts old ciphertexts that were shown as new events.
    pub(super) fn replayed(&self, times: usize) {
        if times > 0 {
            self.alarms
                .record(SecurityClass::Replay, times.try_into().unwrap_or(u64::MAX));
            error!(
                times,
                "Two events with the same message of a room key: the second was dropped"
            );
        }
    }

    fn lock_plaintext(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.plaintext_refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares the identities that are believed with those in the encryption store.
pub(super) async fn look(keys: &BufferedCryptoStore) -> Result<(), MatrixError> {
    let looked = keys.check_pinned_identities().await;
    looked.map_err(|error| broken(&error))
}

async fn check_identity(keys: &BufferedCryptoStore, user: &str) -> Result<(), MatrixError> {
    let looked = keys.check_identity(user).await;
    looked.map_err(|error| broken(&error))
}

fn key_of(identity: &UserIdentity) -> Option<String> {
    Some(identity.master_key().get_first_key()?.to_base64())
}

fn broken(error: &dyn std::error::Error) -> MatrixError {
    MatrixError::CryptoStore(format!("an identity cannot be read or kept: {error}"))
}

/// The word for why people cannot see a message that is held.
pub(super) fn reason(hold: TrustHold) -> &'static str {
    match hold {
        TrustHold::Approval => CHANGED,
        TrustHold::Signature | TrustHold::DeviceList => undecryptable::UNSIGNED,
    }
}

/// A short name for these together, which does not tell them.
fn fingerprint(of: &[&str]) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    for part in of {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let mut text = String::new();
    for byte in hash.finalize().iter().take(8) {
        // Writing into a String cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_apart_what_only_reads_the_same_together() {
        assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
        assert_eq!(fingerprint(&["a"]).len(), 16);
    }

    #[test]
    fn people_are_told_why_a_message_is_held() {
        assert_eq!(reason(TrustHold::Approval), CHANGED);
        for hold in [TrustHold::Signature, TrustHold::DeviceList] {
            assert_eq!(reason(hold), undecryptable::UNSIGNED);
        }
    }
}
