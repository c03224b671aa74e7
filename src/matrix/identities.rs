//! Pinned identities: the first identity under which a message of a user arrived, until an admin approves another. And
//! the notices about identities that have changed.

use std::sync::Arc;

use footbridge_core::{clock::Clock, inbox::Inbox, persons::UserIdentities};
use footbridge_store::{EntryId, HeldIdentity, Place, Store};
use matrix_sdk::{
    encryption::identities::UserIdentity,
    ruma::{UserId, events::room::member::MembershipState},
};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::{
    MatrixError,
    account_client::AccountClient,
    crypto_store::BufferedCryptoStore,
    decrypt::DecryptionResult,
    trust_policy::TrustHold,
    undecryptable::{self, CHANGED},
};

/// The result of approving an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// How many messages were held because of it.
    pub held: u64,
}

/// The identities of users, as this device sees them.
#[derive(Debug)]
pub(super) struct Identities {
    account: AccountClient,
    /// The SDK's crypto store, which has the pins.
    keys: Arc<BufferedCryptoStore>,
    store: Store,
    clock: Clock,
    /// Notified when an admin has approved an identity.
    approved: Arc<Notify>,
}

impl Identities {
    pub(super) fn of(
        account: AccountClient,
        keys: Arc<BufferedCryptoStore>,
        store: Store,
        clock: Clock,
    ) -> Self {
        Self {
            account,
            keys,
            store,
            clock,
            approved: Arc::default(),
        }
    }

    /// Notified when an admin has approved an identity.
    pub(super) fn approvals(&self) -> Arc<Notify> {
        self.approved.clone()
    }

    /// The known identities of a user, including the one that the homeserver shows now.
    pub(super) async fn known(&self, user: &str) -> Result<UserIdentities, MatrixError> {
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
    }

    /// An admin approves the identity of a user with this public master key and no other, even if an older one had been
    /// verified. Messages that were held because of it are relayed, late. `None` if no such identity of the user is
    /// known.
    pub(super) async fn approve(
        &self,
        user: &str,
        key: &str,
    ) -> Result<Option<Approved>, MatrixError> {
        let known = self.known(user).await?;
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
    pub(super) async fn held_for_approval(&self) -> Result<Vec<(String, u64)>, MatrixError> {
        Ok(self.store.trust_holds().await?)
    }

    /// Pins the identity that signed a message, if no identity of the sender was pinned before. Returns whether the
    /// pinned identity is this one.
    pub(super) async fn pin(&self, user: &str, key: &str) -> Result<bool, MatrixError> {
        let is_same = self.keys.pins().pin_identity(user, key).await?;
        // The homeserver may have shown another identity since the room key arrived.
        check_identity(&self.keys, user).await?;
        Ok(is_same)
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
        let identity = self
            .account
            .client()
            .encryption()
            .get_user_identity(id)
            .await;
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
            for room in self.account.client().joined_rooms() {
                let member = room.get_member_no_sync(id).await;
                if !matches!(member, Ok(Some(member)) if *member.membership() == MembershipState::Join)
                {
                    continue;
                }
                let place = Place::room(room.room_id().as_str());
                let name = self.account.display_name(&place, &user).await;
                self.notify_identity_change(&place, &user, &key, &name, inbox)
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
        sender: &str,
        key: &str,
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
pub(super) fn fingerprint(of: &[&str]) -> String {
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
