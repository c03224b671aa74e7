//! The flags of rooms, in memory as in the store. A flag that is set stays set for ever, so a set one is looked up once.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use footbridge_core::clock::Clock;
use footbridge_store::{Batch, Error, Flag, Place, Store};

/// The flags of all rooms.
#[derive(Debug)]
pub(super) struct RoomFlags {
    store: Store,
    clock: Clock,
    /// Flags that are known to be set; other flags must be looked up in the store.
    known: Mutex<HashSet<(Place, Flag)>>,
}

impl RoomFlags {
    pub(super) fn of(store: Store, clock: Clock) -> Self {
        Self {
            store,
            clock,
            known: Mutex::default(),
        }
    }

    /// Whether the flag of the room is set.
    pub(super) async fn is_set(&self, place: &Place, flag: Flag) -> Result<bool, Error> {
        let flag_of = (place.clone(), flag);
        if self.lock().contains(&flag_of) {
            return Ok(true);
        }
        let is_set = self.store.flag(place, flag).await?;
        if is_set {
            self.remember([flag_of]);
        }
        Ok(is_set)
    }

    /// Whether the room is encrypted or ever was.
    pub(super) async fn was_encrypted(&self, place: &Place) -> Result<bool, Error> {
        self.is_set(place, Flag::EverEncrypted).await
    }

    /// Records, for ever, that the room is encrypted.
    pub(super) async fn raise_encrypted(&self, place: &Place) -> Result<(), Error> {
        let flags = vec![(place.clone(), Flag::EverEncrypted)];
        let batch = Batch {
            flags: flags.clone(),
            ..Batch::default()
        };
        self.store.accept(batch, self.clock.now()).await?;
        self.remember(flags);
        Ok(())
    }

    /// Remembers flags that the store has saved.
    pub(super) fn remember(&self, flags: impl IntoIterator<Item = (Place, Flag)>) {
        self.lock().extend(flags);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(Place, Flag)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use footbridge_store::StoreKey;

    use super::*;

    #[tokio::test]
    async fn p04_that_a_room_was_encrypted_is_known_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let key = StoreKey::read_or_create(&directory.path().join("key")).unwrap();
        let store = Store::open(&directory.path().join("data"), &key)
            .await
            .unwrap();
        let flags = RoomFlags::of(store.clone(), Clock::start());
        let (room, other) = (Place::room("!r:x"), Place::room("!other:x"));
        assert!(!flags.was_encrypted(&room).await.unwrap());
        flags.raise_encrypted(&room).await.unwrap();
        for flags in [flags, RoomFlags::of(store, Clock::start())] {
            assert!(flags.was_encrypted(&room).await.unwrap());
            assert!(!flags.was_encrypted(&other).await.unwrap());
            let reaches = flags.is_set(&room, Flag::HistoryReachesEncrypted).await;
            assert!(!reaches.unwrap());
        }
    }
}
