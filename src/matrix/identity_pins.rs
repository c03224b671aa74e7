//! The pinned identity of each user, in memory as in the store, and the users of whom another identity was seen since:
//! such a user stays marked, whatever the homeserver shows next, until an admin accepts one identity. Shared with the
//! crypto store, which sees each identity before the SDK uses it and gives no room keys to one that is not pinned.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use footbridge_core::clock::Clock;
use footbridge_store::{Error, Store};
use tracing::warn;

use super::trust_policy::PinStatus;

/// How many other identities of one user are remembered here, so that each is saved once.
const MAX_OTHERS: usize = 8;
/// How many changed identities can wait for their notice.
const MAX_UNTOLD: usize = 256;

/// The identity pins. Before [`IdentityPins::load`] no user is known, as in a login.
#[derive(Debug, Default)]
pub(super) struct IdentityPins {
    kept: OnceLock<(Store, Clock)>,
    book: Mutex<Pins>,
}

#[derive(Debug, Default)]
struct Pins {
    /// User → public master key.
    master_keys: HashMap<String, String>,
    /// Users of whom another identity was seen, with its keys as far as they are remembered here.
    changed: HashMap<String, HashSet<String>>,
    /// Other identities without a notice since the start: user, public master key.
    unannounced: BTreeSet<(String, String)>,
    /// How often something changed that decides who gets room keys.
    changes: u64,
}

impl Pins {
    /// Records another identity. Returns whether it is new.
    fn change(&mut self, user: &str, key: Option<&str>) -> bool {
        if !self.changed.contains_key(user) {
            self.changes += 1;
        }
        let known = self.changed.entry(user.to_owned()).or_default();
        let Some(key) = key else {
            return false;
        };
        if known.contains(key) {
            return false;
        }
        if known.len() >= MAX_OTHERS {
            known.clear();
        }
        known.insert(key.to_owned());
        if self.unannounced.len() < MAX_UNTOLD {
            self.unannounced.insert((user.to_owned(), key.to_owned()));
        }
        true
    }
}

impl IdentityPins {
    /// Loads the pins from the store; from now on changes are saved there.
    pub(super) async fn load(&self, store: &Store, clock: Clock) -> Result<(), Error> {
        let (pins, others) = (
            store.pinned_identities().await?,
            store.changed_identities().await?,
        );
        {
            let mut book = self.lock();
            book.master_keys = pins.into_iter().collect();
            for (user, key) in &others {
                book.change(user, Some(key));
            }
        }
        // Called once per account that is opened.
        self.kept.set((store.clone(), clock)).ok();
        Ok(())
    }

    /// The users with a pinned identity.
    pub(super) fn users(&self) -> Vec<String> {
        self.lock().master_keys.keys().cloned().collect()
    }

    /// The public master key of this user's pinned identity.
    pub(super) fn pinned_key(&self, user: &str) -> Option<String> {
        self.lock().master_keys.get(user).cloned()
    }

    /// Whether another identity of this user was seen, and none has been accepted since.
    pub(super) fn has_changed(&self, user: &str) -> bool {
        self.lock().changed.contains_key(user)
    }

    /// How often something changed that decides who gets room keys: a key that was shared before a change is used again
    /// only after a check of all members.
    pub(super) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Compares the identity that had signed a message's device when its room key arrived with the sender's pinned
    /// identity.
    pub(super) fn pin_status(&self, user: &str, signer: Option<&str>) -> PinStatus {
        let book = self.lock();
        match (signer, book.master_keys.get(user)) {
            (Some(signer), Some(pinned)) if signer == pinned => PinStatus::Same,
            (Some(_), Some(_)) => PinStatus::Changed,
            (Some(signer), None) => PinStatus::First(signer.to_owned()),
            // No identity has signed the device, and the user's identity is in doubt.
            (None, _) if book.changed.contains_key(user) => PinStatus::Changed,
            (None, _) => PinStatus::None,
        }
    }

    /// Pins this identity of a user unless another one is pinned. Returns whether the pinned identity is this one.
    pub(super) async fn pin_identity(&self, user: &str, key: &str) -> Result<bool, Error> {
        let Some((store, clock)) = self.kept.get() else {
            return Ok(false);
        };
        let pinned = store.pin_identity(user, key, clock.now()).await?;
        let is_same = pinned == key;
        self.lock().master_keys.insert(user.to_owned(), pinned);
        Ok(is_same)
    }

    /// The homeserver shows this identity of a user.
    pub(super) async fn see(&self, user: &str, key: &str) -> Result<(), Error> {
        let Some((store, clock)) = self.kept.get() else {
            return Ok(());
        };
        let is_other = |book: &Pins| {
            let known = book.changed.get(user);
            book.master_keys
                .get(user)
                .is_some_and(|pinned| pinned != key)
                && !known.is_some_and(|known| known.contains(key))
        };
        if !is_other(&self.lock()) {
            return Ok(());
        }
        store.note_changed_identity(user, key, clock.now()).await?;
        if self.lock().change(user, Some(key)) {
            warn!(
                "A user's identity has changed: the new one gets no room keys, and its messages are held"
            );
        }
        Ok(())
    }

    /// A message is held because of this identity of a user, or because no identity signed it. The store records the
    /// hold with the message.
    pub(super) fn suspect(&self, user: &str, key: Option<&str>) {
        self.lock().change(user, key);
    }

    /// An admin accepts this identity of a user. The user's other identities are forgotten.
    pub(super) async fn accept(&self, user: &str, key: &str) -> Result<(), Error> {
        let Some((store, clock)) = self.kept.get() else {
            return Ok(());
        };
        store.replace_pin(user, key, clock.now()).await?;
        let mut book = self.lock();
        book.master_keys.insert(user.to_owned(), key.to_owned());
        book.changed.remove(user);
        book.changes += 1;
        book.unannounced.retain(|(other, _)| other != user);
        Ok(())
    }

    /// Takes the other identities without a notice.
    pub(super) fn take_unannounced(&self) -> BTreeSet<(String, String)> {
        std::mem::take(&mut self.lock().unannounced)
    }

    /// The notice about this identity was rate-limited; it is sent later.
    pub(super) fn announce_later(&self, user: String, key: String) {
        let mut book = self.lock();
        if book.unannounced.len() < MAX_UNTOLD {
            book.unannounced.insert((user, key));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pins> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use footbridge_store::StoreKey;

    use super::*;

    async fn open(directory: &std::path::Path) -> (Store, IdentityPins) {
        let key = StoreKey::read_or_create(&directory.join("key")).unwrap();
        let store = Store::open(&directory.join("data"), &key).await.unwrap();
        let pins = IdentityPins::default();
        pins.load(&store, Clock::start()).await.unwrap();
        (store, pins)
    }

    #[tokio::test]
    async fn p02_another_identity_stays_another_one_whatever_is_shown_next() {
        let directory = tempfile::tempdir().unwrap();
        let (store, pins) = open(directory.path()).await;
        let (ann, bob) = ("@ann:x", "@bob:x");
        assert_eq!(pins.pin_status(ann, None), PinStatus::None);
        assert_eq!(
            pins.pin_status(ann, Some("a")),
            PinStatus::First("a".into())
        );
        assert!(pins.pin_identity(ann, "a").await.unwrap());
        assert!(
            !pins.pin_identity(ann, "b").await.unwrap(),
            "the first stays"
        );
        pins.see(ann, "a").await.unwrap();
        pins.see(bob, "b").await.unwrap();
        assert!(!pins.has_changed(ann) && !pins.has_changed(bob));
        assert_eq!(pins.pin_status(ann, None), PinStatus::None);

        pins.see(ann, "b").await.unwrap();
        pins.see(ann, "a").await.unwrap();
        drop((store, pins));
        let (store, pins) = open(directory.path()).await;
        assert!(pins.has_changed(ann) && !pins.has_changed(bob));
        let statuses = [Some("a"), Some("b"), Some("c"), None].map(|key| pins.pin_status(ann, key));
        let wanted = [
            PinStatus::Same,
            PinStatus::Changed,
            PinStatus::Changed,
            PinStatus::Changed,
        ];
        assert_eq!(statuses, wanted);
        let unannounced = pins.take_unannounced();
        assert_eq!(
            unannounced.into_iter().collect::<Vec<_>>(),
            [(ann.into(), "b".into())]
        );
        // One notice, and one save.
        pins.see(ann, "b").await.unwrap();
        assert!(pins.take_unannounced().is_empty());

        pins.accept(ann, "b").await.unwrap();
        assert!(!pins.has_changed(ann));
        let statuses = [Some("a"), Some("b"), None].map(|key| pins.pin_status(ann, key));
        assert_eq!(
            statuses,
            [PinStatus::Changed, PinStatus::Same, PinStatus::None]
        );
        assert_eq!(store.changed_identities().await.unwrap(), []);
        // The identity that was pinned before is another one now.
        pins.see(ann, "a").await.unwrap();
        assert!(pins.has_changed(ann));
        assert_eq!(
            store.changed_identities().await.unwrap(),
            [(ann.into(), "a".into())]
        );
    }

    #[tokio::test]
    async fn p02_any_number_of_identities_of_one_user_takes_little_room() {
        let directory = tempfile::tempdir().unwrap();
        let (store, pins) = open(directory.path()).await;
        assert!(pins.pin_identity("@ann:x", "a").await.unwrap());
        for number in 0..40 {
            let key = format!("b{number:02}");
            pins.see("@ann:x", &key).await.unwrap();
        }
        let others = store.changed_identities().await.unwrap();
        assert_eq!(others.len(), 8, "{others:?}");
        assert_eq!(others.last().unwrap().1, "b39");
        assert!(pins.has_changed("@ann:x"));
    }
}
