//! The lease (P12, P13): a record in the account data by which two copies of one store are detected. It names the
//! store's location, its epoch (how often the store was started or renewed), and when it was last seen.
//!
//! The epoch is written to the disk first and to the homeserver second, at the start, once a minute and at the end. A
//! kill in between leaves the disk ahead, which is harmless: a healthy store is never behind the record. A store that
//! is behind is an old copy. Its ratchets would encrypt different texts with keys that were used already, so it must
//! never be used again (B22). A current copy is detected by its location: while the other one was seen recently, it
//! does not start (B19). A store that was moved to another machine after a clean stop starts at once; after a kill, two
//! minutes later.
//!
//! The homeserver is trusted here: by lying it can keep a store from starting, or make an old copy look new.

use std::{os::unix::fs::MetadataExt, path::Path, time::Duration};

use footbridge_core::{backoff::Backoff, clock::Clock, crash_points};
use footbridge_store::{Millis, Store, StoreKey};
use matrix_sdk::{
    Client,
    ruma::{events::GlobalAccountDataEventType, serde::Raw},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{MatrixError, request_error::RequestError};

/// The prefix of the record's type; the device id follows.
pub(super) const ACCOUNT_DATA_TYPE: &str = "org.footbridge.lease";
/// How often the record is renewed.
const RENEW_INTERVAL: Duration = Duration::from_mins(1);
/// An instance that was seen within this time counts as running.
const ALIVE_WINDOW: Duration = Duration::from_mins(2);
/// How long releasing the lease may delay the end of the process.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// The lease record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LeaseRecord {
    /// The location of the store: a copy has another.
    instance: String,
    /// The process run that wrote it.
    run: String,
    /// How often the epoch was raised.
    epoch: u64,
    /// When it was written, in milliseconds since 1970; 0 when the lease was released.
    seen: i64,
}

/// This process, as a lease record names it.
#[derive(Debug)]
struct Holder {
    instance: String,
    run: String,
}

impl Holder {
    fn refuse_in_use(&self, record: &LeaseRecord, now: Millis) -> Result<(), MatrixError> {
        let seen = Millis(record.seen);
        let apart = if seen > now {
            seen.since(now)
        } else {
            now.since(seen)
        };
        if record.instance == self.instance || apart >= ALIVE_WINDOW {
            return Ok(());
        }
        Err(MatrixError::StoreInUse(format!(
            "a copy of this store is in use somewhere else and was seen {} s ago",
            apart.as_secs()
        )))
    }
}

/// This process's side of the lease of one device.
#[derive(Debug)]
pub(super) struct Lease {
    client: Client,
    store: Store,
    clock: Clock,
    holder: Holder,
    /// The epoch under which it is held, once it is.
    held: Mutex<Option<u64>>,
}

impl Lease {
    /// Does not take the lease yet.
    pub(super) fn of(client: Client, store: Store, key: &StoreKey, clock: Clock) -> Self {
        let place = place(store.directory());
        Self {
            client,
            store,
            clock,
            holder: Holder {
                // The hash hides this machine from the homeserver.
                instance: hex(&key.derive(&format!("lease of {place}"))),
                run: format!("{:016x}", rand::random::<u64>()),
            },
            held: Mutex::new(None),
        }
    }

    /// Takes the lease if it is not held yet. Called before anything is sent or synced; cheap once the lease is held.
    ///
    /// # Errors
    /// [`MatrixError::StaleStore`] and [`MatrixError::StoreInUse`] are final; if the homeserver did not answer, the
    /// call may be repeated.
    pub(super) async fn hold(&self) -> Result<(), MatrixError> {
        let mut held = self.held.lock().await;
        if held.is_some() {
            return Ok(());
        }
        let record = fetch(&self.client).await?;
        let now = self.clock.now();
        if let Some(record) = &record {
            refuse_old(record, &self.store).await?;
            self.holder.refuse_in_use(record, now)?;
        }
        *held = Some(self.raise(now).await?);
        Ok(())
    }

    /// Takes the lease, however long the homeserver does not answer. Returns whether it is held; `false` when stopped.
    pub(super) async fn acquire(&self, stop: &CancellationToken) -> Result<bool, MatrixError> {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.hold().await {
                Ok(()) => return Ok(true),
                Err(MatrixError::Unavailable(error)) => format!("{error:#}"),
                Err(error) => return Err(error),
            };
            let wait = backoff.failed();
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            warn!(
                wait_ms,
                error, "The homeserver does not answer; trying again"
            );
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = sleep(wait) => {}
            }
        }
    }

    /// Renews the lease. Returns only when it is lost.
    pub(super) async fn maintain(&self) -> MatrixError {
        loop {
            sleep(RENEW_INTERVAL).await;
            match self.renew().await {
                Ok(()) => {}
                Err(
                    lost @ (MatrixError::StoreInUse(_)
                    | MatrixError::StaleStore(_)
                    | MatrixError::Store(_)),
                ) => return lost,
                Err(error) => {
                    debug!(
                        error = format!("{error:#}"),
                        "Failed to renew the lease; trying again"
                    );
                }
            }
        }
    }

    /// Releases the lease, so that the store may start elsewhere at once. The last request of the account.
    pub(super) async fn release(&self) {
        let mut held = self.held.lock().await;
        if held.take().is_none() {
            return;
        }
        match timeout(RELEASE_TIMEOUT, self.raise(Millis(0))).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(error = format!("{error:#}"), "The lease was not released");
            }
            Err(_) => warn!("The lease was not released: the homeserver does not answer"),
        }
    }

    /// Disk first, homeserver second.
    async fn raise(&self, seen: Millis) -> Result<u64, MatrixError> {
        let epoch = self.store.raise_epoch(0).await?;
        crash_points::point("lease.raised");
        let record = LeaseRecord {
            instance: self.holder.instance.clone(),
            run: self.holder.run.clone(),
            epoch,
            seen: seen.0,
        };
        put(&self.client, &record).await?;
        crash_points::point("lease.written");
        Ok(epoch)
    }

    /// Renews the lease, unless another process has taken it.
    async fn renew(&self) -> Result<(), MatrixError> {
        let mut held = self.held.lock().await;
        let Some(epoch) = *held else { return Ok(()) };
        if let Some(record) = fetch(&self.client).await?
            && record.run != self.holder.run
            && record.epoch >= epoch
        {
            return Err(MatrixError::StoreInUse(
                "a copy of this store was started somewhere else meanwhile".into(),
            ));
        }
        *held = Some(self.raise(self.clock.now()).await?);
        Ok(())
    }
}

/// Refuses a store that is older than what the homeserver knows of its device.
pub(super) async fn refuse_old_store(client: &Client, store: &Store) -> Result<(), MatrixError> {
    match fetch(client).await? {
        Some(record) => refuse_old(&record, store).await,
        None => Ok(()),
    }
}

async fn refuse_old(record: &LeaseRecord, store: &Store) -> Result<(), MatrixError> {
    let known = store.epoch().await?;
    if record.epoch <= known {
        return Ok(());
    }
    Err(MatrixError::StaleStore(format!(
        "this store's lease epoch is {known}, the homeserver's is {}",
        record.epoch
    )))
}

/// The account data type of this device's record.
fn kind(client: &Client) -> Result<GlobalAccountDataEventType, MatrixError> {
    let device = client.device_id().ok_or(MatrixError::NoAccount)?;
    Ok(format!("{ACCOUNT_DATA_TYPE}.{device}").into())
}

async fn fetch(client: &Client) -> Result<Option<LeaseRecord>, MatrixError> {
    let record = client.account().fetch_account_data(kind(client)?).await;
    let record = record.map_err(|error| failed(&error))?;
    // A record of another form was not written by the bridge.
    Ok(record.and_then(|raw| raw.deserialize_as_unchecked().ok()))
}

async fn put(client: &Client, record: &LeaseRecord) -> Result<(), MatrixError> {
    let raw = Raw::new(record)
        .map_err(|error| MatrixError::Unavailable(error.into()))?
        .cast_unchecked();
    client
        .account()
        .set_account_data_raw(kind(client)?, raw)
        .await
        .map(drop)
        .map_err(|error| failed(&error))
}

/// No answer of the homeserver here is about a room.
fn failed(error: &matrix_sdk::Error) -> MatrixError {
    match RequestError::from(error).into_matrix_error("take the lease of the store") {
        MatrixError::NoRoom(why) => MatrixError::Unavailable(anyhow::anyhow!(why)),
        other => other,
    }
}

/// The location of the store: the machine and the directory itself, whatever its name. Moved within a disk it stays the
/// same, copied it does not.
fn place(directory: &Path) -> String {
    let read = |path| std::fs::read_to_string(path).ok();
    let machine = read("/etc/machine-id")
        .or_else(|| read("/proc/sys/kernel/hostname"))
        .unwrap_or_default();
    let metadata = std::fs::metadata(directory);
    let (disk, node) = metadata.map_or((0, 0), |metadata| (metadata.dev(), metadata.ino()));
    format!("{} {disk} {node}", machine.trim())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().take(8).fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(instance: &str, seen: i64) -> LeaseRecord {
        LeaseRecord {
            instance: instance.into(),
            run: "r".into(),
            epoch: 3,
            seen,
        }
    }

    #[test]
    fn p12_only_another_place_seen_lately_is_in_the_way() {
        let holder = Holder {
            instance: "here".into(),
            run: "mine".into(),
        };
        let now = Millis(10_000_000);
        let table = [
            (record("here", now.0), true),
            (record("there", now.0 - 119_000), false),
            (record("there", now.0 + 119_000), false),
            (record("there", now.0 - 121_000), true),
            (record("there", now.0 + 121_000), true),
            (record("there", 0), true),
        ];
        for (record, may_start) in table {
            assert_eq!(
                holder.refuse_in_use(&record, now).is_ok(),
                may_start,
                "{record:?}"
            );
        }
    }

    #[test]
    fn p12_a_copied_directory_is_another_place_and_a_renamed_one_is_not() {
        let files = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|name| files.path().join(name));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        assert_ne!(place(&one), place(&two));
        let before = place(&one);
        std::fs::rename(&one, &three).unwrap();
        assert_eq!(place(&three), before);
    }
}
