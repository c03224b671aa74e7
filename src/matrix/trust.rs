//! Pinned identities: the first identity under which a message of a user arrived, until an admin approves another. And
//! the notices about messages that are held or refused by the trust policy, which `trust_policy` decides.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
};

use footbridge_core::{inbox::Inbox, persons::UserIdentities};
use footbridge_store::{EntryId, HeldIdentity, Place, SkipRule};
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
    trust_policy::{PinStatus, TrustHold},
    undecryptable::{self, CHANGED},
};

/// The result of approving an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// How many messages were held because of it.
    pub held: u64,
}

impl Matrix {
    /// The known identities of a user, including the one that the homeserver shows now.
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

    /// An admin approves the identity of a user with this public master key and no other, even if an older one had been
    /// verified. Messages that were held because of it are relayed, late. `None` if no such identity of the user is
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
            // The homeserver may show yet another identity now.
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

    /// Somebody has compared emoji with a user: the verified identity is approved.
    pub(super) async fn pin_verified(&self, user: &UserId) {
        let approved = async {
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
        if let Err(error) = approved.await {
            let error = format!("{error:#}");
            warn!(error, "Failed to approve a verified identity");
        }
    }

    /// The users whose messages are held until an admin approves their identity, with the number of messages.
    pub fn held_for_approval(&self) -> Boxed<'_, Result<Vec<(String, u64)>, MatrixError>> {
        Box::pin(async move { Ok(self.store.trust_holds().await?) })
    }

    /// Retries messages that were held for an identity that is approved by now, and messages that no identity had
    /// signed. If one message of a room key is still held, so are all later ones.
    pub(super) async fn retry_held(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let mut held = HashSet::new();
        for waiting in self.store.releasable_trust_holds().await? {
            if !held.contains(&waiting.session) && !self.retry_entry(&waiting, inbox).await? {
                held.insert(waiting.session);
            }
        }
        Ok(())
    }

    /// Pins the identity that signed the message that has just been read, if no identity of the sender was pinned
    /// before. A message that another identity has signed is held.
    pub(super) async fn pin_sender(
        &self,
        classification: Classification,
        unsealed: &DecryptionResult<'_>,
        envelope: &EventFields,
    ) -> Classification {
        let (PinStatus::First(key), Classification::Message(_) | Classification::Command(_)) =
            (&unsealed.pin, &classification)
        else {
            return classification;
        };
        let user = &envelope.sender;
        let pinned = async {
            let is_same = self.keys.pins().pin_identity(user, key).await?;
            // The homeserver may have shown another identity since the room key arrived.
            check_identity(&self.keys, user).await?;
            Ok::<_, MatrixError>(is_same)
        };
        match pinned.await {
            Ok(true) => classification,
            Ok(false) => waits(WaitReason::Trust(TrustHold::Approval), unsealed, envelope),
            Err(error) => {
                let error = format!("{error:#}");
                warn!(error, "Failed to save an identity pin; message held");
                waits(WaitReason::Trust(TrustHold::Approval), unsealed, envelope)
            }
        }
    }

    /// The identity because of which a message is held.
    pub(super) fn suspect(&self, sender: &str, unsealed: &DecryptionResult<'_>) -> HeldIdentity {
        let key = unsealed.signer.clone();
        self.keys.pins().suspect(sender, key.as_deref());
        HeldIdentity {
            user: sender.to_owned(),
            master_key: key,
        }
    }

    /// A user's identity, as far as the SDK knows it; no request is made.
    async fn identity(&self, user: &str) -> Result<Option<UserIdentity>, MatrixError> {
        let id = <&UserId>::try_from(user)
            .map_err(|_| MatrixError::Identity(format!("{user} is not a user id")))?;
        let identity = self.client.encryption().get_user_identity(id).await;
        identity.map_err(|error| broken(&error))
    }

    /// Records that a waiting entry turned out to need an admin's approval.
    pub(super) async fn hold_for_approval(&self, entry: EntryId, suspect: &HeldIdentity) {
        if let Err(error) = self
            .store
            .hold_for_trust(entry, suspect, self.clock.now())
            .await
        {
            warn!(entry.id = %entry, error = %error, "Failed to save that an entry is held");
        }
    }

    /// Sends a notice to the rooms of users whose identity has changed, even if they write nothing: the new identity
    /// gets no room keys any more.
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

    /// Sends one notice per new identity of a user to the room: that its messages are held, and who can do what about
    /// it.
    pub(super) async fn notify_identity_change(
        &self,
        place: &Place,
        (sender, key): (&str, &str),
        name: &str,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let text = format!(
            "⚠ The identity of {name} ({sender}) has changed: they have reset it, or somebody else writes in their \
             name. Messages with the new identity are held and follow once it is accepted; it gets no room keys from \
             the bridge. An admin of the bridge should ask them outside this room, and then accept this identity and \
             no other with `!bridge trust {sender} {key}`."
        );
        let notice_id = fingerprint(&[place.as_str(), sender, key]);
        let notice_id = format!("identity-{notice_id}");
        if !inbox
            .send_notice_about(place, sender, &notice_id, &text)
            .await?
        {
            let pins = self.keys.pins();
            pins.announce_later(sender.to_owned(), key.to_owned());
        }
        Ok(())
    }

    /// Sends one notice to each room in which a plaintext message was refused.
    pub(super) async fn notify_plaintext(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let places: HashSet<Place> = std::mem::take(&mut *self.lock_plaintext());
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

    /// Counts what was refused, and logs as an error what an honest homeserver never shows.
    pub(super) fn refused(&self, rule: SkipRule, room: &Room) {
        self.security.skipped(rule);
        if rule == SkipRule::PlaintextInEncryptedRoom {
            self.lock_plaintext()
                .insert(Place::room(room.room_id().as_str()));
        }
        if rule == SkipRule::SenderMismatch || rule == SkipRule::ForeignRoom {
            error!(
                matrix.room = %room.room_id(),
                rule = rule.as_str(),
                "An event does not match the homeserver's claims about it; dropped"
            );
        }
    }

    /// Counts ciphertexts that were replayed in a new event.
    pub(super) fn replayed(&self, times: usize) {
        if times > 0 {
            self.security
                .record(SecurityClass::Replay, times.try_into().unwrap_or(u64::MAX));
            error!(
                times,
                "Two events with the same ratchet index of a room key; the second was dropped"
            );
        }
    }

    fn lock_plaintext(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.plaintext_refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares the pinned identities with those in the crypto store.
pub(super) async fn recheck(keys: &BufferedCryptoStore) -> Result<(), MatrixError> {
    let checked = keys.check_pinned_identities().await;
    checked.map_err(|error| broken(&error))
}

async fn check_identity(keys: &BufferedCryptoStore, user: &str) -> Result<(), MatrixError> {
    let checked = keys.check_identity(user).await;
    checked.map_err(|error| broken(&error))
}

fn key_of(identity: &UserIdentity) -> Option<String> {
    Some(identity.master_key().get_first_key()?.to_base64())
}

fn broken(error: &dyn std::error::Error) -> MatrixError {
    MatrixError::CryptoStore(format!("an identity could not be read or saved: {error}"))
}

/// The reason code for a held message, for notices.
pub(super) fn reason(hold: TrustHold) -> &'static str {
    match hold {
        TrustHold::Approval => CHANGED,
        TrustHold::Signature | TrustHold::DeviceList => undecryptable::UNSIGNED,
    }
}

/// A short hash over these texts, which does not reveal them.
fn fingerprint(of: &[&str]) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    for part in of {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let mut text = String::new();
    for byte in hash.finalize().iter().take(8) {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_separates_its_fields() {
        assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
        assert_eq!(fingerprint(&["a"]).len(), 16);
    }

    #[test]
    fn a_held_message_gives_a_notice_with_the_reason() {
        assert_eq!(reason(TrustHold::Approval), CHANGED);
        for hold in [TrustHold::Signature, TrustHold::DeviceList] {
            assert_eq!(reason(hold), undecryptable::UNSIGNED);
        }
    }
}
