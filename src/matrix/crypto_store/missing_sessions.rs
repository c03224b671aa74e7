//! Devices without an Olm session, and which of them the SDK sees while it sends.
//!
//! The SDK claims the one-time keys that it needs under a lock that every send into an encrypted room and every sync
//! takes, and waits for the response there, up to ten seconds for a server that does not answer (matrix-sdk 0.18,
//! `encryption/mod.rs`, `claim_one_time_keys`: `key_claim_lock`; matrix-sdk-crypto 0.18, `sessions.rs`,
//! `KEY_CLAIM_TIMEOUT`). So the bridge claims keys itself, before and outside of that lock (`key_claims`), and inside
//! of it this store hides from the SDK the devices for which the SDK would claim one.
//!
//! After the lock the SDK reads the members again. A device that was added in between would get the message that there is no
//! session (`m.no_olm`) and could never read the event: so the session is established when the SDK reads the devices.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use matrix_sdk_crypto::{DeviceData, Session, olm::Curve25519PublicKey, store::CryptoStore as _};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::{BufferedCryptoStore, Error, Result};
use crate::key_claims::KeyClaims;

/// The most keys that are remembered. Above that the database is read again.
const MAX_DEVICES: usize = 100_000;

/// The phase of a send of the SDK.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The SDK looks for devices without a session, under its lock.
    Claiming,
    /// The SDK looks for devices without the room key.
    Sharing,
    /// The bridge claims a key for such a device.
    Ours,
}

/// A send of the SDK.
struct SendState {
    phase: Cell<Phase>,
    claims: Arc<KeyClaims>,
}

tokio::task_local! {
    static SENDING: SendState;
}

/// Runs a send of the SDK so that the SDK claims no keys itself.
pub(crate) fn sending<F: Future>(
    claims: &Arc<KeyClaims>,
    send: F,
) -> impl Future<Output = F::Output> {
    let sending = SendState {
        phase: Cell::new(Phase::Claiming),
        claims: claims.clone(),
    };
    SENDING.scope(sending, send)
}

fn phase() -> Option<Phase> {
    SENDING.try_with(|sending| sending.phase.get()).ok()
}

fn enter(phase: Phase) {
    if SENDING
        .try_with(|sending| sending.phase.set(phase))
        .is_err()
    {
        // No send is running.
    }
}

/// Which devices have sessions, by their Curve25519 keys. Sessions are never deleted.
#[derive(Debug, Default)]
pub(super) struct EstablishedSessions(Mutex<SessionIndex>);

#[derive(Debug, Default)]
struct SessionIndex {
    with_session: HashSet<Curve25519PublicKey>,
    /// For these the SDK has cached that there is no session and does not ask again (matrix-sdk-crypto 0.18,
    /// `crypto_store_wrapper.rs`, `get_sessions`): it would not see a session that the bridge makes, so it claims the
    /// key itself.
    known_missing: HashSet<String>,
}

impl EstablishedSessions {
    fn keys(&self) -> MutexGuard<'_, SessionIndex> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, key: &Curve25519PublicKey) -> bool {
        self.keys().with_session.contains(key)
    }

    /// Returns whether one of these devices was not known to have a session.
    pub(super) fn reach(&self, sessions: &[Session]) -> bool {
        let mut keys = self.keys();
        if keys.with_session.len() >= MAX_DEVICES {
            keys.with_session.clear();
        }
        let mut more = false;
        for session in sessions {
            more |= keys.with_session.insert(session.sender_key());
        }
        more
    }

    /// Records whether the SDK got an answer that there are sessions with a device.
    pub(super) fn answered(&self, sender_key: &str, found: bool) {
        let mut keys = self.keys();
        if found {
            keys.known_missing.remove(sender_key);
        } else if keys.known_missing.len() < MAX_DEVICES {
            keys.known_missing.insert(sender_key.to_owned());
        }
    }

    fn known_missing(&self, key: &Curve25519PublicKey) -> bool {
        self.keys().known_missing.contains(&key.to_base64())
    }
}

impl BufferedCryptoStore {
    /// The Olm sessions with a device, held and stored. Records what the SDK was returned.
    pub(super) async fn sessions_with(&self, sender_key: &str) -> Result<Option<Vec<Session>>> {
        let held = self.held().clone();
        let stored = self.inner.get_sessions(sender_key).await?;
        let sessions = held.overlay_sessions(sender_key, stored);
        self.reachable.answered(sender_key, sessions.is_some());
        Ok(sessions)
    }

    /// The devices of a user that support Olm and have no Olm session.
    pub(crate) async fn devices_without_session(&self, user: &UserId) -> Result<Vec<DeviceData>> {
        let devices = self.current_devices(user).await?;
        let mut missing = Vec::new();
        for device in devices.into_values() {
            if self.lacks_session(&device).await? {
                missing.push(device);
            }
        }
        Ok(missing)
    }

    async fn lacks_session(&self, device: &DeviceData) -> Result<bool> {
        let Some(key) = device.curve25519_key().filter(|_| device.supports_olm()) else {
            return Ok(false);
        };
        if self.reachable.has(&key) || self.is_own(device.user_id(), device.device_id()).await {
            return Ok(false);
        }
        let sender_key = key.to_base64();
        let held = self.held().overlay_sessions(&sender_key, None);
        if held.is_some() {
            return Ok(false);
        }
        let stored = self.inner.get_sessions(&sender_key).await?;
        self.reachable.reach(stored.as_deref().unwrap_or_default());
        Ok(stored.is_none())
    }

    /// Whether the SDK would not see a session that the bridge makes for a device.
    pub(crate) fn is_left_to_sdk(&self, device: &DeviceData) -> bool {
        let key = device.curve25519_key();
        key.is_some_and(|key| self.reachable.known_missing(&key))
    }

    /// Whether a device still has no session, after a task that may have established one.
    pub(crate) async fn still_lacks_session(&self, device: &DeviceData) -> Result<bool> {
        self.lacks_session(device).await
    }

    async fn is_own(&self, user: &UserId, device: &DeviceId) -> bool {
        let own = self.own.get_or_try_init(|| async {
            let own = self.inner.get_own_device().await?;
            Ok::<_, Error>((own.user_id().to_owned(), own.device_id().to_owned()))
        });
        own.await.is_ok_and(|own| own.0 == user && own.1 == device)
    }

    /// Must be called when the SDK reads one device: before it shares a key it reads its own device, and before it
    /// claims keys it does not.
    pub(super) async fn on_device_query(&self, user: &UserId, device: &DeviceId) {
        if phase() == Some(Phase::Claiming) && self.is_own(user, device).await {
            enter(Phase::Sharing);
        }
    }

    /// The devices of a user that the SDK may see.
    pub(super) async fn shown(
        &self,
        user: &UserId,
        mut devices: HashMap<OwnedDeviceId, DeviceData>,
    ) -> Result<HashMap<OwnedDeviceId, DeviceData>> {
        let Some(phase) = phase().filter(|phase| *phase != Phase::Ours) else {
            return Ok(devices);
        };
        let mut missing = Vec::new();
        for device in devices.values() {
            if self.lacks_session(device).await? {
                missing.push(device.clone());
            }
        }
        if missing.is_empty() {
            return Ok(devices);
        }
        let Ok(claims) = SENDING.try_with(|sending| sending.claims.clone()) else {
            return Ok(devices);
        };
        match phase {
            Phase::Claiming => {
                let answers = claims.answers(user);
                for device in missing {
                    if !(answers && self.is_left_to_sdk(&device)) {
                        devices.remove(device.device_id());
                    }
                }
            }
            Phase::Sharing | Phase::Ours => {
                enter(Phase::Ours);
                claims
                    .establish_new_sessions(&[OwnedUserId::from(user)])
                    .await;
                enter(Phase::Sharing);
            }
        }
        Ok(devices)
    }
}
