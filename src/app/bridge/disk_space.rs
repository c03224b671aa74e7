//! Room on the disk (D14): while there is little, nothing more is read from either side. What is owed is still
//! delivered, since that frees space.

use std::{path::Path, time::Duration};

use footbridge_store::{TransientError, free_space};
use tokio::time::sleep;

use crate::config::StoreConfig;

/// What `SQLite` says of a full disk (`SQLITE_FULL`).
const SQLITE_FULL: &str = "database or disk is full";
/// With so little space nothing can be started.
const MIN_START_SPACE: u64 = 1 << 20;
/// How often the file system is asked.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Whether there is less space than the configuration wants. A file system that does not tell has enough.
pub(super) fn is_low(config: &StoreConfig) -> bool {
    free(&config.path).is_some_and(|free| free < config.min_free)
}

/// Whether it was for lack of space that the house could not start or go on.
pub(super) fn was_missing(error: &anyhow::Error, config: &StoreConfig) -> bool {
    let told = error
        .downcast_ref::<footbridge_store::Error>()
        .and_then(footbridge_store::Error::transient_error);
    // The SDK's error has no more than SQLite's words; and by now there may be space again.
    told == Some(TransientError::DiskFull)
        || format!("{error:#}").contains(SQLITE_FULL)
        || free(&config.path).is_some_and(|free| free < MIN_START_SPACE)
}

/// How many bytes are free, where the file system tells.
pub(super) fn free(path: &Path) -> Option<u64> {
    free_space(path).ok()
}

/// Returns as soon as there is less space than wanted.
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
