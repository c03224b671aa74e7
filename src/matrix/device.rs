//! One account on one device: its client, its keys, its lease and session, and the parts that read and that send.

use std::{collections::HashMap, sync::Arc};

use footbridge_core::{
    image::Image,
    inbox::Inbox,
    outlet::Outlet,
    persons::UserIdentities,
    room_profile::{ProfileField, RoomProfile},
};
use footbridge_store::{Millis, Place, StoreKey, Tombstone};
use matrix_sdk::{
    Client,
    ruma::UserId,
    store::{StateStoreDataKey, StateStoreDataValue},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Approved, Boxed, MatrixConfig, MatrixError, MemberRights, Successor,
    account_client::{AccountClient, sync_cursor_name},
    client::{self, ClientOptions},
    cross_signing,
    crypto_store::BufferedCryptoStore,
    databases,
    decrypt::Decryptor,
    encrypted_send::EncryptedSender,
    encryption_guard::EncryptionGuard,
    event_reader::EventReader,
    event_sender::EventSender,
    identities::{self, Identities},
    inbound::Inbound,
    key_claims::KeyClaims,
    key_rotation::KeyRotation,
    lease::Lease,
    media::Media,
    message_authors::MessageAuthors,
    network::MatrixNetwork,
    room_profile::RoomProfiles,
    room_state::RoomState,
    rooms, saved_account,
    send::MatrixOutlet,
    session::SessionKeeper,
    sync_loop,
    sync_state::SyncState,
    unjoined_rooms::UnjoinedRooms,
    verify::{Verifications, Verifier},
};

/// A running device.
pub struct Device {
    pub(super) account: AccountClient,
    pub(super) claims: Arc<KeyClaims>,
    pub(super) lease: Arc<Lease>,
    pub(super) session: SessionKeeper,
    pub(super) verifier: Verifier,
    pub(super) sync: Arc<SyncState>,
    pub(super) inbound: Inbound,
    identities: Arc<Identities>,
    room_state: Arc<RoomState>,
    room_profiles: RoomProfiles,
    outlet: Arc<MatrixOutlet>,
}

/// What the parts of one device share while they are made.
pub(super) struct DeviceParts {
    pub network: Arc<MatrixNetwork>,
    pub account: AccountClient,
    /// The SDK's crypto store, for access without the SDK.
    pub keys: Arc<BufferedCryptoStore>,
    pub lease: Arc<Lease>,
    pub sync: Arc<SyncState>,
    pub rotation: Arc<KeyRotation>,
    pub unjoined_rooms: Arc<UnjoinedRooms>,
    pub decryptor: Arc<Decryptor>,
    pub identities: Arc<Identities>,
    pub authors: Arc<MessageAuthors>,
    pub reader: Arc<EventReader>,
    pub media: Arc<Media>,
    pub guard: Arc<EncryptionGuard>,
    pub events: Arc<EventSender>,
    /// When this device was saved in the store: messages sent before that came from another device.
    pub since: Millis,
}

impl DeviceParts {
    pub(super) fn of(
        network: &Arc<MatrixNetwork>,
        account: &AccountClient,
        keys: &Arc<BufferedCryptoStore>,
        claims: &Arc<KeyClaims>,
        key: &StoreKey,
        since: Millis,
    ) -> Self {
        let (store, clock) = (&network.store, network.clock);
        let client = account.client();
        let decryptor = Arc::new(Decryptor::of(client.clone(), keys.clone()));
        let authors = Arc::new(MessageAuthors::of(store.clone()));
        let identities = Arc::new(Identities::of(
            account.clone(),
            keys.clone(),
            store.clone(),
            clock,
        ));
        let rotation = Arc::new(KeyRotation::default());
        let guard = Arc::new(EncryptionGuard::of(
            store.clone(),
            network.flags.clone(),
            network.security.clone(),
        ));
        Self {
            network: network.clone(),
            account: account.clone(),
            keys: keys.clone(),
            lease: Arc::new(Lease::of(client.clone(), store.clone(), key, clock)),
            sync: Arc::new(SyncState::of(clock)),
            unjoined_rooms: Arc::new(UnjoinedRooms::of(account.clone(), store.clone(), clock)),
            reader: Arc::new(EventReader::of(
                store.clone(),
                decryptor.clone(),
                identities.clone(),
                authors.clone(),
                network,
                account.clone(),
            )),
            media: Arc::new(Media::of(client.clone(), network.http.clone())),
            events: Arc::new(EventSender::of(
                guard.clone(),
                EncryptedSender::of(client.clone(), keys.clone(), claims.clone()),
                rotation.clone(),
                network.peer_bridges.clone(),
                network.security.clone(),
                clock,
            )),
            decryptor,
            authors,
            identities,
            rotation,
            guard,
            since,
        }
    }
}

impl Device {
    /// Restores the session that the store holds: opens the SDK's databases in the store's directory, replaces the
    /// SDK's sync cursor by the bridge's, then restores the session. Never logs in. Needs no network.
    ///
    /// # Errors
    /// [`MatrixError::NoAccount`] where there is no session, [`MatrixError::DatabaseMissing`] where its keys are gone,
    /// and [`MatrixError::Identity`] where the device is not cross-signed or its reset was interrupted.
    pub(super) async fn open(
        network: &Arc<MatrixNetwork>,
        key: &StoreKey,
        config: &MatrixConfig,
    ) -> Result<Self, MatrixError> {
        let (store, clock) = (&network.store, network.clock);
        let saved = store.relay_account().await?.ok_or(MatrixError::NoAccount)?;
        saved_account::check_user(&saved.info, config)?;
        if saved.info.ed25519.is_none() {
            let what = match store.former_device(saved.id).await? {
                Some(_) => "a reset of the device",
                None => "the login",
            };
            return Err(MatrixError::Identity(format!(
                "{what} was interrupted; `footbridge login` finishes it"
            )));
        }
        let directory = saved_account::directory(store, saved.id);
        databases::require_databases(&directory)?;
        let (client, keys) = client::build_with_keys(ClientOptions {
            homeserver: &saved_account::homeserver(&saved.info, config)?,
            directory: &directory,
            key: &key.derive(saved_account::KEY_PURPOSE),
            trust: network.policy.trust,
            http: network.http.clone(),
            pins: network.pins.clone(),
        })
        .await?;
        put_cursor(&client, store.cursor(&sync_cursor_name(saved.id)).await?).await?;
        saved_account::restore(&client, &saved.session).await?;
        identities::recheck(&keys).await?;
        let session = SessionKeeper::of(&client, store, &saved, clock)?;
        cross_signing::require_signed_device(&client).await?;
        let claims = KeyClaims::of(&client, &keys);
        let account = AccountClient::of(saved.id, client.clone())?;
        let parts = DeviceParts::of(network, &account, &keys, &claims, key, saved.since);
        let room_state = Arc::new(RoomState::of(client, store.clone(), network.flags.clone()));
        let verifier = Verifier {
            account: account.clone(),
            store: store.clone(),
            clock,
            identities: parts.identities.clone(),
            events: parts.events.clone(),
            verifications: Verifications::with(
                network.policy.admins.clone(),
                network.policy.timeouts.verification,
            ),
        };
        Ok(Self {
            outlet: Arc::new(MatrixOutlet::of(&parts)),
            inbound: Inbound::of(&parts).await?,
            room_profiles: RoomProfiles::of(room_state.clone(), parts.media),
            room_state,
            account,
            claims,
            session,
            verifier,
            lease: parts.lease,
            sync: parts.sync,
            identities: parts.identities,
        })
    }

    /// Takes the lease of the account. Refuses a store that is an old copy, or of which another copy is in use. Neither
    /// side may send anything before. Waits while the homeserver does not answer. Returns whether the lease was taken;
    /// `false` when stopped.
    #[must_use]
    pub fn take_up(&self, stop: CancellationToken) -> Boxed<'_, Result<bool, MatrixError>> {
        Box::pin(async move { self.lease.acquire(&stop).await })
    }

    /// Runs the sync loop until stopped: accepts invites to these rooms and from the configured inviters, refuses other
    /// invites, and accepts the messages into the inbox. Returns early only when it cannot continue by itself. It can
    /// be called again afterwards, for example with one room more, but never twice at the same time.
    #[must_use]
    pub fn listen(
        &self,
        rooms: Vec<Place>,
        inbox: Inbox,
        stop: CancellationToken,
    ) -> Boxed<'_, Result<(), MatrixError>> {
        Box::pin(sync_loop::listen(self, rooms, inbox, stop))
    }

    /// Releases the lease, so that the store may start elsewhere at once. The last request of the account.
    pub async fn release_lease(&self) {
        self.lease.release().await;
    }

    /// The way out to the rooms.
    #[must_use]
    pub fn outlet(&self) -> Arc<dyn Outlet> {
        self.outlet.clone()
    }

    /// The user id of the bridge's account.
    #[must_use]
    pub fn user(&self) -> &str {
        self.account.user().as_str()
    }

    /// Finds a room by alias or id.
    #[must_use]
    pub fn resolve<'a>(&'a self, room: &'a str) -> Boxed<'a, Result<Place, MatrixError>> {
        Box::pin(rooms::resolve(self.account.client(), room))
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
        self.sync.is_caught_up() && self.inbound.late_keys.next_deadline().is_none()
    }

    /// How many events the homeserver's syncs had omitted, as audits of the rooms' history found, since the start.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.sync.missed()
    }

    /// Whether this is the room of a portal that the account is known not to be in.
    #[must_use]
    pub fn is_unjoined(&self, room: &Place) -> bool {
        self.inbound.unjoined_rooms.contains(room)
    }

    /// Whether all messages of others in a followed room have been processed, by a request to the homeserver now. Runs
    /// beside the sync in flight, which may be held open for long.
    #[must_use]
    pub fn is_room_caught_up<'a>(
        &'a self,
        place: &'a Place,
    ) -> Boxed<'a, Result<bool, MatrixError>> {
        Box::pin(self.inbound.coverage.is_room_caught_up(place))
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

    /// The known identities of a user, including the one that the homeserver shows now.
    #[must_use]
    pub fn identities_of<'a>(
        &'a self,
        user: &'a str,
    ) -> Boxed<'a, Result<UserIdentities, MatrixError>> {
        Box::pin(self.identities.known(user))
    }

    /// An admin approves the identity of a user with this public master key and no other. Messages that were held
    /// because of it are relayed, late. `None` if no such identity of the user is known.
    #[must_use]
    pub fn approve<'a>(
        &'a self,
        user: &'a str,
        key: &'a str,
    ) -> Boxed<'a, Result<Option<Approved>, MatrixError>> {
        Box::pin(self.identities.approve(user, key))
    }

    /// The users whose messages are held until an admin approves their identity, with the number of messages.
    #[must_use]
    pub fn held_for_approval(&self) -> Boxed<'_, Result<Vec<(String, u64)>, MatrixError>> {
        Box::pin(self.identities.held_for_approval())
    }

    /// The verifications of the bridge's device.
    #[must_use]
    pub fn verifications(&self) -> &Verifications {
        &self.verifier.verifications
    }

    /// Requests that a user on the admin list verifies the bridge. It proceeds while [`Device::listen`] runs.
    ///
    /// # Errors
    /// The user is not on the list, has no cross-signing identity, or the homeserver does not answer.
    #[must_use]
    pub fn ask_to_verify<'a>(&'a self, user: &'a UserId) -> Boxed<'a, Result<(), MatrixError>> {
        Box::pin(self.verifier.ask(user))
    }

    /// The rights of a user in a joined room, queried from the homeserver.
    #[must_use]
    pub fn member_rights<'a>(
        &'a self,
        room: &'a Place,
        user: &'a str,
    ) -> Boxed<'a, Result<MemberRights, MatrixError>> {
        Box::pin(self.room_state.member_rights(room, user))
    }

    /// Whether nobody but the account and this user is in a room, or invited.
    #[must_use]
    pub fn is_private_with<'a>(
        &'a self,
        room: &'a Place,
        user: &'a str,
    ) -> Boxed<'a, Result<bool, MatrixError>> {
        Box::pin(self.room_state.is_private_with(room, user))
    }

    /// Joins the room that replaces another one, and returns its properties.
    #[must_use]
    pub fn join_successor<'a>(
        &'a self,
        tombstone: &'a Tombstone,
    ) -> Boxed<'a, Result<Successor, MatrixError>> {
        Box::pin(self.room_state.join_successor(tombstone))
    }

    /// Writes a state event into a room that is not and never was encrypted. Returns whether that was possible: the
    /// room's homeserver can read its state.
    #[must_use]
    pub fn put_plaintext_state<'a>(
        &'a self,
        room: &'a Place,
        event_type: &'a str,
        key: &'a str,
        content: &'a Value,
    ) -> Boxed<'a, Result<bool, MatrixError>> {
        Box::pin(
            self.room_state
                .put_plaintext(room, event_type, key, content),
        )
    }

    /// The room's current profile, queried from the homeserver.
    #[must_use]
    pub fn room_profile<'a>(
        &'a self,
        room: &'a Place,
    ) -> Boxed<'a, Result<RoomProfile, MatrixError>> {
        Box::pin(self.room_profiles.read(room))
    }

    /// Changes a field of the room's profile, if the account may; an avatar is uploaded first. Returns the field's new
    /// value.
    #[must_use]
    pub fn set_room_profile<'a>(
        &'a self,
        room: &'a Place,
        field: ProfileField,
        value: &'a str,
        picture: Option<&'a Image>,
    ) -> Boxed<'a, Result<String, anyhow::Error>> {
        Box::pin(self.room_profiles.set(room, field, value, picture))
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").finish_non_exhaustive()
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
