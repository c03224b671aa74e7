//! The Matrix side: one ordinary Matrix account on one device. The only package that awaits the SDK's futures; every
//! future it returns is boxed, so that other crates do not compile the SDK's futures again.

pub mod account;
mod account_client;
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
mod identities;
mod trust_policy;
mod decrypt;
mod key_rotation;
mod refusals;
mod sync_coverage;
mod sync_loop;
mod sync_state;
mod olm;
mod sync_response;
mod encryption_boundary;
mod plaintext_rooms;
mod timeline;
mod event_reader;
mod event_fields;
mod processed_event;
mod commands;
mod power_levels;
mod room_state;
mod room_access;
mod room_profile;
mod relation;
mod gaps;
mod history_pages;
mod late_keys;
mod key_waits;
mod journal_writer;
mod undecryptable;
mod wait_timer;
mod unverified_sessions;
mod unsigned_devices;
mod duplicate_keys;
mod rooms;
mod room_flags;
mod invites;
mod invite_policy;
mod unjoined_rooms;
mod message_authors;
mod send;
mod event_sender;
mod encrypted_send;
mod own_events;
mod event_edits;
mod file_sender;
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
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use footbridge_core::{
    clock::Clock,
    image::Image,
    inbox::Inbox,
    outlet::Outlet,
    peer_bridges::PeerBridges,
    persons::UserIdentities,
    room_profile::{ProfileField, RoomProfile},
};
use footbridge_store::{Millis, Place, Store, StoreKey, Tombstone};
use matrix_sdk::{
    Client,
    ruma::UserId,
    store::{StateStoreDataKey, StateStoreDataValue},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::{
    account_client::AccountClient, audit::Auditor, avatars::Avatars, confusables::RoomNameTable,
    crypto_store::BufferedCryptoStore, decrypt::Decryptor, encrypted_send::EncryptedSender,
    encryption_guard::EncryptionGuard, event_edits::EventEdits, event_reader::EventReader,
    event_sender::EventSender, file_sender::FileSender, gaps::GapFiller, identities::Identities,
    identity_pins::IdentityPins, invite_policy::InvitePolicy, invites::Invitee,
    journal_writer::JournalWriter, key_claims::KeyClaims, key_rotation::KeyRotation,
    key_waits::KeyWaits, late_keys::LateKeys, lease::Lease, media::Media,
    message_authors::MessageAuthors, own_events::OwnEvents, plaintext_rooms::PlaintextRooms,
    previous_text::PreviousTexts, refusals::Refusals, room_access::RoomAccess,
    room_flags::RoomFlags, room_profile::RoomProfiles, room_state::RoomState, rooms::NewCursors,
    security_metrics::SecurityMetrics, send::MatrixOutlet, sync_coverage::SyncCoverage,
    sync_response::SyncResponses, sync_state::SyncState, timeline::Timeline,
    unanswered_sends::UnansweredSends, undecryptable::UndecryptableNotices,
    unjoined_rooms::UnjoinedRooms, unsigned_devices::UnsignedNotices,
    unverified_sessions::UnverifiedSessions, verify::Verifier, wait_timer::WaitTimer,
};
pub use self::{
    config::{Homeserver, MatrixConfig, Timeouts, Trust},
    error::MatrixError,
    identities::Approved,
    power_levels::MemberRights,
    room_state::Successor,
};

/// The longest time that a sync response may take. Until then a missing response says nothing about the homeserver.
pub const MAX_SYNC: Duration = sync_loop::MAX_SYNC;

/// A boxed future: the type of every future that this package returns.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The name of the sync cursor. Each room has a cursor of its own, with the newest event that was processed.
const SYNC_CURSOR: &str = "matrix";

/// The running account.
pub struct Matrix {
    account: AccountClient,
    /// The SDK's crypto store, for access without the SDK.
    keys: Arc<BufferedCryptoStore>,
    claims: Arc<KeyClaims>,
    outlet: Arc<MatrixOutlet>,
    verifier: Verifier,
    invitee: Invitee,
    invite_policy: Arc<InvitePolicy>,
    responses: SyncResponses,
    cursors: NewCursors,
    auditor: Auditor,
    gap_filler: GapFiller,
    coverage: SyncCoverage,
    key_waits: KeyWaits,
    late_keys: Arc<LateKeys>,
    undecryptable_notices: Arc<UndecryptableNotices>,
    identities: Arc<Identities>,
    room_profiles: RoomProfiles,
    room_state: Arc<RoomState>,
    unverified_sessions: Arc<UnverifiedSessions>,
    unjoined_rooms: Arc<UnjoinedRooms>,
    plaintext_rooms: Arc<PlaintextRooms>,
    sync: Arc<SyncState>,
    store: Store,
    timeouts: Timeouts,
    lease: Arc<Lease>,
    session: session::SessionKeeper,
    /// Which channels the rooms are linked to.
    peer_bridges: PeerBridges,
    security: Arc<SecurityMetrics>,
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
            let saved = store.account().await?.ok_or(MatrixError::NoAccount)?;
            account::check_user(&saved.info, &config)?;
            let interrupted =
                saved.info.ed25519.is_none() && store.former_device().await?.is_some();
            if interrupted {
                return Err(MatrixError::Identity(
                    "a reset of the device was interrupted; `footbridge login` finishes it".into(),
                ));
            }
            let directory = account::directory(&store);
            databases::require_databases(&directory)?;
            let pins = Arc::new(IdentityPins::default());
            pins.load(&store, clock).await?;
            let (client, keys) = client::build_with_keys(client::ClientOptions {
                homeserver: &account::homeserver(&saved.info, &config)?,
                directory: &directory,
                key: &key.derive(account::KEY_PURPOSE),
                trust,
                http: http.clone(),
                pins: pins.clone(),
            })
            .await?;
            put_cursor(&client, store.cursor(SYNC_CURSOR).await?).await?;
            account::restore(&client, &saved.session).await?;
            identities::recheck(&keys).await?;
            let session = session::SessionKeeper::of(&client, &store, &saved.session, clock)?;
            let lease = Arc::new(Lease::of(client.clone(), store.clone(), key, clock));
            cross_signing::require_signed_device(&client).await?;
            let unsigned_notices = Arc::new(UnsignedNotices::load(&store).await?);
            let flags = Arc::new(RoomFlags::of(store.clone(), clock));
            let account = AccountClient::of(client.clone())?;
            let plaintext_rooms = Arc::new(PlaintextRooms::of(
                account.clone(),
                store.clone(),
                flags.clone(),
            ));
            let security = Arc::new(SecurityMetrics::default());
            let refusals = Arc::new(Refusals::of(security.clone()));
            let unjoined_rooms = Arc::new(UnjoinedRooms::of(account.clone(), store.clone(), clock));
            let unverified_sessions = Arc::new(UnverifiedSessions::of(
                config.key_wait,
                config.timeouts.device_wait,
            ));
            let wait_timer = Arc::new(WaitTimer::of(config.timeouts.notice_after));
            let media = Arc::new(Media::of(client.clone(), http));
            let guard = Arc::new(EncryptionGuard::of(
                store.clone(),
                flags.clone(),
                security.clone(),
            ));
            let claims = KeyClaims::of(&client, &keys);
            let rotation = Arc::new(KeyRotation::default());
            let peer_bridges = PeerBridges::default();
            let encrypted = EncryptedSender::of(client.clone(), keys.clone(), claims.clone());
            let events = Arc::new(EventSender::of(
                guard.clone(),
                encrypted,
                rotation.clone(),
                peer_bridges.clone(),
                security.clone(),
                clock,
            ));
            let own_events = Arc::new(OwnEvents::of(
                account.clone(),
                store.clone(),
                flags.clone(),
                security.clone(),
            ));
            let avatars = Arc::new(Avatars::of(
                account.clone(),
                store.clone(),
                clock,
                flags.clone(),
                guard.clone(),
                media.clone(),
            ));
            let room_names = Arc::new(RoomNameTable::of(account.user().to_owned()));
            let edits = EventEdits::of(
                own_events.clone(),
                guard.clone(),
                avatars.clone(),
                events.clone(),
                clock,
            );
            let files = FileSender {
                guard: guard.clone(),
                media: media.clone(),
                room_names: room_names.clone(),
                avatars: avatars.clone(),
                events: events.clone(),
                own_events: own_events.clone(),
                clock,
            };
            let unanswered_sends = UnansweredSends {
                account: account.clone(),
                store: store.clone(),
                clock,
                unjoined_rooms: unjoined_rooms.clone(),
                own_events: own_events.clone(),
                device_since: saved.since,
                unknown_after: config.timeouts.unknown_after,
            };
            let room_state = Arc::new(RoomState::of(client.clone(), store.clone(), flags.clone()));
            let room_profiles = RoomProfiles::of(room_state.clone(), media.clone());
            let decryptor = Arc::new(Decryptor::of(client.clone(), keys.clone()));
            let identities = Arc::new(Identities::of(
                account.clone(),
                keys.clone(),
                store.clone(),
                clock,
            ));
            let authors = Arc::new(MessageAuthors::of(store.clone()));
            let reader = Arc::new(EventReader::of(
                trust,
                store.clone(),
                decryptor.clone(),
                identities.clone(),
                authors.clone(),
                peer_bridges.clone(),
            ));
            let timeline = Arc::new(Timeline {
                account: account.clone(),
                clock,
                key_wait: config.key_wait,
                reader: reader.clone(),
                identities: identities.clone(),
                authors: authors.clone(),
                refusals: refusals.clone(),
                unverified_sessions: unverified_sessions.clone(),
                wait_timer: wait_timer.clone(),
                unsigned_notices: unsigned_notices.clone(),
                peer_bridges: peer_bridges.clone(),
            });
            let undecryptable_notices = Arc::new(UndecryptableNotices {
                account: account.clone(),
                store: store.clone(),
                trust,
                key_limit: config.timeouts.key_limit,
                flags: flags.clone(),
                decryptor: decryptor.clone(),
                identities: identities.clone(),
                unsigned_notices: unsigned_notices.clone(),
            });
            let journal = Arc::new(JournalWriter::of(
                client.clone(),
                unverified_sessions.clone(),
                refusals.clone(),
                undecryptable_notices.clone(),
            ));
            let late_keys = Arc::new(LateKeys {
                account: account.clone(),
                store: store.clone(),
                clock,
                reader: reader.clone(),
                identities: identities.clone(),
                unverified_sessions: unverified_sessions.clone(),
                refusals: refusals.clone(),
                notices: undecryptable_notices.clone(),
                unsigned_notices: unsigned_notices.clone(),
                journal: journal.clone(),
            });
            let key_waits = KeyWaits {
                store: store.clone(),
                clock,
                notice_after: config.timeouts.notice_after,
                key_limit: config.timeouts.key_limit,
                timer: wait_timer.clone(),
                notices: undecryptable_notices.clone(),
                late_keys: late_keys.clone(),
            };
            let previous_texts = PreviousTexts::of(
                account.clone(),
                store.clone(),
                flags.clone(),
                reader.clone(),
            );
            let sync = Arc::new(SyncState::of(clock));
            let coverage = SyncCoverage::of(
                account.clone(),
                keys.clone(),
                store.clone(),
                clock,
                sync.clone(),
            );
            let gap_filler = GapFiller::of(
                account.clone(),
                store.clone(),
                flags.clone(),
                timeline.clone(),
                journal.clone(),
            );
            let auditor = Auditor {
                account: account.clone(),
                store: store.clone(),
                flags: flags.clone(),
                timeline: timeline.clone(),
                journal: journal.clone(),
                sync: sync.clone(),
            };
            let cursors = NewCursors::of(account.clone(), store.clone(), decryptor.clone());
            let responses = SyncResponses {
                account: account.clone(),
                store: store.clone(),
                clock,
                flags: flags.clone(),
                plaintext_rooms: plaintext_rooms.clone(),
                unjoined_rooms: unjoined_rooms.clone(),
                rotation: rotation.clone(),
                decryptor: decryptor.clone(),
                timeline: timeline.clone(),
                journal: journal.clone(),
            };
            let invite_policy = Arc::new(InvitePolicy::of(config.inviters, config.greeting));
            let invitee = Invitee {
                account: account.clone(),
                store: store.clone(),
                clock,
                policy: invite_policy.clone(),
                unjoined_rooms: unjoined_rooms.clone(),
            };
            let verifier = Verifier {
                account: account.clone(),
                store: store.clone(),
                clock,
                identities: identities.clone(),
                events: events.clone(),
                verifications: verify::Verifications::with(
                    config.admins,
                    config.timeouts.verification,
                ),
            };
            let outlet = Arc::new(MatrixOutlet {
                clock,
                sync: sync.clone(),
                access: RoomAccess::of(unjoined_rooms.clone(), lease.clone()),
                room_names,
                avatars,
                events,
                own_events,
                edits,
                files,
                unanswered_sends,
                previous_texts,
            });
            Ok(Arc::new(Self {
                sync,
                plaintext_rooms,
                unjoined_rooms,
                unverified_sessions,
                claims,
                outlet,
                verifier,
                invitee,
                invite_policy,
                responses,
                cursors,
                auditor,
                gap_filler,
                coverage,
                key_waits,
                late_keys,
                undecryptable_notices,
                identities,
                room_profiles,
                room_state,
                account,
                keys,
                store,
                timeouts: config.timeouts,
                lease,
                session,
                peer_bridges,
                security,
            }))
        })
    }

    /// Takes the lease of the account. Refuses a store that is an old copy, or of which another copy is in use. Neither
    /// side may send anything before. Waits while the homeserver does not answer. Returns whether the lease was taken;
    /// `false` when stopped.
    pub fn take_up(&self, stop: CancellationToken) -> Boxed<'_, Result<bool, MatrixError>> {
        Box::pin(async move { self.lease.acquire(&stop).await })
    }

    /// Releases the lease, so that the store may start elsewhere at once. The last request of the account.
    pub async fn release_lease(&self) {
        self.lease.release().await;
    }

    /// The known identities of a user, including the one that the homeserver shows now.
    pub fn identities_of<'a>(
        &'a self,
        user: &'a str,
    ) -> Boxed<'a, Result<UserIdentities, MatrixError>> {
        Box::pin(self.identities.known(user))
    }

    /// An admin approves the identity of a user with this public master key and no other. Messages that were held
    /// because of it are relayed, late. `None` if no such identity of the user is known.
    pub fn approve<'a>(
        &'a self,
        user: &'a str,
        key: &'a str,
    ) -> Boxed<'a, Result<Option<Approved>, MatrixError>> {
        Box::pin(self.identities.approve(user, key))
    }

    /// The users whose messages are held until an admin approves their identity, with the number of messages.
    pub fn held_for_approval(&self) -> Boxed<'_, Result<Vec<(String, u64)>, MatrixError>> {
        Box::pin(self.identities.held_for_approval())
    }

    /// Which channels the rooms are linked to.
    #[must_use]
    pub fn peer_bridges(&self) -> &PeerBridges {
        &self.peer_bridges
    }

    /// The verifications of the bridge's device.
    #[must_use]
    pub fn verifications(&self) -> &verify::Verifications {
        &self.verifier.verifications
    }

    /// Requests that a user on the admin list verifies the bridge. It proceeds while [`Matrix::listen`] runs.
    ///
    /// # Errors
    /// The user is not on the list, has no cross-signing identity, or the homeserver does not answer.
    pub fn ask_to_verify<'a>(&'a self, user: &'a UserId) -> Boxed<'a, Result<(), MatrixError>> {
        Box::pin(self.verifier.ask(user))
    }

    /// The user id of the bridge's account.
    #[must_use]
    pub fn user(&self) -> &str {
        self.account.user().as_str()
    }

    /// The rights of a user in a joined room, queried from the homeserver.
    pub fn member_rights<'a>(
        &'a self,
        room: &'a Place,
        user: &'a str,
    ) -> Boxed<'a, Result<MemberRights, MatrixError>> {
        Box::pin(self.room_state.member_rights(room, user))
    }

    /// Joins the room that replaces another one, and returns its properties.
    pub fn join_successor<'a>(
        &'a self,
        tombstone: &'a Tombstone,
    ) -> Boxed<'a, Result<Successor, MatrixError>> {
        Box::pin(self.room_state.join_successor(tombstone))
    }

    /// Writes a state event into a room that is not and never was encrypted. Returns whether that was possible: the
    /// room's homeserver can read its state.
    pub fn put_plaintext_state<'a>(
        &'a self,
        room: &'a Place,
        event: (&'a str, &'a str),
        content: &'a Value,
    ) -> Boxed<'a, Result<bool, MatrixError>> {
        Box::pin(self.room_state.put_plaintext(room, event, content))
    }

    /// The room's current profile, queried from the homeserver.
    pub fn room_profile<'a>(
        &'a self,
        room: &'a Place,
    ) -> Boxed<'a, Result<RoomProfile, MatrixError>> {
        Box::pin(self.room_profiles.read(room))
    }

    /// Changes a field of the room's profile, if the account may; an avatar is uploaded first. Returns the field's new
    /// value.
    pub fn set_room_profile<'a>(
        &'a self,
        room: &'a Place,
        field: ProfileField,
        value: &'a str,
        picture: Option<&'a Image>,
    ) -> Boxed<'a, Result<String, anyhow::Error>> {
        Box::pin(self.room_profiles.set(room, field, value, picture))
    }

    /// Sets the rooms, by id or alias, of portals that are not resolved yet: an invite to one of them waits until its
    /// portal is open.
    pub fn set_awaited_rooms(&self, rooms: Vec<String>) {
        self.invite_policy.set_awaited_rooms(rooms);
    }

    /// The way out to the rooms.
    #[must_use]
    pub fn outlet(&self) -> Arc<dyn Outlet> {
        self.outlet.clone()
    }

    /// Finds a room by alias or id.
    pub fn resolve<'a>(&'a self, room: &'a str) -> Boxed<'a, Result<Place, MatrixError>> {
        Box::pin(rooms::resolve(self.account.client(), room))
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
        self.sync.missed()
    }

    /// When the last sync response arrived, if any.
    #[must_use]
    pub fn last_sync(&self) -> Option<Millis> {
        self.sync.last_sync()
    }

    /// Whether the last sync that has ended was answered.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.sync.is_answered()
    }

    /// Whether the bridge has accepted everything that the homeserver had at the start, and no event is held until its
    /// sender's device is known.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.sync.is_caught_up() && self.unverified_sessions.next_deadline().is_none()
    }

    /// Whether this is the room of a portal that the account is known not to be in.
    #[must_use]
    pub fn is_unjoined(&self, room: &Place) -> bool {
        self.unjoined_rooms.contains(room)
    }

    /// Whether all messages of others in a followed room have been processed, by a request to the homeserver now. Runs
    /// beside the sync in flight, which may be held open for long.
    pub fn is_room_caught_up<'a>(
        &'a self,
        place: &'a Place,
    ) -> Boxed<'a, Result<bool, MatrixError>> {
        Box::pin(self.coverage.is_room_caught_up(place))
    }

    /// Per joined room: whether it is encrypted, as far as the SDK knows.
    #[must_use]
    pub fn encryption(&self) -> Boxed<'_, HashMap<Place, bool>> {
        let rooms = self.account.client().joined_rooms();
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
