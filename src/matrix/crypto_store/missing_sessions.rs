//! Devices without an Olm session, and what the SDK is shown of them while it sends.
//!
//! The SDK claims the one-time keys that it needs under a lock that every send into an encrypted room and every sync
//! takes, and waits for the answer there, up to ten seconds for a server that does not answer (matrix-sdk 0.18,
//! `encryption/mod.rs`, `claim_one_time_keys`: `key_claim_lock`; matrix-sdk-crypto 0.18, `sessions.rs`,
//! `KEY_CLAIM_TIMEOUT`). So keys are claimed by us, before and outside (`claims`), and in that lock the SDK is not shown
//! the devices for which it would claim one.
//!
//! After the lock it looks at the members anew. Who has come in between would be told that there is no session
//! (`m.no_olm`) and could never read the event: so the session is made when the SDK asks for the devices.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use matrix_sdk_crypto::{DeviceData, Session, olm::Curve25519PublicKey, store::CryptoStore as _};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::{BufferedCryptoStore, Error, Result};
use crate::key_claims::KeyClaims;

/// The most keys that are remembered. Past that the database is asked again.
const MAX_DEVICES: usize = 100_000;

/// How far the SDK is with a send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It looks for devices without a session, in its lock.
    Claiming,
    /// It looks for devices without the room's key.
    Sharing,
    /// A key is being claimed for such a device, by us.
    Ours,
}

/// A send of the SDK's.
struct SendState {
    phase: Cell<Phase>,
    claims: Arc<KeyClaims>,
}

tokio::task_local! {
    static SENDING: SendState;
}

/// Runs a send of the SDK's so that it claims nothing itself.
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
        // Nobody sends.
    }
}

/// Which devices have sessions, by their Curve25519 keys. Sessions are never deleted.
#[derive(Debug, Default)]
pub(super) struct EstablishedSessions(Mutex<SessionIndex>);

#[derive(Debug, Default)]
struct SessionIndex {
    with_session: HashSet<Curve25519PublicKey>,
    /// Of these the SDK believes that there is no session, and asks no more (matrix-sdk-crypto 0.18,
    /// `crypto_store_wrapper.rs`, `get_sessions`): a session of ours it would not see. It claims itself.
    known_missing: HashSet<String>,
}

impl EstablishedSessions {
    fn keys(&self) -> MutexGuard<'_, SessionIndex> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, key: &Curve25519PublicKey) -> bool {
        self.keys().with_session.contains(key)
    }

    /// Answers whether one of these devices was not known to have a session.
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

    /// The SDK has been told what sessions there are with a device.
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
    /// The Olm sessions with a device, held and stored, and that the SDK has been told of them.
    pub(super) async fn sessions_with(&self, sender_key: &str) -> Result<Option<Vec<Session>>> {
        let held = self.held().clone();
        let stored = self.inner.get_sessions(sender_key).await?;
        let sessions = held.overlay_sessions(sender_key, stored);
        self.reachable.answered(sender_key, sessions.is_some());
        Ok(sessions)
    }

    /// The devices of a user with which there can be an Olm session and is none.
    pub(crate) async fn devices_without_session(&self, user: &UserId) -> Result<Vec<DeviceData>> {
        let devices = self.current_devices(user).await?;
        let mut lacking = Vec::new();
        for device in devices.into_values() {
            if self.lacks_session(&device).await? {
                lacking.push(device);
            }
        }
        Ok(lacking)
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

    /// Whether the SDK would not see a session that was made for a device.
    pub(crate) fn is_left_to_sdk(&self, device: &DeviceData) -> bool {
        let key = device.curve25519_key();
        key.is_some_and(|key| self.reachable.known_missing(&key))
    }

    /// The same of one device that may have got one since.
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

    /// To be told when the SDK asks for one device: before it shares a key it asks for its own, and before it claims it
    /// does not.
    pub(super) async fn on_device_query(&self, user: &UserId, device: &DeviceId) {
        if phase() == Some(Phase::Claiming) && self.is_own(user, device).await {
            enter(Phase::Sharing);
        }
    }

    /// What the SDK is shown of a user's devices.
    pub(super) async fn shown(
        &self,
        user: &UserId,
        mut devices: HashMap<OwnedDeviceId, DeviceData>,
    ) -> Result<HashMap<OwnedDeviceId, DeviceData>> {
        let Some(phase) = phase().filter(|phase| *phase != Phase::Ours) else {
            return Ok(devices);
        };
        let mut lacking = Vec::new();
        for device in devices.values() {
            if self.lacks_session(device).await? {
                lacking.push(device.clone());
            }
        }
        if lacking.is_empty() {
            return Ok(devices);
        }
        let Ok(claims) = SENDING.try_with(|sending| sending.claims.clone()) else {
            return Ok(devices);
        };
        match phase {
            Phase::Claiming => {
                let answers = claims.answers(user);
                for device in lacking {
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
