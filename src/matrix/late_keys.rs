//! Late room keys: undecryptable entries are retried when a key or a change of a device arrives. Entries of devices
//! that do not become trusted are given up here; for keys that never arrive see `key_waits`.

use std::{collections::HashSet, sync::Arc};

use footbridge_core::{
    clock::Clock,
    inbox::{ArrivalContent, Inbox},
};
use footbridge_store::{DecryptedWith, SkipRule, Store, UndecryptableEvent};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::time::Instant;
use tracing::debug;

use super::{
    MatrixError,
    account_client::AccountClient,
    decrypt::as_received,
    event_fields::{DisplayNames, EventFields},
    event_reader::{Classification, EventReader, WaitReason},
    identities::Identities,
    journal_writer::JournalWriter,
    refusals::Refusals,
    trust_policy::TrustHold,
    undecryptable::UndecryptableNotices,
    unsigned_devices::{self, UnsignedNotices},
    unverified_sessions::UnverifiedSessions,
};

/// The outcome of retrying an entry.
struct RetryOutcome {
    payload: ArrivalContent,
    opened: Option<DecryptedWith>,
    /// The device that sent the entry.
    device: Option<String>,
}

/// What triggers a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wakeup {
    /// Room keys of these sessions arrived.
    Keys(Vec<String>),
    /// So many room keys arrived that their session ids were lost.
    ManyKeys,
    /// Devices or identities of other users changed.
    Devices,
    /// An admin has approved an identity.
    Approved,
}

/// Retries the waiting entries of one account.
#[derive(Debug)]
pub(super) struct LateKeys {
    pub account: AccountClient,
    pub store: Store,
    pub clock: Clock,
    pub reader: Arc<EventReader>,
    pub identities: Arc<Identities>,
    pub unverified_sessions: Arc<UnverifiedSessions>,
    pub refusals: Arc<Refusals>,
    pub notices: Arc<UndecryptableNotices>,
    pub unsigned_notices: Arc<UnsignedNotices>,
    pub journal: Arc<JournalWriter>,
}

impl LateKeys {
    /// The stream of events that may make waiting entries readable.
    pub(super) async fn wakeups(&self) -> Result<BoxStream<'static, Wakeup>, MatrixError> {
        let encryption = self.account.client().encryption();
        let broken = |error: matrix_sdk::Error| {
            MatrixError::CryptoStore(format!("the device changes cannot be watched: {error}"))
        };
        let keys = encryption
            .room_keys_received_stream()
            .await
            .ok_or_else(|| MatrixError::CryptoStore("encryption is not set up".into()))?
            .map(|keys| match keys {
                Ok(keys) => Wakeup::Keys(keys.into_iter().map(|key| key.session_id).collect()),
                Err(_) => Wakeup::ManyKeys,
            });
        let devices = encryption
            .devices_stream()
            .await
            .map_err(broken)?
            .map(|_| Wakeup::Devices);
        let identities = encryption
            .user_identities_stream()
            .await
            .map_err(broken)?
            .map(|_| Wakeup::Devices);
        let approvals = stream::unfold(self.identities.approvals(), |approved| async move {
            approved.notified().await;
            Some((Wakeup::Approved, approved))
        });
        let changes = stream::select(devices, stream::select(identities, approvals));
        Ok(stream::select(keys, changes).boxed())
    }

    /// Retries the entries that this wakeup concerns.
    pub(super) async fn handle_wakeup(
        &self,
        woken: Wakeup,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let sessions = match woken {
            Wakeup::ManyKeys => return self.retry(None, inbox).await,
            Wakeup::Keys(sessions) => sessions,
            Wakeup::Devices => {
                self.identities.notify_identity_changes(inbox).await?;
                self.retry_held(inbox).await?;
                self.unverified_sessions.all()
            }
            Wakeup::Approved => return self.retry_held(inbox).await,
        };
        for session in sessions {
            self.retry(Some(&session), inbox).await?;
        }
        Ok(())
    }

    /// The hourly maintenance, whatever else happens.
    pub(super) async fn sweep(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        self.store.compact_used_indexes(self.clock.now()).await?;
        self.identities.notify_identity_changes(inbox).await?;
        self.retry(None, inbox).await
    }

    /// Retries waiting entries: all, or those of one session.
    pub(super) async fn retry(
        &self,
        session: Option<&str>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        for waiting in self.store.undecryptable_events(session).await? {
            self.retry_entry(&waiting, inbox).await?;
        }
        self.journal.query_held_devices().await;
        Ok(())
    }

    /// Retries messages that were held for an identity that is approved by now, and messages that no identity had
    /// signed. If one message of a room key is still held, so are all later ones.
    async fn retry_held(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let mut held = HashSet::new();
        for waiting in self.store.releasable_trust_holds().await? {
            if !held.contains(&waiting.session) && !self.retry_entry(&waiting, inbox).await? {
                held.insert(waiting.session);
            }
        }
        Ok(())
    }

    /// Retries one waiting entry. Returns whether it no longer waits.
    async fn retry_entry(
        &self,
        waiting: &UndecryptableEvent,
        inbox: &Inbox,
    ) -> Result<bool, MatrixError> {
        let Some(RetryOutcome {
            payload,
            opened,
            device,
        }) = self.reread(waiting).await
        else {
            return Ok(false);
        };
        debug!(entry.id = %waiting.entry, "A waiting entry was resolved");
        if payload == ArrivalContent::Skipped(SkipRule::UntrustedDevice) {
            self.notices
                .notify_unsigned(waiting, device.as_deref(), inbox)
                .await?;
        } else {
            // The sender's device has become known, so the session is no longer watched.
            self.unverified_sessions.remove(&waiting.session);
        }
        self.journal
            .fill(waiting.entry, payload, opened, inbox)
            .await?;
        Ok(true)
    }

    /// Gives up entries whose sender's device did not become trusted in time.
    pub(super) async fn give_up(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        for session in self.unverified_sessions.due() {
            self.retry(Some(&session), inbox).await?;
            self.unverified_sessions.remove(&session);
        }
        Ok(())
    }

    /// When [`LateKeys::give_up`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.unverified_sessions.next_deadline()
    }

    /// The outcome of retrying an entry; `None` while it still waits.
    async fn reread(&self, waiting: &UndecryptableEvent) -> Option<RetryOutcome> {
        let room = self.account.room(&waiting.place)?;
        let came = as_received(waiting)?;
        let unsealed = self.reader.decrypt(&room, &came).await;
        let envelope = EventFields::open(&unsealed.event)?;
        let classification = self
            .reader
            .classify(
                &room,
                &unsealed,
                &envelope,
                &mut DisplayNames::default(),
                true,
            )
            .await;
        let payload = match classification {
            Classification::Message(message) => {
                self.unsigned_notices
                    .has_relayed(&waiting.place, &envelope.sender);
                message.into()
            }
            Classification::Command(command) => command.into(),
            Classification::Nothing => ArrivalContent::Skipped(SkipRule::NotAMessage),
            Classification::Skipped(rule) => ArrivalContent::Skipped(rule),
            Classification::Waits(WaitReason::Trust(TrustHold::Approval), _) => {
                let held = self.identities.suspect(&envelope.sender, &unsealed);
                self.identities
                    .hold_for_approval(waiting.entry, &held)
                    .await;
                return None;
            }
            Classification::Waits(WaitReason::Trust(hold), session) => {
                if self
                    .unverified_sessions
                    .hold(&session, &envelope.sender, hold)
                    > Instant::now()
                {
                    return None;
                }
                self.unverified_sessions
                    .warn_untrusted_sender(&envelope.sender);
                ArrivalContent::Skipped(SkipRule::UntrustedDevice)
            }
            Classification::Waits(WaitReason::Key, _) => return None,
        };
        if let ArrivalContent::Skipped(rule) = payload {
            self.refusals.refused(rule, &room);
        }
        Some(RetryOutcome {
            payload,
            opened: unsealed.opened_with(true),
            device: unsigned_devices::device_of(&unsealed, waiting),
        })
    }
}
