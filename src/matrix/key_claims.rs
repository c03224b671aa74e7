//! Olm sessions that are established ahead of need. A room key reaches a device through an Olm session, and for a
//! session one of the device's one-time keys must be claimed from its owner's server. That is done here, in batches,
//! for one server at a time, when members and devices become known and once more before a send; the SDK would do it in
//! the middle of a send, for all at once, under a lock that blocks all other rooms
//! (`crypto_store/missing_sessions.rs`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use matrix_sdk::{
    Client, Room, RoomMemberships,
    ruma::{
        OneTimeKeyAlgorithm, OwnedDeviceId, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName,
        UserId,
        api::client::keys::claim_keys::v3::{Request, Response},
    },
};
use matrix_sdk_crypto::{
    Account, DeviceData,
    store::{CryptoStore as _, types::Changes},
};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::crypto_store::BufferedCryptoStore;

/// The number of one-time keys that are claimed with one request.
const BATCH: usize = 100;
/// How long the account's homeserver waits for another one.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(10);
/// The wait after a first failure; doubled with each further one, up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_mins(1);
/// The longest wait between two tries.
const MAX_RETRY: Duration = Duration::from_hours(1);
/// The most devices and servers whose failures are remembered.
const MAX_FAILURES: usize = 100_000;
/// How long to wait for further devices once one was saved.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// The number of sessions between two yields. Each takes some tenths of a millisecond, and other tasks must run.
const SESSIONS_PER_YIELD: usize = 8;

/// A claim that failed, and when it is retried.
#[derive(Clone, Copy, Debug)]
struct FailedClaim {
    times: u32,
    until: Instant,
}

impl FailedClaim {
    fn once_more(before: Option<&Self>) -> Self {
        let times = before.map_or(0, |failed| failed.times + 1);
        let wait = FIRST_RETRY * 2_u32.saturating_pow(times.min(10));
        Self {
            times,
            until: Instant::now() + wait.min(MAX_RETRY),
        }
    }
}

#[derive(Debug, Default)]
struct FailedClaims {
    devices: HashMap<(OwnedUserId, OwnedDeviceId), FailedClaim>,
    /// The users of those devices, current or former: the next try removes the latter.
    users: HashSet<OwnedUserId>,
    servers: HashMap<OwnedServerName, FailedClaim>,
}

impl FailedClaims {
    /// Whether a server has not failed, or is to be retried. Devices that are left to the SDK are in none of the
    /// bridge's claims: if a failure did not expire, nothing would ever claim their keys again.
    fn answers(&self, server: &ServerName) -> bool {
        let failed = self.servers.get(server);
        failed.is_none_or(|failed| failed.until <= Instant::now())
    }
}

/// Establishes Olm sessions.
#[derive(Debug)]
pub(super) struct KeyClaims {
    client: Client,
    keys: Arc<BufferedCryptoStore>,
    failures: Mutex<FailedClaims>,
    /// One claim per server at a time, so that no device's key is claimed twice.
    turns: Mutex<HashMap<OwnedServerName, Arc<tokio::sync::Mutex<()>>>>,
}

/// Why a key is claimed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClaimPurpose {
    /// For a send that waits: what has failed before is not retried.
    Send,
    /// Ahead of need.
    Ahead,
}

impl KeyClaims {
    pub(super) fn of(client: &Client, keys: &Arc<BufferedCryptoStore>) -> Arc<Self> {
        Arc::new(Self {
            client: client.clone(),
            keys: keys.clone(),
            failures: Mutex::default(),
            turns: Mutex::default(),
        })
    }

    /// Establishes sessions with the members of a room before a send.
    pub(super) async fn before_send(&self, room: &Room) {
        let store = self.client.state_store();
        match store
            .get_user_ids(room.room_id(), RoomMemberships::ACTIVE)
            .await
        {
            Ok(members) => self.establish_new_sessions(&members).await,
            // The SDK reads the same and reports the error.
            Err(error) => debug!(error = %error, "Failed to read the members of a room"),
        }
    }

    /// Establishes sessions with all devices of these users for which that has not failed before.
    pub(super) async fn establish_new_sessions(&self, users: &[OwnedUserId]) {
        self.establish(users, ClaimPurpose::Send).await;
    }

    /// Establishes sessions with all devices of these users.
    pub(super) async fn establish_sessions(&self, users: &[OwnedUserId]) {
        self.establish(users, ClaimPurpose::Ahead).await;
    }

    /// Whether the user's server has answered the last claim, or is to be retried.
    pub(super) fn answers(&self, user: &UserId) -> bool {
        self.failures().answers(user.server_name())
    }

    /// Establishes sessions with the members of these rooms, and with users whose devices become known or change. Never
    /// returns.
    pub(super) async fn follow(&self, rooms: &[OwnedRoomId]) {
        self.establish_sessions(&self.members(rooms, |_| true).await)
            .await;
        loop {
            let users = match timeout(FIRST_RETRY, self.keys.fresh()).await {
                Ok(fresh) => {
                    // The response to a device query is saved in parts; wait for all of them.
                    sleep(DEBOUNCE).await;
                    self.members(rooms, |user| fresh.contains(user)).await
                }
                Err(_) if self.has_failed() => {
                    self.members(rooms, |user| self.is_failed(user)).await
                }
                Err(_) => continue,
            };
            self.establish_sessions(&users).await;
        }
    }

    fn has_failed(&self) -> bool {
        let failures = self.failures();
        !failures.devices.is_empty() || !failures.servers.is_empty()
    }

    fn is_failed(&self, user: &UserId) -> bool {
        let failures = self.failures();
        let servers = &failures.servers;
        servers.contains_key(user.server_name()) || failures.users.contains(user)
    }

    /// The members of those of these rooms that are encrypted, filtered by `wanted`.
    async fn members(
        &self,
        rooms: &[OwnedRoomId],
        wanted: impl Fn(&UserId) -> bool,
    ) -> Vec<OwnedUserId> {
        let mut users = BTreeSet::new();
        for id in rooms {
            let room = self.client.get_room(id);
            if !room.is_some_and(|room| room.encryption_state().is_encrypted()) {
                continue;
            }
            let store = self.client.state_store();
            if let Ok(members) = store.get_user_ids(id, RoomMemberships::ACTIVE).await {
                users.extend(members);
            }
        }
        users.into_iter().filter(|user| wanted(user)).collect()
    }

    fn failures(&self) -> MutexGuard<'_, FailedClaims> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn establish(&self, users: &[OwnedUserId], reason: ClaimPurpose) {
        let mut servers: BTreeMap<OwnedServerName, Vec<DeviceData>> = BTreeMap::new();
        for user in users {
            let missing = match self.keys.devices_without_session(user).await {
                Ok(missing) => missing,
                Err(error) => {
                    debug!(error = %error, "Failed to read the devices of a user");
                    continue;
                }
            };
            let missing = missing
                .into_iter()
                .filter(|device| self.is_due(device, reason) && !self.keys.is_left_to_sdk(device));
            let missing: Vec<_> = missing.collect();
            if !missing.is_empty() {
                let server = user.server_name().to_owned();
                servers.entry(server).or_default().extend(missing);
            }
        }
        let servers = servers
            .into_iter()
            .map(|(server, devices)| self.at_server(server, devices, reason));
        join_all(servers).await;
    }

    fn is_due(&self, device: &DeviceData, reason: ClaimPurpose) -> bool {
        let failures = self.failures();
        let id = (device.user_id().to_owned(), device.device_id().to_owned());
        let server = failures.servers.get(device.user_id().server_name());
        let mut failed = server.into_iter().chain(failures.devices.get(&id));
        match reason {
            ClaimPurpose::Send => failed.next().is_none(),
            ClaimPurpose::Ahead => failed.all(|failed| failed.until <= Instant::now()),
        }
    }

    async fn at_server(
        &self,
        server: OwnedServerName,
        devices: Vec<DeviceData>,
        reason: ClaimPurpose,
    ) {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(server).or_default().clone()
        };
        let _turn = turn.lock_owned().await;
        for batch in devices.chunks(BATCH) {
            // The previous holder of the lock may have established them, or may have found that the server does not
            // answer.
            let mut wanted = Vec::with_capacity(batch.len());
            for device in batch {
                if !self.is_due(device, reason) {
                    continue;
                }
                let lacks_session = self.keys.still_lacks_session(device).await;
                if lacks_session.unwrap_or(true) {
                    wanted.push(device.clone());
                }
            }
            if !wanted.is_empty() {
                self.claim(&wanted).await;
            }
        }
    }

    async fn claim(&self, devices: &[DeviceData]) {
        let mut wanted: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>> =
            BTreeMap::new();
        for device in devices {
            let of_user = wanted.entry(device.user_id().to_owned()).or_default();
            let algorithm = OneTimeKeyAlgorithm::SignedCurve25519;
            of_user.insert(device.device_id().to_owned(), algorithm);
        }
        let mut request = Request::new(wanted);
        request.timeout = Some(CLAIM_TIMEOUT);
        match self.client.send(request).await {
            Ok(response) => {
                if let Err(error) = self.take(devices, &response).await {
                    warn!(error = %error, "Failed to save Olm sessions");
                }
            }
            // The account's own homeserver: the next claim, or the send, will report it.
            Err(error) => warn!(error = %error, "Failed to claim one-time keys"),
        }
    }

    /// Establishes and saves the sessions that a response allows, and remembers the rest as failed.
    async fn take(&self, devices: &[DeviceData], response: &Response) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let account = self.keys.load_account().await.map_err(|e| text(&e))?;
        let account = account.ok_or("there is no account")?;
        let own = self.keys.get_own_device().await.map_err(|e| text(&e))?;
        let mut changes = Changes::default();
        let mut failed = Vec::new();
        for (at, device) in devices.iter().enumerate() {
            if at % SESSIONS_PER_YIELD == SESSIONS_PER_YIELD - 1 {
                tokio::task::yield_now().await;
            }
            match session(&account, device, &own, response) {
                Ok(session) => changes.sessions.push(session),
                Err(reason) => failed.push((device, reason)),
            }
        }
        self.note(devices, &failed, response);
        if changes.sessions.is_empty() {
            return Ok(());
        }
        debug!(
            sessions = changes.sessions.len(),
            "Created Olm sessions in advance"
        );
        self.keys.save_changes(changes).await.map_err(|e| text(&e))
    }

    fn note(&self, devices: &[DeviceData], failed: &[(&DeviceData, String)], response: &Response) {
        let mut failures = self.failures();
        if failures.devices.len() >= MAX_FAILURES || failures.servers.len() >= MAX_FAILURES {
            *failures = FailedClaims::default();
        }
        let unanswered = |device: &DeviceData| {
            response
                .failures
                .contains_key(device.user_id().server_name().as_str())
        };
        for device in devices.iter().filter(|device| !unanswered(device)) {
            failures.servers.remove(device.user_id().server_name());
            if !failed.iter().any(|(other, _)| std::ptr::eq(*other, device)) {
                let id = (device.user_id().to_owned(), device.device_id().to_owned());
                failures.devices.remove(&id);
            }
        }
        if failures.devices.is_empty() {
            failures.users.clear();
        }
        for server in response.failures.keys() {
            if let Ok(server) = OwnedServerName::try_from(server.as_str()) {
                let again = FailedClaim::once_more(failures.servers.get(&server));
                failures.servers.insert(server, again);
            }
        }
        for (device, reason) in failed.iter().filter(|(device, _)| !unanswered(device)) {
            let id = (device.user_id().to_owned(), device.device_id().to_owned());
            debug!(user = %id.0, device = %id.1, reason, "No Olm session with a device");
            let again = FailedClaim::once_more(failures.devices.get(&id));
            failures.users.insert(id.0.clone());
            failures.devices.insert(id, again);
        }
    }
}

fn session(
    account: &Account,
    device: &DeviceData,
    own: &DeviceData,
    response: &Response,
) -> Result<matrix_sdk_crypto::Session, String> {
    let keys = response.one_time_keys.get(device.user_id());
    let keys = keys.and_then(|devices| devices.get(device.device_id()));
    let keys = keys.ok_or("its server has no one-time key for it")?;
    account
        .create_outbound_session(device, keys, own.as_device_keys().clone())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::server_name;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_failed_is_asked_again_when_its_time_has_come() {
        let mut failures = FailedClaims::default();
        let server = server_name!("away.example");
        assert!(failures.answers(server));
        failures
            .servers
            .insert(server.to_owned(), FailedClaim::once_more(None));
        assert!(!failures.answers(server));
        tokio::time::advance(FIRST_RETRY).await;
        assert!(failures.answers(server));
    }
}
