//! The SDK's client of a test user: databases, encryption settings, syncs.

use std::{path::Path, time::Duration};

use matrix_sdk::{
    Client, SqliteCryptoStore, SqliteStateStore, SqliteStoreConfig,
    config::{RequestConfig, StoreConfig, SyncSettings},
    cross_process_lock::CrossProcessLockConfig,
    encryption::{BackupDownloadStrategy, EncryptionSettings},
    ruma::{
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

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Builds a client that is not logged in yet, with databases in this directory. With `signed_only` only cross-signed devices
/// count: it sends room keys to no others, and decrypts nothing of others.
pub(super) async fn build(
    homeserver: &str,
    directory: &Path,
    signed_only: bool,
) -> anyhow::Result<Client> {
    tokio::fs::create_dir_all(directory).await?;
    // The SDK's `PRAGMA optimize` counts the rows of a new database once, and SQLite scans large tables from then on.
    let config = SqliteStoreConfig::with_low_memory_config(directory).optimize(false);
    let stores = StoreConfig::new(CrossProcessLockConfig::SingleProcess)
        .crypto_store(SqliteCryptoStore::open_with_config(&config).await?)
        .state_store(SqliteStateStore::open_with_config(&config).await?);
    let (recipients, senders) = if signed_only {
        let devices = CollectStrategy::IdentityBasedStrategy;
        (devices, TrustRequirement::CrossSigned)
    } else {
        (CollectStrategy::AllDevices, TrustRequirement::Untrusted)
    };
    let requests = RequestConfig::new()
        .disable_retry()
        .timeout(REQUEST_TIMEOUT);
    let client = Client::builder()
        .homeserver_url(homeserver)
        .store_config(stores)
        .cross_process_store_config(CrossProcessLockConfig::SingleProcess)
        .request_config(requests)
        .respect_login_well_known(false)
        .with_enable_share_history_on_invite(false)
        .with_encryption_settings(EncryptionSettings {
            auto_enable_cross_signing: false,
            backup_download_strategy: BackupDownloadStrategy::Manual,
            auto_enable_backups: false,
        })
        .with_room_key_recipient_strategy(recipients)
        .with_decryption_settings(DecryptionSettings {
            sender_device_trust_requirement: senders,
        })
        .build()
        .await?;
    Ok(client)
}

/// One long poll of at most `timeout`, with all members of a room at once.
///
/// # Errors
/// Those of `Client::sync_once`.
pub(super) async fn sync(client: &Client, timeout: Duration) -> matrix_sdk::Result<SyncResponse> {
    let mut filter = FilterDefinition::default();
    filter.room.timeline.limit = Some(uint!(100));
    filter.room.timeline.lazy_load_options = LazyLoadOptions::Disabled;
    filter.room.state.lazy_load_options = LazyLoadOptions::Disabled;
    let settings = SyncSettings::new()
        .filter(Filter::FilterDefinition(filter))
        .timeout(timeout)
        .set_presence(PresenceState::Offline);
    client.sync_once(settings).await
}
