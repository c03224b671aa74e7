//! Accepting arrivals into the inbox, and telling people what of them was refused or can be relayed again.

use std::{sync::Arc, time::Duration};

use footbridge_core::inbox::{ArrivalContent, Batch, Inbox};
use footbridge_store::{Accepted, DecryptedWith, EntryId};
use matrix_sdk::{Client, ruma::UserId};
use tokio::time::timeout;
use tracing::warn;

use super::{
    MatrixError, refusals::Refusals, undecryptable::UndecryptableNotices,
    unverified_sessions::UnverifiedSessions,
};

/// How long a query of a user's devices may block the sync loop.
const DEVICE_QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes what one account receives.
#[derive(Debug)]
pub(super) struct JournalWriter {
    client: Client,
    unverified_sessions: Arc<UnverifiedSessions>,
    refusals: Arc<Refusals>,
    notices: Arc<UndecryptableNotices>,
}

impl JournalWriter {
    pub(super) fn of(
        client: Client,
        unverified_sessions: Arc<UnverifiedSessions>,
        refusals: Arc<Refusals>,
        notices: Arc<UndecryptableNotices>,
    ) -> Self {
        Self {
            client,
            unverified_sessions,
            refusals,
            notices,
        }
    }

    /// Accepts a batch into the inbox, and reports what of it was refused.
    pub(super) async fn accept(
        &self,
        batch: Batch,
        inbox: &Inbox,
    ) -> Result<Vec<Accepted>, MatrixError> {
        let accepted = inbox.accept(batch).await?;
        let is_replay = |one: &&Accepted| **one == Accepted::Replayed;
        self.refusals
            .replayed(accepted.iter().filter(is_replay).count());
        self.query_held_devices().await;
        self.notices.notify_signed(inbox).await?;
        self.refusals.notify_plaintext(inbox).await?;
        Ok(accepted)
    }

    /// Gives a waiting entry its content, and reports a replay.
    pub(super) async fn fill(
        &self,
        entry: EntryId,
        payload: ArrivalContent,
        opened: Option<DecryptedWith>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let replayed = inbox.fill(entry, payload, opened).await?;
        self.refusals.replayed(usize::from(replayed));
        self.notices.notify_signed(inbox).await
    }

    /// Queries the devices of senders whose messages are held because no signature of their device is known. The SDK
    /// does that itself for the members of rooms whose encryption a sync reported, but not where the SDK requested the
    /// encryption state.
    pub(super) async fn query_held_devices(&self) {
        for user in self.unverified_sessions.take_unknown_senders() {
            let Ok(user) = UserId::parse(user) else {
                continue;
            };
            let encryption = self.client.encryption();
            let queried = timeout(
                DEVICE_QUERY_TIMEOUT,
                encryption.request_user_identity(&user),
            )
            .await;
            if !matches!(queried, Ok(Ok(_))) {
                warn!(matrix.user = %user, "Failed to query the devices of a sender");
            }
        }
    }
}
