//! Whom we believe: the first identity seen of each user, until somebody in charge accepts another. And what is said of
//! messages that are held or refused for the sake of trust; the table that decides is in `verdict`.

use std::{
    collections::{HashMap, HashSet},
    sync::{MutexGuard, PoisonError},
};

use footbridge_store::{EntryId, Place};
use matrix_sdk::{Room, ruma::UserId};
use sha2::{Digest, Sha256};
use tracing::{error, info, warn};

use super::{
    Boxed, Matrix, MatrixError,
    alarms::Alarm,
    unread::{self, CHANGED},
    verdict::{Hold, MISMATCH, PLAINTEXT, Pin},
};
use crate::inbox::Inbox;

/// What came of accepting an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// The identity: its public master key.
    pub master_key: String,
    /// How many messages were held for it.
    pub held: u64,
}

impl Matrix {
    /// Somebody in charge accepts the identity that a user has now, also where an older one had been verified. What
    /// was held for it is relayed, late. `None` when no identity of the user is known.
    pub fn approve<'a>(
        &'a self,
        user: &'a str,
    ) -> Boxed<'a, Result<Option<Approved>, MatrixError>> {
        Box::pin(async move {
            let id = <&UserId>::try_from(user)
                .map_err(|_| MatrixError::Identity(format!("{user} is no user id")))?;
            let broken = |error: &dyn std::error::Error| {
                MatrixError::Keys(format!("the identity cannot be read or kept: {error}"))
            };
            let identity = self.client.encryption().get_user_identity(id).await;
            let Some(identity) = identity.map_err(|error| broken(&error))? else {
                return Ok(None);
            };
            let Some(key) = identity.master_key().get_first_key() else {
                return Ok(None);
            };
            let key = key.to_base64();
            if identity.has_verification_violation() {
                let withdrawn = identity.withdraw_verification().await;
                withdrawn.map_err(|error| broken(&error))?;
            }
            identity.pin().await.map_err(|error| broken(&error))?;
            self.store.repin(user, &key, self.clock.now()).await?;
            self.lock_pins().insert(user.to_owned(), key.clone());
            let held = self.store.held().await?;
            let held = held.into_iter().find(|(held, _)| held == user);
            info!("A changed identity was accepted by somebody in charge");
            self.approved.notify_one();
            Ok(Some(Approved {
                master_key: key,
                held: held.map_or(0, |(_, count)| count),
            }))
        })
    }

    /// Whose messages are held until somebody in charge accepts their identity, and how many of each.
    pub fn held_for_approval(&self) -> Boxed<'_, Result<Vec<(String, u64)>, MatrixError>> {
        Box::pin(async move { Ok(self.store.held().await?) })
    }

    /// Tries again what was held for identities that are believed by now.
    pub(super) async fn release(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        for (user, _) in self.store.held().await? {
            if self.pin(&user).await != Pin::Changed {
                for waiting in self.store.held_of(&user).await? {
                    self.retry_one(&waiting, inbox).await?;
                }
            }
        }
        Ok(())
    }

    /// A user's identity beside the one by which the user is believed.
    pub(super) async fn pin(&self, user: &str) -> Pin {
        let Some(key) = self.master_key(user).await else {
            return Pin::None;
        };
        if self.lock_pins().get(user) == Some(&key) {
            return Pin::Same;
        }
        match self.store.pinned(user).await {
            Ok(None) => Pin::First(key),
            Ok(Some(pinned)) if pinned == key => {
                self.lock_pins().insert(user.to_owned(), key);
                Pin::Same
            }
            Ok(Some(_)) => Pin::Changed,
            Err(error) => {
                warn!(error = %error, "It cannot be read whom we believe; a message is held");
                Pin::Changed
            }
        }
    }

    /// The public key of a user's identity, as far as the SDK knows; no request is made.
    async fn master_key(&self, user: &str) -> Option<String> {
        let user = <&UserId>::try_from(user).ok()?;
        let identity = self
            .client
            .encryption()
            .get_user_identity(user)
            .await
            .ok()??;
        Some(identity.master_key().get_first_key()?.to_base64())
    }

    /// An entry that waited turned out to be one for somebody in charge.
    pub(super) async fn hold_for_approval(&self, entry: EntryId, sender: &str) {
        if let Err(error) = self.store.hold(entry, sender).await {
            warn!(entry.id = %entry, error = %error, "It cannot be written down that an entry is held");
        }
    }

    /// Says in the room, once for each changed identity, that its messages are held and who can do what about it.
    pub(super) async fn tell_of_change(
        &self,
        place: &Place,
        sender: &str,
        name: &str,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let key = self.master_key(sender).await.unwrap_or_default();
        let text = format!(
            "⚠ The identity of {name} ({sender}) has changed: they have reset it, or somebody else speaks in their \
             name. Their messages are held and will follow. Whoever is in charge of the bridge asks them, and \
             accepts the new identity with `!bridge trust {sender}`."
        );
        let fact = fingerprint(&[place.as_str(), sender, &key]);
        Ok(inbox.say(place, &format!("identity-{fact}"), &text).await?)
    }

    /// Says in each room, once, that something in the clear did not cross.
    pub(super) async fn tell_of_plaintext(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let places: HashSet<Place> = std::mem::take(&mut *self.lock_plaintext());
        for place in places {
            let fact = fingerprint(&[place.as_str()]);
            let text = "⚠ A message in this room was not encrypted, although the room is. It did not cross, and none \
                        like it will: anybody could have written it.";
            inbox
                .say(&place, &format!("plaintext-{fact}"), text)
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
        if rule == MISMATCH || rule == Alarm::ForeignRoom.as_str() {
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
                .raise(Alarm::Replay, times.try_into().unwrap_or(u64::MAX));
            error!(
                times,
                "Two events with the same message of a room key: the second was dropped"
            );
        }
    }

    fn lock_plaintext(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.plaintext
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_pins(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The word for why people cannot see a message that is held.
pub(super) fn reason(hold: Hold) -> &'static str {
    match hold {
        Hold::Approval => CHANGED,
        Hold::Signature | Hold::DeviceList => unread::UNSIGNED,
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
        assert_eq!(reason(Hold::Approval), CHANGED);
        for hold in [Hold::Signature, Hold::DeviceList] {
            assert_eq!(reason(hold), unread::UNSIGNED);
        }
    }
}
