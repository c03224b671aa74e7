//! Builds the SDK's client. Every setting that must differ from the SDK's default is set here and nowhere else.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use matrix_sdk::{
    Client, ClientBuildError, SqliteCryptoStore, SqliteStateStore, SqliteStoreConfig,
    config::{RequestConfig, StoreConfig, SyncSettings},
    cross_process_lock::CrossProcessLockConfig,
    encryption::{BackupDownloadStrategy, EncryptionSettings},
    ruma::{
        OwnedRoomId, OwnedUserId,
        api::client::{
            filter::{FilterDefinition, LazyLoadOptions},
            sync::sync_events::v3::Filter,
        },
        presence::PresenceState,
        uint,
    },
    sync::SyncResponse,
};
use matrix_sdk_base::crypto::{CollectStrategy, DecryptionSettings, TrustRequirement};

use super::{
    Homeserver, MatrixError, Trust,
    crypto_store::{self, BufferedCryptoStore},
    databases,
    identity_pins::IdentityPins,
    lease,
};

/// How long one request may take; the timeout of the long poll is added to it.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What a client is built from.
pub(super) struct ClientOptions<'a> {
    /// The server.
    pub homeserver: &'a Homeserver,
    /// Where the SDK's databases are.
    pub directory: &'a Path,
    /// The key that encrypts the databases.
    pub key: &'a [u8; 32],
    /// Which devices get room keys, and whose messages are decrypted.
    pub trust: Trust,
    /// The one HTTP client.
    pub http: reqwest::Client,
    /// The pinned identities, which decide who gets room keys.
    pub pins: Arc<IdentityPins>,
}

/// Opens the SDK's databases and builds a client that is not logged in yet. A client can be logged in once: the SDK
/// panics at a second time.
pub(super) async fn build(parts: ClientOptions<'_>) -> Result<Client, MatrixError> {
    Ok(build_with_keys(parts).await?.0)
}

/// The same, with a handle on the client's crypto store.
pub(super) async fn build_with_keys(
    parts: ClientOptions<'_>,
) -> Result<(Client, Arc<BufferedCryptoStore>), MatrixError> {
    make_directory(parts.directory)?;
    databases::drop_statistics(parts.directory)
        .await
        .map_err(|error| keys(&error))?;
    let config = store_config(parts.directory, parts.key);
    let crypto = SqliteCryptoStore::open_with_config(&config)
        .await
        .map_err(|error| keys(&error))?;
    let state = SqliteStateStore::open_with_config(&config)
        .await
        .map_err(|error| keys(&error))?;
    // The event cache and the media store stay in memory and unused: on disk they would keep decrypted text.
    let crypto = Arc::new(BufferedCryptoStore::new(crypto, parts.pins));
    let stores = StoreConfig::new(CrossProcessLockConfig::SingleProcess)
        .crypto_store(crypto.clone())
        .state_store(state);

    let builder = Client::builder()
        .store_config(stores)
        .cross_process_store_config(CrossProcessLockConfig::SingleProcess)
        .http_client(parts.http)
        .request_config(requests())
        .respect_login_well_known(false)
        .handle_refresh_tokens()
        // People who are invited later never get the keys of the history.
        .with_enable_share_history_on_invite(false)
        .with_encryption_settings(encryption())
        .with_room_key_recipient_strategy(recipients(parts.trust))
        .with_decryption_settings(decryption(parts.trust));
    let builder = match parts.homeserver {
        Homeserver::Url(url) => builder.homeserver_url(url),
        Homeserver::Name(name) => builder.server_name(name),
    };
    let client = builder.build().await.map_err(|error| match error {
        ClientBuildError::SqliteStore(error) => keys(&error),
        error => MatrixError::Unavailable(anyhow::Error::new(error)),
    })?;
    Ok((client, crypto))
}

/// How the SDK's databases are opened everywhere: without `PRAGMA optimize`, which counts rows once, when a store is
/// new, and makes `SQLite` plan by those counts for ever ([`databases::drop_statistics`]).
pub(super) fn store_config(directory: &Path, key: &[u8; 32]) -> SqliteStoreConfig {
    SqliteStoreConfig::with_low_memory_config(directory)
        .key(Some(key))
        .optimize(false)
}

/// A client without stores, for requests without encryption: the login before there is a directory for keys, and the
/// logout.
pub(super) async fn build_without_stores(
    homeserver: &Homeserver,
    http: reqwest::Client,
) -> Result<Client, MatrixError> {
    let builder = Client::builder()
        .http_client(http)
        .request_config(requests())
        .respect_login_well_known(false)
        .handle_refresh_tokens()
        .with_encryption_settings(encryption());
    let builder = match homeserver {
        Homeserver::Url(url) => builder.homeserver_url(url),
        Homeserver::Name(name) => builder.server_name(name),
    };
    let built = builder.build().await;
    built.map_err(|error| MatrixError::Unavailable(anyhow::Error::new(error)))
}

/// The bridge retries by itself, so a request that fails returns its error at once.
fn requests() -> RequestConfig {
    RequestConfig::new()
        .disable_retry()
        .timeout(REQUEST_TIMEOUT)
}

/// The SDK does nothing by itself: the login creates the identity and the backup, and keys from a backup are no reason
/// to relay a message.
fn encryption() -> EncryptionSettings {
    EncryptionSettings {
        auto_enable_cross_signing: false,
        backup_download_strategy: BackupDownloadStrategy::Manual,
        auto_enable_backups: false,
    }
}

/// Which devices get the bridge's room keys.
fn recipients(trust: Trust) -> CollectStrategy {
    match trust {
        Trust::CrossSigned => CollectStrategy::IdentityBasedStrategy,
        Trust::AnyDevice => CollectStrategy::AllDevices,
    }
}

/// Whose messages are decrypted.
fn decryption(trust: Trust) -> DecryptionSettings {
    DecryptionSettings {
        sender_device_trust_requirement: match trust {
            Trust::CrossSigned => TrustRequirement::CrossSigned,
            Trust::AnyDevice => TrustRequirement::Untrusted,
        },
    }
}

/// One long poll of at most `timeout`. It sets the presence to offline: whoever shares the account decides about its
/// presence. Every sync uses this function, so that the crypto store knows which writes belong to a sync.
///
/// # Errors
/// Those of `Client::sync_once`.
pub(super) async fn sync(client: &Client, timeout: Duration) -> matrix_sdk::Result<SyncResponse> {
    let settings = SyncSettings::new()
        .filter(Filter::FilterDefinition(filter()))
        .timeout(timeout)
        .set_presence(PresenceState::Offline);
    crypto_store::within_sync(client.sync_once(settings)).await
}

/// What a sync of a device brings that reads no messages.
pub(super) struct StateSync {
    /// The rooms whose members and settings it follows.
    pub rooms: Vec<OwnedRoomId>,
    /// Whether to bring the whole state, and not only what has changed.
    pub whole: bool,
    /// How long the homeserver may hold it open.
    pub timeout: Duration,
}

impl StateSync {
    /// No room, only what is sent to the device.
    pub(super) fn none() -> Self {
        Self {
            rooms: Vec::new(),
            whole: false,
            timeout: Duration::ZERO,
        }
    }
}

/// One long poll that brings no messages: what the device needs to encrypt in these rooms, and what is sent to the device itself.
///
/// # Errors
/// Those of `Client::sync_once`.
pub(super) async fn sync_state(
    client: &Client,
    wanted: StateSync,
) -> matrix_sdk::Result<SyncResponse> {
    let mut filter = filter();
    filter.account_data.not_types = Vec::new();
    filter.account_data.types = Some(Vec::new());
    filter.room.rooms = Some(wanted.rooms);
    filter.room.timeline.types = Some(
        [
            "m.room.encryption",
            "m.room.history_visibility",
            "m.room.member",
            "m.room.power_levels",
            "m.room.tombstone",
        ]
        .map(ToOwned::to_owned)
        .to_vec(),
    );
    let settings = SyncSettings::new()
        .filter(Filter::FilterDefinition(filter))
        .full_state(wanted.whole)
        .timeout(wanted.timeout)
        .set_presence(PresenceState::Offline);
    crypto_store::within_sync(client.sync_once(settings)).await
}

/// What a sync brings. Homeservers cap the timeline at 100 events whatever the request says; further events come
/// through gaps.
///
/// Members come at once and not with their first messages. For an encrypted room the SDK requests all of them anyway.
/// Synapse remembers lazily sent members per device and not per room: it would send those of several rooms again with
/// every message, and report each time that their devices changed. The SDK then queries the devices and lets every send
/// wait for the answer, up to five seconds, behind a lock that the query itself needs.
///
/// Each process uses a filter of its own. For two minutes Synapse answers a sync with the same filter from the same
/// position with its earlier response: a process that starts where a killed one had started would get an empty
/// response.
fn filter() -> FilterDefinition {
    static PROCESS: LazyLock<Option<OwnedUserId>> = LazyLock::new(|| {
        let process: u64 = rand::random();
        format!("@{process:016x}:invalid").try_into().ok()
    });
    let mut filter = FilterDefinition::default();
    // The filter requests no presence at all, so this changes nothing else.
    filter.presence.not_senders = PROCESS.iter().cloned().collect();
    // The bridge's own lease is renewed every minute and must not end the long poll.
    filter.account_data.not_types = vec![format!("{}.*", lease::ACCOUNT_DATA_TYPE)];
    filter.presence.types = Some(Vec::new());
    filter.room.account_data.types = Some(Vec::new());
    filter.room.ephemeral.types = Some(Vec::new());
    filter.room.timeline.limit = Some(uint!(100));
    filter.room.timeline.lazy_load_options = LazyLoadOptions::Disabled;
    filter.room.state.lazy_load_options = LazyLoadOptions::Disabled;
    filter
}

fn keys(error: &dyn std::error::Error) -> MatrixError {
    MatrixError::CryptoStore(format!("the encryption store could not be opened: {error}"))
}

/// Creates the directory, accessible to this user only.
fn make_directory(path: &Path) -> Result<(), MatrixError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| {
            MatrixError::Store(footbridge_store::Error::Io {
                path: path.to_owned(),
                source,
            })
        })
}

#[cfg(test)]
mod tests {
    use matrix_sdk_crypto::{
        Account, DeviceData,
        store::{
            CryptoStore as _,
            types::{Changes, PendingChanges},
        },
    };
    use ruma::user_id;

    use super::*;

    // The settings that are fixed at compile time, and that nothing calls what is left out here, are checked in
    // `tests/bridge/hostile.rs`.
    #[tokio::test]
    async fn p01_p02_p03_every_switch_has_its_required_value() {
        for (trust, wanted) in [
            (Trust::CrossSigned, "CrossSigned"),
            (Trust::AnyDevice, "Untrusted"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let client = build(ClientOptions {
                homeserver: &Homeserver::Url("http://127.0.0.1:9".parse().unwrap()),
                directory: &directory.path().join("matrix"),
                key: &[7; 32],
                trust,
                http: footbridge_core::http_client::client().unwrap(),
                pins: Arc::default(),
            })
            .await
            .unwrap();
            let settings = client.decryption_settings();
            let requirement = format!("{:?}", settings.sender_device_trust_requirement);
            assert_eq!(requirement, wanted);
            assert!(!client.event_cache().has_subscribed());
        }

        let requests = format!("{:?}", requests());
        assert!(requests.contains("retry_limit: 0"), "{requests}");
        assert!(requests.contains("timeout: Some(30s)"), "{requests}");

        let encryption = encryption();
        assert!(!encryption.auto_enable_cross_signing && !encryption.auto_enable_backups);
        assert_eq!(
            encryption.backup_download_strategy,
            BackupDownloadStrategy::Manual
        );

        assert!(matches!(
            recipients(Trust::CrossSigned),
            CollectStrategy::IdentityBasedStrategy
        ));
        assert!(matches!(
            recipients(Trust::AnyDevice),
            CollectStrategy::AllDevices
        ));
        let wanted = |trust| decryption(trust).sender_device_trust_requirement;
        assert!(matches!(
            wanted(Trust::CrossSigned),
            TrustRequirement::CrossSigned
        ));
        assert!(matches!(
            wanted(Trust::AnyDevice),
            TrustRequirement::Untrusted
        ));

        let filter = serde_json::to_value(filter()).unwrap();
        let wanted = serde_json::json!({
            "account_data": {"not_types": ["org.footbridge.lease.*"]},
            "presence": {"not_senders": filter["presence"]["not_senders"], "types": []},
            "room": {
                "account_data": {"types": []},
                "ephemeral": {"types": []},
                "timeline": {"limit": 100},
            },
        });
        assert_eq!(filter, wanted);
        let words = filter["presence"]["not_senders"][0].as_str().unwrap();
        assert_eq!(words.len(), "@0123456789abcdef:invalid".len());
    }
    /// The queries on the SDK's tables that the SDK makes once for each member of a room and message.
    const LOOK_UPS: [(&str, &str); 3] = [
        ("crypto", "SELECT data FROM device WHERE user_id = ?"),
        (
            "crypto",
            "SELECT data FROM device WHERE user_id = ? AND device_id = ?",
        ),
        ("crypto", "SELECT data FROM session WHERE sender_key = ?"),
    ];

    /// Opens the stores in a directory and closes them again, as a process does, with one device more each time.
    async fn run(directory: &Path, device: &str) {
        let parts = ClientOptions {
            homeserver: &Homeserver::Url("http://127.0.0.1:9".parse().unwrap()),
            directory,
            key: &[7; 32],
            trust: Trust::CrossSigned,
            http: footbridge_core::http_client::client().unwrap(),
            pins: Arc::default(),
        };
        let (client, keys) = build_with_keys(parts).await.unwrap();
        let account = Account::with_device_id(user_id!("@bridge:x"), device.into());
        let mut changes = Changes::default();
        changes.devices.new = vec![DeviceData::from_account(&account)];
        let pending = PendingChanges {
            account: Some(account),
        };
        keys.save_pending_changes(pending).await.unwrap();
        keys.save_changes(changes).await.unwrap();
        keys.close().await.unwrap();
        drop(client);
    }

    fn database(directory: &Path, name: &str) -> rusqlite::Connection {
        rusqlite::Connection::open(directory.join(format!("matrix-sdk-{name}.sqlite3"))).unwrap()
    }

    /// The queries for which a connection that is opened now would scan a whole table.
    fn scans(directory: &Path) -> Vec<String> {
        let mut scans = Vec::new();
        for (name, query) in LOOK_UPS {
            let database = database(directory, name);
            let explain = format!("EXPLAIN QUERY PLAN {query}").replace('?', "x'00'");
            let plan: String = database
                .query_row(&explain, [], |row| row.get("detail"))
                .unwrap();
            if plan.contains("SCAN") {
                scans.push(format!("{query}: {plan}"));
            }
        }
        scans
    }

    fn has_statistics(directory: &Path, name: &str) -> bool {
        let database = database(directory, name);
        database.table_exists(None, "sqlite_stat1").unwrap()
    }

    #[tokio::test]
    async fn a_store_that_was_opened_with_one_device_still_looks_members_up_by_index() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("matrix");
        run(&directory, "FIRST").await;
        // Here the SDK's default would count rows: one device.
        run(&directory, "SECOND").await;
        assert_eq!(scans(&directory), Vec::<String>::new());
    }

    #[tokio::test]
    async fn statistics_of_an_empty_store_are_removed_before_the_sdk_opens_it() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("matrix");
        run(&directory, "FIRST").await;
        for name in ["crypto", "state"] {
            database(&directory, name)
                .execute_batch(
                    "ANALYZE;
                     DELETE FROM sqlite_stat1;
                     INSERT INTO sqlite_stat1
                     SELECT tbl_name, name, '1 1' FROM sqlite_schema WHERE type = 'index';",
                )
                .unwrap();
            assert!(has_statistics(&directory, name));
        }
        assert!(!scans(&directory).is_empty(), "the statistics do no harm");

        run(&directory, "SECOND").await;
        assert_eq!(scans(&directory), Vec::<String>::new());
        for name in ["crypto", "state"] {
            assert!(!has_statistics(&directory, name), "{name}");
        }
    }
}
