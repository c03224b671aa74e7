//! What Footbridge remembers, in one SQLite file: facts (journal), debts (outbox), where each copy of a
//! message lives (links), portals, our account, cursors, gaps and flags.
//!
//! The store keeps envelopes and never opens letters: a payload is bytes to it, sealed at rest, erased when
//! the last debt on it is paid. Every method is one verb of the bridge and one transaction. SQL lives nowhere
//! else. The store never reads a clock; it is told the time.

mod accounts;
mod error;
mod ids;
mod journal;
mod links;
mod outbox;
mod portals;
mod seal;

use std::path::{Path, PathBuf};

pub use accounts::{Account, Secret};
pub use error::Error;
pub use ids::{DeliveryId, EntryId, LaneId, Millis, Place, PortalId, RemoteId, Side};
pub use journal::{Accepted, Arrival, Batch, Flag, Gap, Payload, Waiting};
pub use links::{Copies, Copy};
pub use outbox::{Delivery, Head, Tally, Undelivered};
pub use portals::{Portal, PortalSpec};
pub use seal::StoreKey;

/// The open store. Cheap to clone; the last clone dropped closes the file and frees the lock.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens or creates the store in `directory` (created with mode 0700): takes the exclusive lock of the
    /// directory before anything is opened, migrates, and proves that `key` is the key it was sealed with.
    pub async fn open(directory: &Path, key: &StoreKey) -> Result<Self, Error> {
        let _ = (directory, key);
        unimplemented!()
    }

    /// The directory it lives in. The SDK's own stores stand beside it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Checkpoints the write-ahead log and truncates it.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Reads the tallies and portals of a store that another process may have open. Takes no lock, needs no
    /// key, writes nothing.
    pub async fn peek(directory: &Path) -> Result<Peek, Error> {
        let _ = directory;
        unimplemented!()
    }
}

/// What `status` may see of a store in use.
#[derive(Debug)]
pub struct Peek {
    /// The portals.
    pub portals: Vec<Portal>,
    /// One row per lane.
    pub tallies: Vec<Tally>,
    /// Our account, if there is one, with the secrets left out.
    pub account: Option<AccountFace>,
}

/// The public part of our account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFace {
    /// `@bridge:example.org`
    pub user_id: String,
    /// The device we are.
    pub device_id: String,
    /// The homeserver's base URL.
    pub homeserver: String,
    /// The device's Ed25519 fingerprint key, unpadded base64.
    pub ed25519: Option<String>,
    /// The account's public cross-signing master key, unpadded base64.
    pub master_key: Option<String>,
}
