//! The Matrix side: one ordinary account on one device. The only room that awaits the SDK's futures; all it
//! hands out is boxed, so that nobody else compiles them again.

pub mod account;
pub mod session;
mod databases;
mod lease;
pub mod verify;
pub mod device_reset;
mod client;
mod config;
mod crypto_store;
mod key_claims;
mod pending_sessions;
mod cross_signing;
mod security_metrics;
mod audit;
mod identity_pins;
mod trust;
mod trust_policy;
mod decrypt;
mod key_rotation;
mod sync_coverage;
mod sync_loop;
mod olm;
mod sync_response;
mod encryption_boundary;
mod plaintext_rooms;
mod timeline;
mod panic_guard;
mod event_fields;
mod processed_event;
mod commands;
mod power_levels;
mod room_profile;
mod relation;
mod gaps;
mod history_pages;
mod late_keys;
mod undecryptable;
mod unsigned_devices;
mod duplicate_keys;
mod rooms;
mod invites;
mod unjoined_rooms;
mod sender_cache;
mod send;
mod encrypted_send;
mod read_back;
mod bundle_edits;
mod caption;
mod reactions;
mod encryption_states;
mod encryption_guard;
mod confusables;
mod avatars;
mod media;
mod unanswered_sends;
mod previous_text;
pub mod convert;
mod error;
mod request_error;
#[cfg(feature = "testbed")]
pub mod person;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use footbridge_core::{clock::Clock, inbox::Inbox, peer_bridges::PeerBridges};
use footbridge_store::{Batch, Flag, Millis, Place, Store, StoreKey};
use matrix_sdk::{
    Client, Room,
    ruma::{OwnedUserId, RoomId},
    store::{StateStoreDataKey, StateStoreDataValue},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::{
    config::{Homeserver, MatrixConfig, Timeouts, Trust},
    error::MatrixError,
    power_levels::{MemberRights, Successor},
    trust::Approved,
};
use self::{
    crypto_store::BufferedCryptoStore, key_claims::KeyClaims, key_rotation::KeyRotation,
    security_metrics::SecurityMetrics, sender_cache::SenderCache,
};

/// The longest that the answer to a sync may take. Until then its absence says nothing.
pub const MAX_SYNC: Duration = sync_loop::MAX_SYNC;

/// A boxed future: what this side hands out.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The cursor of the sync. Beside it stands one per room, with the newest event that was walked.
const SYNC_CURSOR: &str = "matrix";

/// The running account.
pub struct Matrix {
    client: Client,
    /// For files, which the SDK would hold in memory.
    http: reqwest::Client,
    /// The encryption store, past the SDK.
    keys: Arc<BufferedCryptoStore>,
    claims: Arc<KeyClaims>,
    store: Store,
    clock: Clock,
    own: OwnedUserId,
    trust: Trust,
    key_wait: Duration,
    inviters: Vec<String>,
    greeting: String,
    /// Rooms that portals name which are not open yet.
    awaited_rooms: Mutex<Vec<String>>,
    /// Rooms of portals that we are known not to be in.
    unjoined_rooms: Mutex<HashSet<Place>>,
    timeouts: Timeouts,
    lease: lease::Lease,
    session: session::SessionKeeper,
    verify: verify::Verifications,
    /// When our device was kept in the store: what was sent before, another one sent.
    device_since: Millis,
    /// When the last sync was answered.
    synced: Mutex<Option<Millis>>,
    /// Whether a sync has brought nothing, since the start.
    caught_up: AtomicBool,
    /// The sync that was on its way when listening stopped.
    suspended_sync: Mutex<Option<sync_coverage::PendingSync>>,
    /// Whether the next sync asks again for what one that failed has asked for.
    repeat_sync: AtomicBool,
    /// Flags of rooms known to be raised; what is not here must be looked up.
    flags: Mutex<HashSet<(Place, Flag)>>,
    senders: Mutex<SenderCache>,
    turns: send::RoomLocks,
    room_names: confusables::RoomNameTable,
    /// For pictures of people.
    asked: avatars::AvatarRequests,
    rotation: KeyRotation,
    /// Which channels rooms are joined to.
    peer_bridges: PeerBridges,
    alarms: SecurityMetrics,
    /// Rooms in which something in the clear did not cross, until people there were told.
    plaintext_refused: Mutex<HashSet<Place>>,
    /// Rung when somebody in charge has accepted an identity.
    approved: Arc<Notify>,
    /// Sessions whose sender's device is not known to be signed, and until when that may change.
    unverified_sessions: Mutex<HashMap<String, Instant>>,
    /// Their senders, until somebody has asked for their devices.
    unknown_senders: Mutex<HashSet<String>>,
    /// Rooms known to be noted as standing in the clear.
    plaintext_rooms: Mutex<HashSet<Place>>,
    /// Whose devices are not signed.
    unsigned_notices: Mutex<unsigned_devices::UnsignedNotices>,
    /// When to look at what waits for its key.
    watch: Mutex<undecryptable::WaitTimer>,
    /// Events that audits found and no sync had brought, since the start.
    missed: AtomicU64,
}

impl Matrix {
    /// Restores the session kept in the store: opens the SDK's stores in the store's directory, puts our cursor
    /// over the SDK's, then restores. Never logs in. Needs no network.
    #[must_use]
    pub fn open(
        store: Store,
        key: &StoreKey,
        config: MatrixConfig,
        trust: Trust,
        http: reqwest::Client,
        clock: Clock,
    ) -> Boxed<'_, Result<Arc<Self>, MatrixError>> {
        Box::pin(async move {
            let account = store.account().await?.ok_or(MatrixError::NoAccount)?;
            account::check_user(&account.info, &config)?;
            let interrupted =
                account.info.ed25519.is_none() && store.former_device().await?.is_some();
            if interrupted {
                return Err(MatrixError::Identity(
                    "a reset of the device was interrupted; `footbridge login` finishes it".into(),
                ));
            }
            let directory = account::directory(&store);
            databases::require_databases(&directory)?;
            let (client, keys) = client::build_with_keys(client::ClientOptions {
                homeserver: &account::homeserver(&account.info, &config)?,
                directory: &directory,
                key: Some(&key.derive(account::KEY_PURPOSE)),
                trust,
                http: http.clone(),
            })
            .await?;
            keys.pins().load(&store, clock).await?;
            put_cursor(&client, store.cursor(SYNC_CURSOR).await?).await?;
            account::restore(&client, &account.session).await?;
            trust::look(&keys).await?;
            let session = session::SessionKeeper::of(&client, &store, &account.session, clock)?;
            let lease = lease::Lease::of(&store, key);
            cross_signing::require_signed_device(&client).await?;
            let standing = unsigned_devices::UnsignedNotices::learn(&store).await?;
            Ok(Arc::new(Self {
                own: client.user_id().ok_or(MatrixError::NoAccount)?.to_owned(),
                claims: KeyClaims::of(&client, &keys),
                client,
                http,
                keys,
                store,
                clock,
                trust,
                key_wait: config.key_wait,
                verify: verify::Verifications::with(config.admins, config.timeouts.verification),
                inviters: config.inviters,
                greeting: config.greeting,
                awaited_rooms: Mutex::default(),
                unjoined_rooms: Mutex::default(),
                timeouts: config.timeouts,
                lease,
                session,
                device_since: account.since,
                synced: Mutex::default(),
                caught_up: AtomicBool::new(false),
                suspended_sync: Mutex::default(),
                repeat_sync: AtomicBool::new(true),
                flags: Mutex::default(),
                senders: Mutex::default(),
                turns: send::RoomLocks::default(),
                room_names: confusables::RoomNameTable::default(),
                asked: avatars::AvatarRequests::default(),
                rotation: KeyRotation::default(),
                peer_bridges: PeerBridges::default(),
                alarms: SecurityMetrics::default(),
                plaintext_refused: Mutex::default(),
                approved: Arc::default(),
                unverified_sessions: Mutex::default(),
                unknown_senders: Mutex::default(),
                plaintext_rooms: Mutex::default(),
                unsigned_notices: Mutex::new(standing),
                watch: Mutex::new(undecryptable::WaitTimer::new()),
                missed: AtomicU64::new(0),
            }))
        })
    }

    /// Takes up the account: refuses where this store is an old copy, or another copy of it is in use. Nothing may be
    /// sent anywhere before, by either side. Waits while the homeserver does not answer; answers whether it was taken
    /// up: not when told to stop.
    pub fn take_up(&self, stop: CancellationToken) -> Boxed<'_, Result<bool, MatrixError>> {
        Box::pin(async move { self.acquire_lease(&stop).await })
    }

    /// Finds a room by alias or id.
    pub fn resolve<'a>(&'a self, room: &'a str) -> Boxed<'a, Result<Place, MatrixError>> {
        Box::pin(rooms::resolve(&self.client, room))
    }

    /// Follows the account until told to stop: accepts invites to these rooms and those of people whom the operator has
    /// named, refuses others, takes in their messages. Returns early only when it cannot go on by itself. It can be called again afterwards, for
    /// example with one room more; never twice at the same time.
    pub fn listen(
        &self,
        rooms: Vec<Place>,
        inbox: Inbox,
        stop: CancellationToken,
    ) -> Boxed<'_, Result<(), MatrixError>> {
        Box::pin(sync_loop::listen(self, rooms, inbox, stop))
    }

    /// What was refused for the sake of trust since the start, by class.
    #[must_use]
    pub fn security_counts(&self) -> BTreeMap<String, u64> {
        self.alarms.counts()
    }

    /// How many events the homeserver's syncs had left out when their rooms were compared with its history, since the start.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// When the last sync was answered, if any was.
    #[must_use]
    pub fn last_sync(&self) -> Option<Millis> {
        *self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last sync that was asked for and has ended was answered.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        !self.repeat_sync.load(Ordering::SeqCst)
    }

    /// Whether everything has been taken in that the homeserver had at the start, and nothing of it is held for news of
    /// its sender's device.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::SeqCst) && self.next_deadline().is_none()
    }

    /// Per joined room: whether it is encrypted, as far as the SDK knows.
    #[must_use]
    pub fn encryption(&self) -> Boxed<'_, HashMap<Place, bool>> {
        let rooms = self.client.joined_rooms();
        Box::pin(async move {
            rooms
                .iter()
                .map(|room| {
                    let encrypted = room.encryption_state().is_encrypted();
                    (Place::room(room.room_id().as_str()), encrypted)
                })
                .collect()
        })
    }

    fn room(&self, place: &Place) -> Option<Room> {
        let id = <&RoomId>::try_from(place.address()).ok()?;
        self.client.get_room(id)
    }

    fn synced(&self) {
        *self.synced.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.now());
    }

    /// Whether the room is or ever was encrypted.
    async fn was_encrypted(&self, place: &Place) -> Result<bool, footbridge_store::Error> {
        self.flagged(place, Flag::EverEncrypted).await
    }

    async fn flagged(&self, place: &Place, flag: Flag) -> Result<bool, footbridge_store::Error> {
        let flag_of = (place.clone(), flag);
        let known = self
            .flags
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&flag_of);
        if known {
            return Ok(true);
        }
        let raised = self.store.flag(place, flag).await?;
        if raised {
            self.remember_flags([flag_of]);
        }
        Ok(raised)
    }

    /// Writes down that the room is encrypted, for ever.
    async fn raise_encrypted(&self, place: &Place) -> Result<(), footbridge_store::Error> {
        let flags = vec![(place.clone(), Flag::EverEncrypted)];
        self.store
            .accept(
                Batch {
                    flags: flags.clone(),
                    ..Batch::default()
                },
                self.clock.now(),
            )
            .await?;
        self.remember_flags(flags);
        Ok(())
    }

    /// Once they are written down.
    fn remember_flags(&self, flags: impl IntoIterator<Item = (Place, Flag)>) {
        self.flags
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(flags);
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matrix").finish_non_exhaustive()
    }
}

/// Puts our cursor where the SDK looks for its own. The SDK moves its cursor before anyone has seen the events;
/// ours moves with the journal. Handing ours over as an argument is not enough: an answer that ends where the
/// SDK believes to be already is thrown away.
async fn put_cursor(client: &Client, cursor: Option<String>) -> Result<(), MatrixError> {
    let store = client.state_store();
    let key = StateStoreDataKey::SyncToken;
    let put = match cursor {
        Some(cursor) => {
            store
                .set_kv_data(key, StateStoreDataValue::SyncToken(cursor))
                .await
        }
        None => store.remove_kv_data(key).await,
    };
    put.map_err(|error| {
        MatrixError::CryptoStore(format!("the SDK's store cannot be written: {error}"))
    })
}

/// The name of a room's cursor.
fn room_cursor_name(place: &Place) -> String {
    place.as_str().to_owned()
}
