//! The state of Footbridge, in one `SQLite` file: events (journal), pending deliveries (outbox), the copies of each message
//! (links), portals, the bridge's account, cursors, gaps and flags.
//!
//! The store does not look into payloads: a payload is bytes to it, sealed at rest, and erased when no delivery needs it any
//! more. Every method is one operation of the bridge and one transaction. No other package contains SQL for it. The store never
//! reads a clock; the caller gives the time.

mod error;
mod ids;
mod batch;
mod journal;
mod payload;
mod skip_rule;
mod cursors;
mod senders_without_keys;
mod refused_invites;
mod outbox;
mod retry;
mod behind;
mod bundles;
mod delivered_texts;
mod queue;
mod copies;
mod failed_sends;
mod counters;
mod parked;
mod parked_state;
mod edits;
mod redacted_edits;
mod rewritten;
mod pending_changes;
mod status_notices;
mod closed_lanes;
mod commands;
mod delivery_status;
mod links;
mod reactions;
mod reaction_summaries;
mod avatars;
mod event_digests;
mod media_links;
mod writers;
mod peer_bridges;
mod replay;
mod trust;
mod before_link;
mod linked;
mod cascades;
mod notices;
mod undecryptable;
mod undecryptable_notices;
mod portals;
mod routes;
mod link_barriers;
mod removal;
mod management_rooms;
mod holds;
mod consent;
mod portal_requests;
mod opt_outs;
mod room_upgrades;
mod accounts;
mod senders;
mod persons;
mod epoch;
mod former_devices;
mod snapshot;
mod columns;
mod seal;
mod database;
mod transient_error;
mod directory;
mod migrate;
mod starting;
mod query_planner;

use std::{path::Path, sync::Arc};

use database::{Database, Tx, TxError, run_blocking};

pub use accounts::{Account, AccountInfo, AccountRole, SecretBytes};
pub use batch::{Arrival, Batch};
pub use before_link::SeenEvent;
pub use bundles::{Bundle, BundlePart, MergedMessage};
pub use cascades::Cascade;
pub use closed_lanes::ClosedLane;
pub use commands::Command;
pub use consent::{ApprovedRequest, Consent};
pub use copies::{Copies, Copy};
pub use cursors::{Flag, Gap};
pub use delivery_status::{DeliveryStatus, MessageStatus};
pub use edits::EditResult;
pub use error::Error;
pub use failed_sends::FailedSend;
pub use former_devices::{FormerDevice, FormerSend};
pub use holds::PortalHold;
pub use ids::{
    AccountId, DeliveryId, EntryId, LaneId, MessageRef, Millis, Place, PortalId, RemoteId, Side,
};
pub use journal::{Accepted, UndecryptableEvent};
pub use link_barriers::LinkBarrier;
pub use linked::LinkedMessage;
pub use links::Emptied;
pub use opt_outs::{Scope, ScreenResult};
pub use outbox::{Delivery, FailureNotice, LaneCounters, QueueHead, Undelivered, UnknownOutcome};
pub use parked::ParkedDelivery;
pub use parked_state::ParkedState;
pub use payload::Payload;
pub use peer_bridges::PeerClaim;
pub use pending_changes::{Cancelled, Change};
pub use persons::{PersonAccount, PersonCode};
pub use portal_requests::PortalRequest;
pub use portals::{Portal, PortalSource, PortalSpec};
pub use query_planner::forget_statistics;
pub use queue::QueueOrder;
pub use reactions::{Reaction, ReactionChange};
pub use redacted_edits::{RedactedEdit, Revision, ShownText, TextCarrier};
pub use refused_invites::RefusedInvite;
pub use removal::Removed;
pub use replay::{DecryptedWith, FillResult};
pub use retry::RetryDecision;
pub use room_upgrades::{RoomUpgrade, Tombstone};
pub use seal::StoreKey;
pub use senders::{ChosenSender, OwnAccount};
pub use senders_without_keys::SenderWithoutKeys;
pub use skip_rule::{SkipRule, UnknownSkipRule};
pub use snapshot::Snapshot;
pub use status_notices::{RenderNotice, StatusNotice, StatusTopic};
pub use transient_error::{TransientError, free_space};
pub use trust::HeldIdentity;
pub use undecryptable::{KeyWait, ResolvedGroup};
pub use undecryptable_notices::{UndecryptableNotice, UndecryptableText};

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
    /// Opens or creates the store in `directory` (created with mode 0700): takes the exclusive lock of the directory before
    /// anything is opened, migrates, and proves that `key` is the key it was sealed with.
    pub async fn open(directory: &Path, key: &StoreKey) -> Result<Self, Error> {
        let directory = directory.to_owned();
        let key = key.copy();
        let database = run_blocking(move || Database::open(&directory, &key)).await?;
        Ok(Self {
            database: Arc::new(database),
        })
    }

    /// The directory of the store. The SDK's own stores are in it, too.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.database.directory
    }

    /// Checkpoints the write-ahead log and truncates it.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        let database = self.database.clone();
        run_blocking(move || database.checkpoint()).await
    }

    async fn transaction<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Fn(&Tx<'_>) -> Result<T, TxError> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        self.retry_transient(move |database| database.transaction(operation, &work))
            .await
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Fn(&Tx<'_>) -> Result<T, TxError> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        self.retry_transient(move |database| database.read(operation, &work))
            .await
    }
}
