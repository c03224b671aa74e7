//! The Matrix side: one ordinary Matrix account on one device. The only package that awaits the SDK's futures; every
//! future it returns is boxed, so that other crates do not compile the SDK's futures again.

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

/// The longest time that a sync response may take. Until then a missing response says nothing about the homeserver.
pub const MAX_SYNC: Duration = sync_loop::MAX_SYNC;

/// A boxed future: the type of every future that this package returns.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The name of the sync cursor. Each room has a cursor of its own, with the newest event that was processed.
const SYNC_CURSOR: &str = "matrix";

/// The running account.
pub struct Matrix {
    client: Client,
    /// For files, which the SDK would hold in memory.
    http: reqwest::Client,
    /// The SDK's crypto store, for access without the SDK.
    keys: Arc<BufferedCryptoStore>,
    claims: Arc<KeyClaims>,
    store: Store,
    clock: Clock,
    own: OwnedUserId,
    trust: Trust,
    key_wait: Duration,
    inviters: Vec<String>,
    greeting: String,
    /// Rooms that portals name and that are not resolved yet.
    awaited_rooms: Mutex<Vec<String>>,
    /// Rooms of portals that the account has not joined.
    unjoined_rooms: Mutex<HashSet<Place>>,
    timeouts: Timeouts,
    lease: lease::Lease,
    session: session::SessionKeeper,
    verify: verify::Verifications,
    /// When this device was saved in the store: messages sent before that came from another device.
    device_since: Millis,
    /// When the last sync response arrived.
    synced: Mutex<Option<Millis>>,
    /// Whether a sync response without new events has arrived since the start.
    caught_up: AtomicBool,
    /// The sync that was in flight when the sync loop stopped.
    suspended_sync: Mutex<Option<sync_coverage::PendingSync>>,
    /// Whether the next sync has to repeat the request of a sync that failed.
    repeat_sync: AtomicBool,
    /// Room flags that are known to be set; other flags must be looked up in the store.
    flags: Mutex<HashSet<(Place, Flag)>>,
    senders: Mutex<SenderCache>,
    turns: send::RoomLocks,
    room_names: confusables::RoomNameTable,
    /// Which avatars were requested, and when.
    avatar_requests: avatars::AvatarRequests,
    rotation: KeyRotation,
    /// Which channels the rooms are linked to.
    peer_bridges: PeerBridges,
    security: SecurityMetrics,
    /// Rooms in which a plaintext event was refused and the people there have not been notified yet.
    plaintext_refused: Mutex<HashSet<Place>>,
    /// Notified when an admin has approved an identity.
    approved: Arc<Notify>,
    /// Sessions whose sender's device is not known to be cross-signed, and until when the bridge waits for the
    /// signature.
    unverified_sessions: Mutex<HashMap<String, Instant>>,
    /// The senders of these sessions, until their devices have been queried.
    unknown_senders: Mutex<HashSet<String>>,
    /// Rooms that the store has recorded as unencrypted.
    plaintext_rooms: Mutex<HashSet<Place>>,
    /// Which senders have devices that are not cross-signed.
    unsigned_notices: Mutex<unsigned_devices::UnsignedNotices>,
    /// When to check the events that wait for a room key.
    watch: Mutex<undecryptable::WaitTimer>,
    /// The number of events that audits found and no sync had returned, since the start.
    missed: AtomicU64,
}

impl Matrix {
    /// Restores the session that the store holds: opens the SDK's databases in the store's directory, replaces the
    /// SDK's sync cursor by the bridge's, then restores the session. Never logs in. Needs no network.
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
                key: &key.derive(account::KEY_PURPOSE),
                trust,
                http: http.clone(),
            })
            .await?;
            keys.pins().load(&store, clock).await?;
            put_cursor(&client, store.cursor(SYNC_CURSOR).await?).await?;
            account::restore(&client, &account.session).await?;
            trust::recheck(&keys).await?;
            let session = session::SessionKeeper::of(&client, &store, &account.session, clock)?;
            let lease = lease::Lease::of(&store, key);
            cross_signing::require_signed_device(&client).await?;
            let unsigned_notices = unsigned_devices::UnsignedNotices::learn(&store).await?;
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
                avatar_requests: avatars::AvatarRequests::default(),
                rotation: KeyRotation::default(),
                peer_bridges: PeerBridges::default(),
                security: SecurityMetrics::default(),
                plaintext_refused: Mutex::default(),
                approved: Arc::default(),
                unverified_sessions: Mutex::default(),
                unknown_senders: Mutex::default(),
                plaintext_rooms: Mutex::default(),
                unsigned_notices: Mutex::new(unsigned_notices),
                watch: Mutex::new(undecryptable::WaitTimer::new()),
                missed: AtomicU64::new(0),
            }))
        })
    }

    /// Takes the lease of the account. Refuses a store that is an old copy, or of which another copy is in use. Neither
    /// side may send anything before. Waits while the homeserver does not answer. Returns whether the lease was taken;
    /// `false` when stopped.
    pub fn take_up(&self, stop: CancellationToken) -> Boxed<'_, Result<bool, MatrixError>> {
        Box::pin(async move { self.acquire_lease(&stop).await })
    }

    /// Finds a room by alias or id.
    pub fn resolve<'a>(&'a self, room: &'a str) -> Boxed<'a, Result<Place, MatrixError>> {
        Box::pin(rooms::resolve(&self.client, room))
    }

    /// Runs the sync loop until stopped: accepts invites to these rooms and from the configured inviters, refuses other
    /// invites, and accepts the messages into the inbox. Returns early only when it cannot continue by itself. It can
    /// be called again afterwards, for example with one room more, but never twice at the same time.
    pub fn listen(
        &self,
        rooms: Vec<Place>,
        inbox: Inbox,
        stop: CancellationToken,
    ) -> Boxed<'_, Result<(), MatrixError>> {
        Box::pin(sync_loop::listen(self, rooms, inbox, stop))
    }

    /// How many events were refused by the trust policy since the start, by class.
    #[must_use]
    pub fn security_counts(&self) -> BTreeMap<String, u64> {
        self.security.counts()
    }

    /// How many events the homeserver's syncs had omitted, as audits of the rooms' history found, since the start.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// When the last sync response arrived, if any.
    #[must_use]
    pub fn last_sync(&self) -> Option<Millis> {
        *self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last sync that has ended was answered.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        !self.repeat_sync.load(Ordering::SeqCst)
    }

    /// Whether the bridge has accepted everything that the homeserver had at the start, and no event is held until its
    /// sender's device is known.
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

    /// Whether the room is encrypted or ever was.
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
        let is_set = self.store.flag(place, flag).await?;
        if is_set {
            self.remember_flags([flag_of]);
        }
        Ok(is_set)
    }

    /// Records, for ever, that the room is encrypted.
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

    /// Remembers flags that the store has saved.
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

/// Replaces the SDK's sync cursor by the bridge's. The SDK moves its cursor before the events are processed; the
/// bridge's cursor moves in the transaction that writes the journal. Passing the cursor as an argument is not enough:
/// the SDK drops a response that ends at the cursor it already has.
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
        MatrixError::CryptoStore(format!("the SDK's store could not be written: {error}"))
    })
}

/// The name of a room's cursor.
fn room_cursor_name(place: &Place) -> String {
    place.as_str().to_owned()
}
