//! Devices and identities in memory. The SDK asks its store for every member's devices twice and for their identity
//! once for each event that it sends, and each question is a query on another thread.
//!
//! What is here was read from the database and nowhere else: a save removes the users that it names before it begins,
//! and while it goes on nothing that is read about them is kept. So a save that fails, or that nobody waits for any
//! more, leaves nothing here that is not in the database.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use matrix_sdk_crypto::{
    DeviceData, LocalTrust, UserIdentityData,
    store::{CryptoStore as _, types::Changes},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use super::{BufferedCryptoStore, Result, outbound_keys};

/// The most users that are kept, 6 KiB each with one device. Past that all are read anew.
const MAX_USERS: usize = 20_000;

/// A device as it was read. Its copies share what the SDK changes in place (trust, deletion, "was told `m.no_olm`"),
/// so what it was when it was read is written down beside it.
struct CachedDevice {
    device: DeviceData,
    read: DeviceFlags,
}

type DeviceFlags = (LocalTrust, bool, bool);

fn marks(device: &DeviceData) -> DeviceFlags {
    (
        device.local_trust_state(),
        device.is_deleted(),
        device.was_withheld_code_sent(),
    )
}

#[derive(Default)]
struct CachedUser {
    devices: Option<HashMap<OwnedDeviceId, CachedDevice>>,
    /// As JSON, because copies of an identity share what the SDK changes in place.
    identity: Option<IdentityLookup<String>>,
}

/// What was found when somebody's identity was looked for.
struct IdentityLookup<T>(Option<T>);

#[derive(Default)]
struct CachedUsers {
    by_id: HashMap<OwnedUserId, CachedUser>,
    /// Counts the saves that began.
    saves: u64,
    /// Users whom a save names that has not come back, and how many saves do.
    recent_retryable: HashMap<OwnedUserId, u32>,
}

/// What is known of users.
#[derive(Default)]
pub(super) struct DeviceCache(Mutex<CachedUsers>);

/// That a read has begun: what it brings is kept only if nothing was saved meanwhile.
#[derive(Clone, Copy)]
pub(super) struct PendingRead(u64);

/// That a save has begun.
pub(super) struct PendingSave(HashSet<OwnedUserId>);

impl DeviceCache {
    fn users(&self) -> MutexGuard<'_, CachedUsers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self) -> PendingRead {
        PendingRead(self.users().saves)
    }

    pub(super) fn devices(&self, user: &UserId) -> Option<HashMap<OwnedDeviceId, DeviceData>> {
        let mut users = self.users();
        let known = users.by_id.get_mut(user)?;
        let devices = known.devices.as_ref()?;
        if devices
            .values()
            .any(|kept| marks(&kept.device) != kept.read)
        {
            // Somebody has changed one and not saved it.
            known.devices = None;
            return None;
        }
        let copies = devices.iter();
        let copies = copies.map(|(id, kept)| (id.clone(), kept.device.clone()));
        Some(copies.collect())
    }

    pub(super) fn cache_devices(
        &self,
        user: &UserId,
        devices: &HashMap<OwnedDeviceId, DeviceData>,
        reading: PendingRead,
    ) {
        let kept = devices.iter().map(|(id, device)| {
            let kept = CachedDevice {
                device: device.clone(),
                read: marks(device),
            };
            (id.clone(), kept)
        });
        let kept = kept.collect();
        self.keep(user, reading, |known| known.devices = Some(kept));
    }

    /// The identity, unless it must be read.
    fn identity(&self, user: &UserId) -> Option<IdentityLookup<UserIdentityData>> {
        let users = self.users();
        let IdentityLookup(json) = users.by_id.get(user)?.identity.as_ref()?;
        match json {
            None => Some(IdentityLookup(None)),
            Some(json) => serde_json::from_str(json).ok().map(IdentityLookup),
        }
    }

    pub(super) fn cache_identity(
        &self,
        user: &UserId,
        identity: Option<&UserIdentityData>,
        reading: PendingRead,
    ) {
        let json = match identity.map(serde_json::to_string) {
            None => None,
            Some(Ok(json)) => Some(json),
            Some(Err(_)) => return,
        };
        self.keep(user, reading, |known| {
            known.identity = Some(IdentityLookup(json))
        });
    }

    fn keep(&self, user: &UserId, reading: PendingRead, put: impl FnOnce(&mut CachedUser)) {
        let mut users = self.users();
        if users.saves != reading.0 || users.recent_retryable.contains_key(user) {
            return;
        }
        if users.by_id.len() >= MAX_USERS && !users.by_id.contains_key(user) {
            users.by_id.clear();
        }
        put(users.by_id.entry(user.to_owned()).or_default());
    }

    /// Whom these changes name is not known any more, and not until [`Known::saved`].
    pub(super) fn save(&self, changes: &Changes) -> PendingSave {
        let (devices, identities) = (&changes.devices, &changes.identities);
        let devices = [&devices.new, &devices.changed, &devices.deleted];
        let devices = devices.into_iter().flatten().map(DeviceData::user_id);
        let identities = [&identities.new, &identities.changed];
        let identities = identities.into_iter().flatten();
        let identities = identities.map(UserIdentityData::user_id);
        let named: HashSet<_> = devices.chain(identities).map(ToOwned::to_owned).collect();
        if !named.is_empty() {
            let mut users = self.users();
            users.saves += 1;
            for user in &named {
                users.by_id.remove(user);
                *users.recent_retryable.entry(user.clone()).or_default() += 1;
            }
        }
        PendingSave(named)
    }

    /// The save has come back, written or not. A save that nobody waits for any more does not come here, and whom it
    /// names is read from the database for ever.
    pub(super) fn saved(&self, saving: PendingSave) {
        let mut users = self.users();
        // What was read meanwhile may be older than the save.
        users.saves += 1;
        for user in saving.0 {
            if let Some(saves) = users.recent_retryable.get_mut(&user) {
                *saves -= 1;
                if *saves == 0 {
                    users.recent_retryable.remove(&user);
                }
            }
        }
    }
}

impl BufferedCryptoStore {
    /// A user's devices as they are, the held ones in the place of the stored ones.
    pub(super) async fn current_devices(
        &self,
        user: &UserId,
    ) -> Result<HashMap<OwnedDeviceId, DeviceData>> {
        let held = self.held().clone();
        let mut devices = if let Some(devices) = self.known.devices(user) {
            devices
        } else {
            let reading = self.known.read();
            let devices = self.inner.get_user_devices(user).await?;
            self.known.cache_devices(user, &devices, reading);
            devices
        };
        held.overlay_devices(user, &mut devices);
        Ok(devices)
    }

    pub(super) async fn identity_of(&self, user: &UserId) -> Result<Option<UserIdentityData>> {
        if let Some(IdentityLookup(identity)) = self.known.identity(user) {
            return Ok(identity);
        }
        let reading = self.known.read();
        let identity = self.inner.get_user_identity(user).await?;
        self.known.cache_identity(user, identity.as_ref(), reading);
        Ok(identity)
    }

    /// Writes changes, so that what is known in memory is what is in the database whatever comes of it.
    pub(super) async fn write(&self, mut changes: Changes) -> Result<()> {
        let only_outbound = !changes.outbound_group_sessions.is_empty();
        self.outbound.take(&mut changes);
        // Two fields are not asked by `is_empty`.
        if only_outbound
            && changes.is_empty()
            && changes.room_key_backups_fully_downloaded.is_empty()
            && changes.rooms_pending_key_bundle.is_empty()
        {
            return Ok(());
        }
        let concern_people = outbound_keys::affects_recipients(&changes);
        let sessions = changes.sessions.clone();
        let news = changes.devices.new.iter().chain(&changes.devices.changed);
        let news: Vec<_> = news.map(|device| device.user_id().to_owned()).collect();
        let saving = self.known.save(&changes);
        if concern_people {
            self.outbound.recipients_changed();
        }
        let written = self.inner.save_changes(changes).await;
        self.known.saved(saving);
        let more = written.is_ok() && self.reachable.reach(&sessions);
        if concern_people || more {
            self.outbound.recipients_changed();
        }
        self.fresh.add(news);
        written
    }
}

impl std::fmt::Debug for DeviceCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Known")
            .field(&self.users().by_id.len())
            .finish()
    }
}
