//! The crypto store: the SDK's store, plus the guarantee that a kill between two of its writes loses no room key.
//! While the SDK processes a sync, it writes each new Olm session at once, and the room keys that came through the
//! session only at the end. After a kill in between it would read the same message again with a session whose ratchet
//! has moved on, fail to decrypt it, and the room key would be lost. The same would happen if another task encrypted
//! with such a session meanwhile and saved it. Here the messages that a sync received through a session and the room
//! keys from them are saved in one transaction, and any other task that saves the session waits for it. If a sync
//! brings one room key twice, the earlier one is stored.

mod key_sharing;
mod device_cache;
mod missing_sessions;
mod outbound_keys;
mod saves;
mod deferred_rooms;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use matrix_sdk::{SqliteCryptoStore, cross_process_lock::CrossProcessLockGeneration};
use matrix_sdk_crypto::{
    Account, DeviceData, GossipRequest, SecretInfo, Session, UserIdentityData,
    olm::{
        Curve25519PublicKey, InboundGroupSession, OlmMessageHash, OutboundGroupSession,
        PrivateCrossSigningIdentity, SenderDataType,
    },
    store::{
        CryptoStore,
        types::{
            BackupKeys, Changes, DehydratedDeviceKey, PendingChanges, RoomKeyCounts,
            RoomKeyWithheldEntry, RoomPendingKeyBundleDetails, RoomSettings,
            StoredRoomKeyBundleData, TrackedUser,
        },
    },
};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, RoomId, TransactionId, UserId,
    events::secret::request::SecretName,
};
use tokio::sync::{OnceCell, watch};
use zeroize::Zeroizing;

use super::{identity_pins::IdentityPins, pending_sessions::PendingSessions};
use {
    deferred_rooms::DeferredRooms, device_cache::DeviceCache,
    missing_sessions::EstablishedSessions, outbound_keys::OutboundKeys,
};

pub(super) use {key_sharing::sharing, missing_sessions::sending, saves::within_sync};

type Error = <SqliteCryptoStore as CryptoStore>::Error;
type Result<T> = std::result::Result<T, Error>;

/// Saves the messages that a session received together with the room keys that they contained.
///
/// A session that a sync saves on its own is held back if the sync has received a message through it that is not stored
/// yet: the SDK does so for a sender's first message, and for a message that it decrypted and then refused
/// (`Account::decrypt_olm_message`). The held session is written with the changes that end the sync
/// (`receive_sync_changes`), the one write that contains the sync token. After a kill before that write, nothing of the
/// message is stored and the one-time key is still in the account, so that the message is read again as if for the
/// first time; after a kill after it, the message is known.
///
/// Why nothing else breaks:
/// - A session that another task saves (because it encrypted with it) waits for the end of the sync that received a
///   message through it. The SDK sends a request only after that save, so nothing was sent from a ratchet state that
///   could occur again. Such a session is written in the state it had when the save began, not as a sync may change it
///   meanwhile.
/// - An outbound session, made from a claimed key, has received nothing and is written at once.
/// - The account, with the one-time key used up, is written after the end of the sync, and not at all if that write
///   failed: then the SDK reads the account again from the store. So it is never stored without the session.
/// - `close` writes nothing: held sessions then belong to an unfinished sync, whose messages come again.
/// - The empty message that replaces a broken session is the one thing that the SDK encrypts without saving the
///   session.
#[derive(Debug)]
pub(super) struct BufferedCryptoStore {
    inner: SqliteCryptoStore,
    held: Mutex<PendingSessions>,
    /// One save at a time, so that held and stored sessions change together.
    saving: tokio::sync::Mutex<()>,
    /// Counts the syncs that have ended.
    ended: watch::Sender<u64>,
    /// Rooms whose events a sync leaves encrypted.
    deferred: DeferredRooms,
    known: DeviceCache,
    reachable: EstablishedSessions,
    outbound: OutboundKeys,
    /// Users whose devices were saved; key claims establish Olm sessions with them.
    fresh: saves::NewDevices,
    own: OnceCell<(OwnedUserId, OwnedDeviceId)>,
    /// The pinned identity of each user.
    pins: Arc<IdentityPins>,
}

impl BufferedCryptoStore {
    pub(super) fn new(inner: SqliteCryptoStore, pins: Arc<IdentityPins>) -> Self {
        Self {
            inner,
            held: Mutex::default(),
            saving: tokio::sync::Mutex::default(),
            ended: watch::Sender::default(),
            deferred: DeferredRooms::default(),
            known: DeviceCache::default(),
            reachable: EstablishedSessions::default(),
            outbound: OutboundKeys::default(),
            fresh: saves::NewDevices::default(),
            own: OnceCell::new(),
            pins,
        }
    }
}

#[async_trait]
impl CryptoStore for BufferedCryptoStore {
    type Error = Error;

    async fn save_changes(&self, changes: Changes) -> Result<()> {
        let shown = key_sharing::shown(&changes.identities);
        self.see(&shown).await?;
        self.save(changes).await?;
        self.see(&shown).await
    }

    // Held sessions are read before stored ones: a save in between moves a session from the one to the other, and none
    // may be missed.

    async fn get_sessions(&self, sender_key: &str) -> Result<Option<Vec<Session>>> {
        self.sessions_with(sender_key).await
    }

    async fn get_device(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<Option<DeviceData>> {
        self.on_device_query(user_id, device_id).await;
        Ok(self.current_devices(user_id).await?.remove(device_id))
    }

    async fn get_user_devices(
        &self,
        user_id: &UserId,
    ) -> Result<HashMap<OwnedDeviceId, DeviceData>> {
        let devices = self.devices_for_sharing(user_id).await?;
        self.shown(user_id, devices).await
    }

    // All other methods delegate to the inner store.

    async fn save_pending_changes(&self, changes: PendingChanges) -> Result<()> {
        self.inner.save_pending_changes(changes).await
    }

    async fn load_account(&self) -> Result<Option<Account>> {
        self.inner.load_account().await
    }

    async fn load_identity(&self) -> Result<Option<PrivateCrossSigningIdentity>> {
        self.inner.load_identity().await
    }

    async fn save_inbound_group_sessions(
        &self,
        sessions: Vec<InboundGroupSession>,
        backed_up_to_version: Option<&str>,
    ) -> Result<()> {
        self.inner
            .save_inbound_group_sessions(sessions, backed_up_to_version)
            .await
    }

    async fn get_inbound_group_session(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Option<InboundGroupSession>> {
        if saves::is_reading_rooms() && self.deferred.has(room_id) {
            return Ok(None);
        }
        self.inner
            .get_inbound_group_session(room_id, session_id)
            .await
    }

    async fn get_withheld_info(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Option<RoomKeyWithheldEntry>> {
        self.inner.get_withheld_info(room_id, session_id).await
    }

    async fn get_withheld_sessions_by_room_id(
        &self,
        room_id: &RoomId,
    ) -> Result<Vec<RoomKeyWithheldEntry>> {
        self.inner.get_withheld_sessions_by_room_id(room_id).await
    }

    async fn get_inbound_group_sessions(&self) -> Result<Vec<InboundGroupSession>> {
        self.inner.get_inbound_group_sessions().await
    }

    async fn inbound_group_session_counts(
        &self,
        backup_version: Option<&str>,
    ) -> Result<RoomKeyCounts> {
        self.inner
            .inbound_group_session_counts(backup_version)
            .await
    }

    async fn get_inbound_group_sessions_by_room_id(
        &self,
        room_id: &RoomId,
    ) -> Result<Vec<InboundGroupSession>> {
        self.inner
            .get_inbound_group_sessions_by_room_id(room_id)
            .await
    }

    async fn get_inbound_group_sessions_for_device_batch(
        &self,
        curve_key: Curve25519PublicKey,
        sender_data_type: SenderDataType,
        after_session_id: Option<String>,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        self.inner
            .get_inbound_group_sessions_for_device_batch(
                curve_key,
                sender_data_type,
                after_session_id,
                limit,
            )
            .await
    }

    async fn inbound_group_sessions_for_backup(
        &self,
        backup_version: &str,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        self.inner
            .inbound_group_sessions_for_backup(backup_version, limit)
            .await
    }

    async fn mark_inbound_group_sessions_as_backed_up(
        &self,
        backup_version: &str,
        room_and_session_ids: &[(&RoomId, &str)],
    ) -> Result<()> {
        self.inner
            .mark_inbound_group_sessions_as_backed_up(backup_version, room_and_session_ids)
            .await
    }

    async fn reset_backup_state(&self) -> Result<()> {
        self.inner.reset_backup_state().await
    }

    async fn load_backup_keys(&self) -> Result<BackupKeys> {
        self.inner.load_backup_keys().await
    }

    async fn load_dehydrated_device_pickle_key(&self) -> Result<Option<DehydratedDeviceKey>> {
        self.inner.load_dehydrated_device_pickle_key().await
    }

    async fn delete_dehydrated_device_pickle_key(&self) -> Result<()> {
        self.inner.delete_dehydrated_device_pickle_key().await
    }

    async fn get_outbound_group_session(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<OutboundGroupSession>> {
        Ok(self.outbound.session(room_id))
    }

    async fn load_tracked_users(&self) -> Result<Vec<TrackedUser>> {
        self.inner.load_tracked_users().await
    }

    async fn save_tracked_users(&self, users: &[(&UserId, bool)]) -> Result<()> {
        self.outbound.track(users);
        self.inner.save_tracked_users(users).await
    }

    async fn get_own_device(&self) -> Result<DeviceData> {
        self.inner.get_own_device().await
    }

    async fn get_user_identity(&self, user_id: &UserId) -> Result<Option<UserIdentityData>> {
        self.identity_of(user_id).await
    }

    async fn is_message_known(&self, message_hash: &OlmMessageHash) -> Result<bool> {
        self.inner.is_message_known(message_hash).await
    }

    async fn get_outgoing_secret_requests(
        &self,
        request_id: &TransactionId,
    ) -> Result<Option<GossipRequest>> {
        self.inner.get_outgoing_secret_requests(request_id).await
    }

    async fn get_secret_request_by_info(
        &self,
        secret_info: &SecretInfo,
    ) -> Result<Option<GossipRequest>> {
        self.inner.get_secret_request_by_info(secret_info).await
    }

    async fn get_unsent_secret_requests(&self) -> Result<Vec<GossipRequest>> {
        self.inner.get_unsent_secret_requests().await
    }

    async fn delete_outgoing_secret_requests(&self, request_id: &TransactionId) -> Result<()> {
        self.inner.delete_outgoing_secret_requests(request_id).await
    }

    async fn get_secrets_from_inbox(
        &self,
        secret_name: &SecretName,
    ) -> Result<Vec<Zeroizing<String>>> {
        self.inner.get_secrets_from_inbox(secret_name).await
    }

    async fn delete_secrets_from_inbox(&self, secret_name: &SecretName) -> Result<()> {
        self.inner.delete_secrets_from_inbox(secret_name).await
    }

    async fn get_room_settings(&self, room_id: &RoomId) -> Result<Option<RoomSettings>> {
        self.inner.get_room_settings(room_id).await
    }

    async fn get_received_room_key_bundle_data(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Result<Option<StoredRoomKeyBundleData>> {
        self.inner
            .get_received_room_key_bundle_data(room_id, user_id)
            .await
    }

    async fn get_pending_key_bundle_details_for_room(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<RoomPendingKeyBundleDetails>> {
        self.inner
            .get_pending_key_bundle_details_for_room(room_id)
            .await
    }

    async fn get_all_rooms_pending_key_bundles(&self) -> Result<Vec<RoomPendingKeyBundleDetails>> {
        self.inner.get_all_rooms_pending_key_bundles().await
    }

    async fn has_downloaded_all_room_keys(&self, room_id: &RoomId) -> Result<bool> {
        self.inner.has_downloaded_all_room_keys(room_id).await
    }

    async fn get_custom_value(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.inner.get_custom_value(key).await
    }

    async fn set_custom_value(&self, key: &str, value: Vec<u8>) -> Result<()> {
        self.inner.set_custom_value(key, value).await
    }

    async fn remove_custom_value(&self, key: &str) -> Result<()> {
        self.inner.remove_custom_value(key).await
    }

    async fn try_take_leased_lock(
        &self,
        lease_duration_ms: u32,
        key: &str,
        holder: &str,
    ) -> Result<Option<CrossProcessLockGeneration>> {
        self.inner
            .try_take_leased_lock(lease_duration_ms, key, holder)
            .await
    }

    async fn next_batch_token(&self) -> Result<Option<String>> {
        self.inner.next_batch_token().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    async fn reopen(&self) -> Result<()> {
        self.inner.reopen().await
    }

    async fn get_size(&self) -> Result<Option<usize>> {
        self.inner.get_size().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use matrix_sdk::{SqliteStoreConfig, sync::SyncResponse};
    use matrix_sdk_base::sync::LeftRoomUpdate;
    use matrix_sdk_crypto::{
        EncryptionSettings, store::types::DeviceChanges,
        types::events::room::encrypted::ToDeviceEncryptedEventContent,
    };
    use ruma::{device_id, events::dummy::ToDeviceDummyEventContent, room_id, user_id};
    use tempfile::TempDir;
    use vodozemac::olm::{OlmMessage, SessionConfig};

    use super::*;
    use crate::olm;
    use std::time::Duration;
    use tokio::time::timeout;

    /// The bridge's store in a directory, and the device of a user who writes to the bridge.
    struct Scene {
        directory: TempDir,
        store: BufferedCryptoStore,
        account: Account,
        ann: Account,
        /// Ann's side of the session of her newest pre-key message.
        hers: Option<vodozemac::olm::Session>,
    }

    impl Scene {
        async fn open() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = BufferedCryptoStore::new(Self::stored(&directory).await, Arc::default());
            let account = Account::with_device_id(user_id!("@bridge:x"), device_id!("BRIDGE"));
            let ann = Account::with_device_id(user_id!("@ann:x"), device_id!("ANN"));
            let mut changes = Changes::default();
            changes.devices.new = vec![
                DeviceData::from_account(&account),
                DeviceData::from_account(&ann),
            ];
            store.save_changes(changes).await.unwrap();
            let kept = account.deep_clone();
            let pending = PendingChanges {
                account: Some(kept),
            };
            store.save_pending_changes(pending).await.unwrap();
            Self {
                directory,
                store,
                account,
                ann,
                hers: None,
            }
        }

        async fn stored(directory: &TempDir) -> SqliteCryptoStore {
            let config = SqliteStoreConfig::with_low_memory_config(directory.path());
            let store = SqliteCryptoStore::open_with_config(&config).await.unwrap();
            store.load_account().await.unwrap();
            store
        }

        fn ann_key(&self) -> String {
            self.ann.identity_keys().curve25519.to_base64()
        }

        /// What the SDK writes for a pre-key message of Ann's: an inbound session, and her device, with its wedging
        /// index raised to `index`.
        async fn first_message(&mut self, index: u8) -> Changes {
            self.account.generate_one_time_keys(1);
            let key = *self.account.one_time_keys().values().next().unwrap();
            self.account.mark_keys_as_published();
            let own_key = self.account.identity_keys().curve25519;
            let config = SessionConfig::version_1();
            let mut hers = self
                .ann
                .create_outbound_session_helper(config, own_key, key, false, self.ann.device_keys())
                .unwrap();
            let to = DeviceData::from_account(&self.account);
            let dummy = ToDeviceDummyEventContent::new();
            let message = hers.encrypt(&to, "m.dummy", dummy, None).await.unwrap();
            let ToDeviceEncryptedEventContent::OlmV1Curve25519AesSha2(content) =
                message.deserialize().unwrap()
            else {
                panic!("not Olm");
            };
            let OlmMessage::PreKey(message) = content.ciphertext else {
                panic!("not a first message");
            };
            let pickle = hers.pickle().await.pickle;
            self.hers = Some(vodozemac::olm::Session::from_pickle(pickle));
            let (from, keys) = (
                self.ann.identity_keys().curve25519,
                self.account.device_keys(),
            );
            let made = self.account.create_inbound_session(from, keys, &message);
            Changes {
                sessions: vec![made.unwrap().session],
                devices: DeviceChanges {
                    changed: vec![self.device(index)],
                    ..DeviceChanges::default()
                },
                ..Changes::default()
            }
        }

        async fn sync_saves(&self, changes: Changes) {
            within_sync(self.store.save_changes(changes)).await.unwrap();
        }

        /// Ann sends another message, and it is decrypted.
        async fn next_message(&mut self, session: &Session) {
            let message = self.hers.as_mut().unwrap().encrypt("again").unwrap();
            session.inner.lock().await.decrypt(&message).unwrap();
        }

        /// Whether a new process would find a session that has not received what this one has.
        async fn is_ahead_of_disk(&self, session: &Session) -> bool {
            let stored = Self::stored(&self.directory).await;
            let stored = stored.get_sessions(&self.ann_key()).await.unwrap().unwrap();
            let stored = stored.iter().find(|stored| *stored == session);
            olm::received_since(session, stored).await.unwrap()
        }

        fn device(&self, index: u8) -> DeviceData {
            let mut device = serde_json::to_value(DeviceData::from_account(&self.ann)).unwrap();
            device["olm_wedging_index"] = index.into();
            serde_json::from_value(device).unwrap()
        }
    }

    /// How many sessions with Ann a store knows, and the wedging index of her device, which both methods report
    /// equally.
    async fn known(store: &impl CryptoStore, scene: &Scene) -> (usize, u64) {
        let sessions = store.get_sessions(&scene.ann_key()).await.ok().unwrap();
        let (user, device) = (scene.ann.user_id(), scene.ann.device_id());
        let one = store.get_device(user, device).await.ok().unwrap().unwrap();
        let all = store.get_user_devices(user).await.ok().unwrap();
        let index = |device: &DeviceData| {
            serde_json::to_value(device).unwrap()["olm_wedging_index"]
                .as_u64()
                .unwrap()
        };
        assert_eq!(index(&one), index(&all[device]));
        (sessions.map_or(0, |sessions| sessions.len()), index(&one))
    }

    /// The same, as a new process would find it on disk.
    async fn on_disk(scene: &Scene) -> (usize, u64) {
        known(&Scene::stored(&scene.directory).await, scene).await
    }

    fn end_of_sync() -> Changes {
        Changes {
            next_batch_token: Some("s2".to_owned()),
            ..Changes::default()
        }
    }

    #[tokio::test]
    async fn a_new_session_is_seen_at_once_and_written_with_the_end_of_the_sync() {
        let mut scene = Scene::open().await;
        for (time, index) in [(1, 1), (2, 2)] {
            let changes = scene.first_message(index).await;
            scene.sync_saves(changes).await;
            assert_eq!(known(&scene.store, &scene).await, (time, index.into()));
            assert_eq!(on_disk(&scene).await, (0, 0), "after message {time}");
        }

        scene.sync_saves(end_of_sync()).await;
        assert_eq!(on_disk(&scene).await, (2, 2));
        assert_eq!(known(&scene.store, &scene).await, (2, 2));
    }

    #[tokio::test]
    async fn neither_other_changes_nor_the_account_nor_closing_write_a_held_session() {
        let mut scene = Scene::open().await;
        let changes = scene.first_message(1).await;
        scene.sync_saves(changes).await;

        let other = Changes {
            backup_version: Some("1".to_owned()),
            ..Changes::default()
        };
        scene.store.save_changes(other).await.unwrap();
        let account = Some(scene.account.deep_clone());
        let pending = PendingChanges { account };
        scene.store.save_pending_changes(pending).await.unwrap();
        scene.store.close().await.unwrap();

        let stored = Scene::stored(&scene.directory).await;
        let version = stored.load_backup_keys().await.unwrap().backup_version;
        assert_eq!(version.as_deref(), Some("1"));
        assert_eq!(known(&stored, &scene).await, (0, 0));
    }

    /// A save by another task waits until the sync has ended; until then the disk has `before`.
    async fn waits_for_the_end(scene: &Scene, session: Session, before: (usize, u64)) {
        let mut save = std::pin::pin!(scene.store.save_changes(of(session)));
        let waited = timeout(Duration::from_millis(200), &mut save).await;
        assert!(
            waited.is_err(),
            "the session was written before its room key"
        );
        assert_eq!(on_disk(scene).await, before);
        scene.sync_saves(end_of_sync()).await;
        save.await.unwrap();
    }

    fn of(session: Session) -> Changes {
        Changes {
            sessions: vec![session],
            ..Changes::default()
        }
    }

    #[tokio::test]
    async fn whoever_encrypts_with_a_held_session_waits_for_the_end_of_the_sync() {
        let mut scene = Scene::open().await;
        let changes = scene.first_message(1).await;
        let session = changes.sessions[0].clone();
        scene.sync_saves(changes).await;
        waits_for_the_end(&scene, session.clone(), (0, 0)).await;
        assert_eq!(on_disk(&scene).await, (1, 1));
        // From here on it is a stored session like any other.
        scene.store.save_changes(of(session)).await.unwrap();
    }

    #[tokio::test]
    async fn a_stored_session_that_a_sync_has_moved_on_waits_too() {
        let mut scene = Scene::open().await;
        let changes = scene.first_message(1).await;
        let session = changes.sessions[0].clone();
        scene.sync_saves(changes).await;
        scene.sync_saves(end_of_sync()).await;

        scene.next_message(&session).await;
        // Decrypted and then refused: the sync saves the session on its own, and it is held.
        scene.sync_saves(of(session.clone())).await;
        assert!(scene.is_ahead_of_disk(&session).await);
        waits_for_the_end(&scene, session.clone(), (1, 1)).await;
        assert!(!scene.is_ahead_of_disk(&session).await);

        // Decrypted and used: only the end of the sync saves the session.
        scene.next_message(&session).await;
        let mut save = std::pin::pin!(scene.store.save_changes(of(session.clone())));
        let waited = timeout(Duration::from_millis(200), &mut save).await;
        assert!(
            waited.is_err(),
            "the session was written before its room key"
        );
        let end = Changes {
            sessions: vec![session.clone()],
            ..end_of_sync()
        };
        scene.sync_saves(end).await;
        save.await.unwrap();
        assert!(!scene.is_ahead_of_disk(&session).await);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_sync_never_ends_nothing_is_written() {
        let mut scene = Scene::open().await;
        let changes = scene.first_message(1).await;
        let session = changes.sessions[0].clone();
        scene.sync_saves(changes).await;
        let error = scene.store.save_changes(of(session)).await.unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        assert_eq!(on_disk(&scene).await, (0, 0));
    }

    #[tokio::test]
    async fn a_session_of_our_own_is_written_at_once() {
        let mut scene = Scene::open().await;
        scene.ann.generate_one_time_keys(1);
        let key = *scene.ann.one_time_keys().values().next().unwrap();
        let session = scene.account.create_outbound_session_helper(
            SessionConfig::version_1(),
            scene.ann.identity_keys().curve25519,
            key,
            false,
            scene.account.device_keys(),
        );
        let changes = Changes {
            sessions: vec![session.unwrap()],
            ..Changes::default()
        };
        scene.store.save_changes(changes).await.unwrap();
        assert_eq!(on_disk(&scene).await, (1, 0));
    }

    #[tokio::test]
    async fn a_newer_device_is_not_overwritten_by_the_held_one() {
        let mut scene = Scene::open().await;
        let held = scene.first_message(1).await;
        scene.sync_saves(held).await;
        let mut changes = Changes::default();
        changes.devices.changed = vec![scene.device(7)];
        scene.store.save_changes(changes).await.unwrap();
        assert_eq!(known(&scene.store, &scene).await, (1, 7));
        assert_eq!(on_disk(&scene).await, (0, 7));

        scene.sync_saves(end_of_sync()).await;
        assert_eq!(on_disk(&scene).await, (1, 7));
    }

    /// The wedging index of Ann's device in this store.
    async fn index(store: &impl CryptoStore, scene: &Scene) -> u64 {
        known(store, scene).await.1
    }

    fn with_device(device: DeviceData) -> Changes {
        let mut changes = Changes::default();
        changes.devices.changed = vec![device];
        changes
    }

    #[tokio::test]
    async fn a_known_device_is_not_read_again_until_a_save_names_its_user() {
        let scene = Scene::open().await;
        assert_eq!(index(&scene.store, &scene).await, 0);
        // Only this process writes, so a change behind its back shows that the database is not read.
        let behind = Scene::stored(&scene.directory).await;
        behind
            .save_changes(with_device(scene.device(5)))
            .await
            .unwrap();
        assert_eq!(index(&scene.store, &scene).await, 0);
        let other = with_device(DeviceData::from_account(&scene.account));
        scene.store.save_changes(other).await.unwrap();
        assert_eq!(index(&scene.store, &scene).await, 0);

        scene
            .store
            .save_changes(with_device(scene.device(7)))
            .await
            .unwrap();
        assert_eq!(index(&scene.store, &scene).await, 7);
        let mut gone = Changes::default();
        gone.devices.deleted = vec![scene.device(7)];
        scene.store.save_changes(gone).await.unwrap();
        let left = scene.store.get_user_devices(scene.ann.user_id()).await;
        assert!(left.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_not_known() {
        let scene = Scene::open().await;
        assert_eq!(index(&scene.store, &scene).await, 0);
        scene.store.close().await.unwrap();
        let failed = scene.store.save_changes(with_device(scene.device(7))).await;
        failed.unwrap_err();
        scene.store.reopen().await.unwrap();
        assert_eq!(index(&scene.store, &scene).await, 0);
    }

    /// A room key, shared with all members as the SDK would leave it.
    async fn shared_key(scene: &Scene) -> OutboundGroupSession {
        let keys = Arc::new(scene.account.identity_keys());
        let key = OutboundGroupSession::new(
            device_id!("BRIDGE").to_owned(),
            keys,
            room_id!("!r:x"),
            EncryptionSettings::default(),
        )
        .unwrap();
        key.mark_as_shared();
        let changes = Changes {
            outbound_group_sessions: vec![key.clone()],
            ..Changes::default()
        };
        scene.store.save_changes(changes).await.unwrap();
        settle(scene, &key);
        key
    }

    fn settle(scene: &Scene, key: &OutboundGroupSession) {
        let room = room_id!("!r:x");
        let recipients = scene.store.recipients(room);
        scene
            .store
            .note_key_shared(room, key.session_id(), recipients);
        assert!(scene.store.shared_key(room).is_some());
    }

    #[tokio::test]
    async fn a_rooms_key_is_used_without_the_sdk_until_its_recipients_may_have_changed() {
        let mut scene = Scene::open().await;
        let room = room_id!("!r:x");
        let key = shared_key(&scene).await;
        let is_good = |scene: &Scene| scene.store.shared_key(room).is_some();

        let before = scene.store.recipients(room);
        scene
            .store
            .save_changes(with_device(scene.device(7)))
            .await
            .unwrap();
        assert!(!is_good(&scene), "a device has changed");
        // A send that began before the change does not make the key valid again.
        scene.store.note_key_shared(room, key.session_id(), before);
        assert!(!is_good(&scene), "a device has changed meanwhile");

        settle(&scene, &key);
        let user = scene.ann.user_id();
        scene
            .store
            .save_tracked_users(&[(user, true)])
            .await
            .unwrap();
        assert!(!is_good(&scene), "somebody's devices must be asked for");

        settle(&scene, &key);
        scene.ann.generate_one_time_keys(1);
        let one_time = *scene.ann.one_time_keys().values().next().unwrap();
        let session = scene.account.create_outbound_session_helper(
            SessionConfig::version_1(),
            scene.ann.identity_keys().curve25519,
            one_time,
            false,
            scene.account.device_keys(),
        );
        scene
            .store
            .save_changes(of(session.unwrap()))
            .await
            .unwrap();
        assert!(!is_good(&scene), "a device can be reached that could not");

        settle(&scene, &key);
        scene.sync_saves(end_of_sync()).await;
        assert!(!is_good(&scene), "a sync may be changing the room");
        scene.store.save_tracked_users(&[]).await.unwrap();
        scene.store.sync_ended(Some(&SyncResponse::default()));
        assert!(is_good(&scene), "it has not changed the room");

        let mut answer = SyncResponse::default();
        let left = LeftRoomUpdate::default();
        answer.rooms.left.insert(room.to_owned(), left);
        scene.store.sync_ended(Some(&answer));
        assert!(!is_good(&scene), "the room has changed");

        settle(&scene, &key);
        key.invalidate_session();
        assert!(!is_good(&scene), "the key was discarded");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_while_the_sdk_looks_at_all_members_again() {
        let scene = Scene::open().await;
        shared_key(&scene).await;
        let room = room_id!("!r:x");
        tokio::time::advance(Duration::from_mins(9)).await;
        assert!(scene.store.shared_key(room).is_some());
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(scene.store.shared_key(room).is_none());
    }

    #[tokio::test]
    async fn a_key_to_send_with_is_not_written_and_still_found() {
        let scene = Scene::open().await;
        let key = shared_key(&scene).await;
        let room = room_id!("!r:x");
        let found = scene.store.get_outbound_group_session(room).await.unwrap();
        assert_eq!(found.unwrap().session_id(), key.session_id());
        let stored = Scene::stored(&scene.directory).await;
        assert!(
            stored
                .get_outbound_group_session(room)
                .await
                .unwrap()
                .is_none()
        );
    }
}
