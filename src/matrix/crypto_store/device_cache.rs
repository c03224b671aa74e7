//! Devices and identities in memory. For each event that it sends, the SDK asks its store twice for every member's
//! devices and once for their identity, and each time that is a query on another thread.
//!
//! The cache holds only what was read from the database: a save removes the users that it names before it begins, and
//! while it runs nothing that is read about them is cached. So a save that fails, or that was cancelled, leaves nothing
//! here that is not in the database.

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

/// The most users that are cached, 6 KiB each with one device. Above that the cache is cleared.
const MAX_USERS: usize = 20_000;

/// A device as it was read. Its clones share what the SDK changes in place (trust, deletion, whether `m.no_olm` was
/// sent), so these values are saved beside it as they were read.
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
    /// As JSON, because clones of an identity share what the SDK changes in place.
    identity: Option<IdentityLookup<String>>,
}

/// The result of looking up a user's identity.
struct IdentityLookup<T>(Option<T>);

#[derive(Default)]
struct CachedUsers {
    by_id: HashMap<OwnedUserId, CachedUser>,
    /// Counts the saves that have begun.
    saves: u64,
    /// Users of a save that has not returned, with the number of such saves.
    saves_in_progress: HashMap<OwnedUserId, u32>,
}

/// The cached users.
#[derive(Default)]
pub(super) struct DeviceCache(Mutex<CachedUsers>);

/// A read that has begun: its result is cached only if nothing was saved meanwhile.
#[derive(Clone, Copy)]
pub(super) struct PendingRead(u64);

/// A save that has begun.
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
            // Somebody has changed a device and not saved it.
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

    /// The cached identity; `None` if it must be read.
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
            known.identity = Some(IdentityLookup(json));
        });
    }

    fn keep(&self, user: &UserId, reading: PendingRead, put: impl FnOnce(&mut CachedUser)) {
        let mut users = self.users();
        if users.saves != reading.0 || users.saves_in_progress.contains_key(user) {
            return;
        }
        if users.by_id.len() >= MAX_USERS && !users.by_id.contains_key(user) {
            users.by_id.clear();
        }
        put(users.by_id.entry(user.to_owned()).or_default());
    }

    /// Removes the users that these changes name; they are not cached again before [`DeviceCache::saved`].
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
                *users.saves_in_progress.entry(user.clone()).or_default() += 1;
            }
        }
        PendingSave(named)
    }

    /// The save has returned, successfully or not. A cancelled save never gets here, and its users are read from the
    /// database for ever.
    pub(super) fn saved(&self, saving: PendingSave) {
        let mut users = self.users();
        // What was read meanwhile may be older than the save.
        users.saves += 1;
        for user in saving.0 {
            if let Some(saves) = users.saves_in_progress.get_mut(&user) {
                *saves -= 1;
                if *saves == 0 {
                    users.saves_in_progress.remove(&user);
                }
            }
        }
    }
}

impl BufferedCryptoStore {
    /// A user's current devices, held ones in place of stored ones.
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

    /// Writes changes so that the cache matches the database whether the write succeeds or not.
    pub(super) async fn write(&self, mut changes: Changes) -> Result<()> {
        let only_outbound = !changes.outbound_group_sessions.is_empty();
        self.outbound.take(&mut changes);
        // `is_empty` does not check two of the fields.
        if only_outbound
            && changes.is_empty()
            && changes.room_key_backups_fully_downloaded.is_empty()
            && changes.rooms_pending_key_bundle.is_empty()
        {
            return Ok(());
        }
        let affects_recipients = outbound_keys::affects_recipients(&changes);
        let sessions = changes.sessions.clone();
        let changed = changes.devices.new.iter().chain(&changes.devices.changed);
        let changed: Vec<_> = changed.map(|device| device.user_id().to_owned()).collect();
        let saving = self.known.save(&changes);
        if affects_recipients {
            self.outbound.recipients_changed();
        }
        let written = self.inner.save_changes(changes).await;
        self.known.saved(saving);
        let new_sessions = written.is_ok() && self.reachable.reach(&sessions);
        if affects_recipients || new_sessions {
            self.outbound.recipients_changed();
        }
        self.fresh.add(changed);
        written
    }
}

impl std::fmt::Debug for DeviceCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DeviceCache")
            .field(&self.users().by_id.len())
            .finish()
    }
}
