//! Disk space (D14): while it is low, the bridge reads nothing more from either side. Pending messages are still
//! delivered, since that frees space.

use std::{path::Path, time::Duration};

use footbridge_store::{TransientError, free_space};
use tokio::time::sleep;

use crate::config::StoreConfig;

/// The message of `SQLite` for a full disk (`SQLITE_FULL`).
const SQLITE_FULL: &str = "database or disk is full";
/// With fewer free bytes than this the bridge cannot start.
const MIN_START_SPACE: u64 = 1 << 20;
/// How often the bridge asks the file system.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Whether there is less space than the configuration asks for. A file system that does not tell counts as having
/// enough.
pub(super) fn is_low(config: &StoreConfig) -> bool {
    free(&config.path).is_some_and(|free| free < config.min_free)
}

/// Whether the bridge could not start or continue because disk space was missing.
pub(super) fn was_missing(error: &anyhow::Error, config: &StoreConfig) -> bool {
    let cause = error
        .downcast_ref::<footbridge_store::Error>()
        .and_then(footbridge_store::Error::transient_error);
    // The SDK's error has only SQLite's message, and there may be space again by now.
    cause == Some(TransientError::DiskFull)
        || format!("{error:#}").contains(SQLITE_FULL)
        || free(&config.path).is_some_and(|free| free < MIN_START_SPACE)
}

/// How many bytes are free, if the file system reports it.
pub(super) fn free(path: &Path) -> Option<u64> {
    free_space(path).ok()
}

/// Returns as soon as there is less space than the configuration asks for.
pub(super) async fn wait_until_low(config: &StoreConfig) {
    while !is_low(config) {
        sleep(POLL_INTERVAL).await;
    }
}

/// Returns as soon as there is enough space again.
pub(super) async fn wait_until_enough(config: &StoreConfig) {
    while is_low(config) {
        sleep(POLL_INTERVAL).await;
    }
}
