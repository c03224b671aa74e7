//! What Footbridge remembers, in one `SQLite` file: facts (journal), debts (outbox), where each copy of a
//! message lives (links), portals, our account, cursors, gaps and flags.
//!
//! The store keeps envelopes and never opens letters: a payload is bytes to it, sealed at rest, erased when
//! the last debt on it is paid. Every method is one verb of the bridge and one transaction. SQL lives nowhere
//! else. The store never reads a clock; it is told the time.

mod error;
mod ids;
mod journal;
mod payload;
mod progress;
mod keyless;
mod invites;
mod outbox;
mod setback;
mod behind;
mod bundle;
mod crossed;
mod head;
mod settle;
mod parked;
mod edits;
mod revisions;
mod rewritten;
mod changes;
mod bulletins;
mod closed;
mod commands;
mod story;
mod links;
mod reactions;
mod told;
mod pictures;
mod said;
mod offers;
mod writers;
mod rivals;
mod replay;
mod trust;
mod unlinked;
mod linked;
mod along;
mod notices;
mod missing;
mod telling;
mod portals;
mod paths;
mod openings;
mod removal;
mod desks;
mod holds;
mod consent;
mod wishes;
mod people;
mod upgrades;
mod accounts;
mod lease;
mod retired;
mod peek;
mod columns;
mod seal;
mod database;
mod hindrance;
mod directory;
mod migrate;
mod starting;
mod statistics;

use std::{path::Path, sync::Arc};

use database::{Database, Desk, Fault, off_thread};

pub use accounts::{Account, AccountFace, Secret};
pub use along::Along;
pub use bulletins::{Compose, NoticeState, Topic};
pub use bundle::{Bundle, Rewritten};
pub use changes::Change;
pub use closed::Closed;
pub use commands::Command;
pub use consent::{Consent, Linking};
pub use error::Error;
pub use head::Turn;
pub use hindrance::{Hindrance, free_space};
pub use holds::Hold;
pub use ids::{DeliveryId, EntryId, LaneId, Millis, Place, PortalId, RemoteId, Side};
pub use invites::RefusedInvite;
pub use journal::{Accepted, Arrival, Batch, Waiting};
pub use keyless::Keyless;
pub use linked::Linked;
pub use links::{Copies, Copy, Emptied};
pub use missing::{Overdue, Resolved};
pub use openings::LinkMark;
pub use outbox::{Delivery, Doubt, Head, Tally, Tell, Undelivered};
pub use parked::{Parked, ParkedState};
pub use payload::Payload;
pub use peek::Peek;
pub use people::{Scope, Screened};
pub use portals::{Origin, Portal, PortalSpec};
pub use progress::{Flag, Gap};
pub use reactions::{Reacting, Reaction};
pub use removal::Removed;
pub use replay::{Opened, Read};
pub use retired::{FormerSend, Retired};
pub use revisions::{Revision, Shows, TakenBack};
pub use rewritten::EDIT_REDACTED;
pub use rivals::Rival;
pub use seal::StoreKey;
pub use setback::Setback;
pub use statistics::forget_statistics;
pub use story::{Stand, Story};
pub use telling::{Telling, Tells};
pub use trust::Suspect;
pub use unlinked::Shown;
pub use upgrades::{Tombstone, Upgrade};
pub use wishes::Wish;

/// The open store. Cheap to clone; the last clone dropped closes the file and frees the lock.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("directory", &self.database.directory)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the store in `directory` (created with mode 0700): takes the exclusive lock of the
    /// directory before anything is opened, migrates, and proves that `key` is the key it was sealed with.
    pub async fn open(directory: &Path, key: &StoreKey) -> Result<Self, Error> {
        let directory = directory.to_owned();
        let key = key.copy();
        let database = off_thread(move || Database::open(&directory, &key)).await?;
        Ok(Self {
            database: Arc::new(database),
        })
    }

    /// The directory it lives in. The SDK's own stores stand beside it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.database.directory
    }

    /// Checkpoints the write-ahead log and truncates it.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        let database = self.database.clone();
        off_thread(move || database.checkpoint()).await
    }

    async fn transaction<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl Fn(&Desk<'_>) -> Result<T, Fault> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        self.persist(move |database| database.transaction(doing, &work))
            .await
    }

    async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl Fn(&Desk<'_>) -> Result<T, Fault> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        self.persist(move |database| database.read(doing, &work))
            .await
    }
}
