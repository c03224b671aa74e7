//! By which identity each user is believed, in memory as in the store, and of whom another one was seen since: that
//! stays so, whatever the homeserver shows next, until somebody in charge accepts one. Shared with the encryption store,
//! which sees each identity before the SDK uses it and gives no room keys to one that is not believed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use footbridge_core::clock::Clock;
use footbridge_store::{Error, Store};
use tracing::warn;

use super::trust_policy::PinStatus;

/// How many other identities of one user are remembered here, so that each is written down once.
const MAX_OTHERS: usize = 8;
/// Of how many other identities people are told at a time.
const MAX_UNTOLD: usize = 256;

/// Whom we believe. Before [`Believed::load`] nobody was ever seen, as in a login.
#[derive(Debug, Default)]
pub(super) struct IdentityPins {
    kept: OnceLock<(Store, Clock)>,
    book: Mutex<Pins>,
}

#[derive(Debug, Default)]
struct Pins {
    /// User, public master key.
    pins: HashMap<String, String>,
    /// Users of whom another identity was seen, with its keys as far as they are remembered here.
    changed: HashMap<String, HashSet<String>>,
    /// Other identities of which people were not told since the start: user, public master key.
    unannounced: BTreeSet<(String, String)>,
    /// How often something changed that decides who gets room keys.
    changes: u64,
}

impl Pins {
    /// Whether another identity is news.
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
    /// Reads what the store knows, and writes there from now on.
    pub(super) async fn load(&self, store: &Store, clock: Clock) -> Result<(), Error> {
        let (pins, others) = (
            store.pinned_identities().await?,
            store.changed_identities().await?,
        );
        {
            let mut book = self.lock();
            book.pins = pins.into_iter().collect();
            for (user, key) in &others {
                book.change(user, Some(key));
            }
        }
        // Once per account that is opened.
        self.kept.set((store.clone(), clock)).ok();
        Ok(())
    }

    /// The users that are believed by some identity.
    pub(super) fn users(&self) -> Vec<String> {
        self.lock().pins.keys().cloned().collect()
    }

    /// The public master key of the identity by which this user is believed.
    pub(super) fn pinned_key(&self, user: &str) -> Option<String> {
        self.lock().pins.get(user).cloned()
    }

    /// Whether another identity of this user was seen, and none has been accepted since.
    pub(super) fn has_changed(&self, user: &str) -> bool {
        self.lock().changed.contains_key(user)
    }

    /// How often something changed that decides who gets room keys: a key that was shared before a change is not used
    /// after it without a look at all members.
    pub(super) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// The identity that has signed a message's device when its room key came, beside the one by which its sender is
    /// believed.
    pub(super) fn pin_status(&self, user: &str, signer: Option<&str>) -> PinStatus {
        let book = self.lock();
        match (signer, book.pins.get(user)) {
            (Some(signer), Some(pinned)) if signer == pinned => PinStatus::Same,
            (Some(_), Some(_)) => PinStatus::Changed,
            (Some(signer), None) => PinStatus::First(signer.to_owned()),
            // Nobody has signed it, and nobody knows who would.
            (None, _) if book.changed.contains_key(user) => PinStatus::Changed,
            (None, _) => PinStatus::None,
        }
    }

    /// Believes a user by this identity from now on unless another one already is. Answers whether it is the one.
    pub(super) async fn pin_identity(&self, user: &str, key: &str) -> Result<bool, Error> {
        let Some((store, clock)) = self.kept.get() else {
            return Ok(false);
        };
        let pinned = store.pin_identity(user, key, clock.now()).await?;
        let is_same = pinned == key;
        self.lock().pins.insert(user.to_owned(), pinned);
        Ok(is_same)
    }

    /// The homeserver shows this identity of a user.
    pub(super) async fn see(&self, user: &str, key: &str) -> Result<(), Error> {
        let Some((store, clock)) = self.kept.get() else {
            return Ok(());
        };
        let is_other = |book: &Pins| {
            let known = book.changed.get(user);
            book.pins.get(user).is_some_and(|pinned| pinned != key)
                && !known.is_some_and(|known| known.contains(key))
        };
        if !is_other(&self.lock()) {
            return Ok(());
        }
        store.note_changed_identity(user, key, clock.now()).await?;
        if self.lock().change(user, Some(key)) {
            warn!(
                "A user has another identity than before: it gets no room keys, and its messages are held"
            );
        }
        Ok(())
    }

    /// A message is held for this identity of a user, or for want of any. The store notes it with the message.
    pub(super) fn suspect(&self, user: &str, key: Option<&str>) {
        self.lock().change(user, key);
    }

    /// Somebody in charge accepts this identity of a user. Others that were seen are forgotten.
    pub(super) async fn accept(&self, user: &str, key: &str) -> Result<(), Error> {
        let Some((store, clock)) = self.kept.get() else {
            return Ok(());
        };
        store.replace_pin(user, key, clock.now()).await?;
        let mut book = self.lock();
        book.pins.insert(user.to_owned(), key.to_owned());
        book.changed.remove(user);
        book.changes += 1;
        book.unannounced.retain(|(other, _)| other != user);
        Ok(())
    }

    /// Other identities of which people were not told yet.
    pub(super) fn take_unannounced(&self) -> BTreeSet<(String, String)> {
        std::mem::take(&mut self.lock().unannounced)
    }

    /// People could not be told of this identity: too much was said already.
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
        let believed = IdentityPins::default();
        believed.load(&store, Clock::start()).await.unwrap();
        (store, believed)
    }

    #[tokio::test]
    async fn p02_another_identity_stays_another_one_whatever_is_shown_next() {
        let directory = tempfile::tempdir().unwrap();
        let (store, believed) = open(directory.path()).await;
        let (ann, bob) = ("@ann:x", "@bob:x");
        assert_eq!(believed.pin_status(ann, None), PinStatus::None);
        assert_eq!(
            believed.pin_status(ann, Some("a")),
            PinStatus::First("a".into())
        );
        assert!(believed.pin_identity(ann, "a").await.unwrap());
        assert!(
            !believed.pin_identity(ann, "b").await.unwrap(),
            "the first stays"
        );
        believed.see(ann, "a").await.unwrap();
        believed.see(bob, "b").await.unwrap();
        assert!(!believed.has_changed(ann) && !believed.has_changed(bob));
        assert_eq!(believed.pin_status(ann, None), PinStatus::None);

        believed.see(ann, "b").await.unwrap();
        believed.see(ann, "a").await.unwrap();
        drop((store, believed));
        let (store, believed) = open(directory.path()).await;
        assert!(believed.has_changed(ann) && !believed.has_changed(bob));
        let judged =
            [Some("a"), Some("b"), Some("c"), None].map(|key| believed.pin_status(ann, key));
        let wanted = [
            PinStatus::Same,
            PinStatus::Changed,
            PinStatus::Changed,
            PinStatus::Changed,
        ];
        assert_eq!(judged, wanted);
        let untold = believed.take_unannounced();
        assert_eq!(
            untold.into_iter().collect::<Vec<_>>(),
            [(ann.into(), "b".into())]
        );
        // Told once, and written down once.
        believed.see(ann, "b").await.unwrap();
        assert!(believed.take_unannounced().is_empty());

        believed.accept(ann, "b").await.unwrap();
        assert!(!believed.has_changed(ann));
        let judged = [Some("a"), Some("b"), None].map(|key| believed.pin_status(ann, key));
        assert_eq!(
            judged,
            [PinStatus::Changed, PinStatus::Same, PinStatus::None]
        );
        assert_eq!(store.changed_identities().await.unwrap(), []);
        // The one that was believed before is another one now.
        believed.see(ann, "a").await.unwrap();
        assert!(believed.has_changed(ann));
        assert_eq!(
            store.changed_identities().await.unwrap(),
            [(ann.into(), "a".into())]
        );
    }

    #[tokio::test]
    async fn p02_any_number_of_identities_of_one_user_takes_little_room() {
        let directory = tempfile::tempdir().unwrap();
        let (store, believed) = open(directory.path()).await;
        assert!(believed.pin_identity("@ann:x", "a").await.unwrap());
        for number in 0..40 {
            let key = format!("b{number:02}");
            believed.see("@ann:x", &key).await.unwrap();
        }
        let others = store.changed_identities().await.unwrap();
        assert_eq!(others.len(), 8, "{others:?}");
        assert_eq!(others.last().unwrap().1, "b39");
        assert!(believed.has_changed("@ann:x"));
    }
}
