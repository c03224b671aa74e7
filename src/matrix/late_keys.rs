//! Late room keys: undecryptable entries are retried when a key or a change of a device arrives. Entries of devices
//! that do not become trusted are given up here; for keys that never arrive see `undecryptable`.

use std::{
    collections::{HashMap, HashSet},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_core::inbox::{ArrivalContent, Batch, Inbox};
use footbridge_store::{Accepted, DecryptedWith, SkipRule, UndecryptableEvent};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use matrix_sdk::ruma::UserId;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{
    Matrix, MatrixError, Timeouts,
    timeline::{Classification, DisplayNames, EventFields, WaitReason},
    trust_policy::TrustHold,
    unsigned_devices,
};

/// How long it may take until the sender's device is known to be signed. Device changes arrive by other ways than
/// messages and may come after them.
const TRUST_WAIT: Duration = Duration::from_secs(10);
/// How long a query of a user's devices may block the sync loop.
const DEVICE_QUERY_TIMEOUT: Duration = Duration::from_secs(10);

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

impl Matrix {
    /// The stream of events that may make waiting entries readable.
    pub(super) async fn wakeups(&self) -> Result<BoxStream<'static, Wakeup>, MatrixError> {
        let encryption = self.client.encryption();
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
        let approvals = stream::unfold(self.approved.clone(), |approved| async move {
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
                self.notify_identity_changes(inbox).await?;
                self.retry_held(inbox).await?;
                self.unverified_sessions().keys().cloned().collect()
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
        self.notify_identity_changes(inbox).await?;
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
        self.query_held_devices().await;
        Ok(())
    }

    /// Retries one waiting entry. Returns whether it no longer waits.
    pub(super) async fn retry_entry(
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
            self.notify_unsigned(waiting, device.as_deref(), inbox)
                .await?;
        } else {
            // The sender's device has become known, so the session is no longer watched.
            self.unverified_sessions().remove(&waiting.session);
        }
        let replayed = inbox.fill(waiting.entry, payload, opened).await?;
        self.replayed(usize::from(replayed));
        self.notify_signed(inbox).await?;
        Ok(true)
    }

    /// Accepts a batch into the inbox, and reports what of it was refused.
    pub(super) async fn accept(
        &self,
        batch: Batch,
        inbox: &Inbox,
    ) -> Result<Vec<Accepted>, MatrixError> {
        let accepted = inbox.accept(batch).await?;
        let is_replay = |one: &&Accepted| **one == Accepted::Replayed;
        self.replayed(accepted.iter().filter(is_replay).count());
        self.query_held_devices().await;
        self.notify_signed(inbox).await?;
        self.notify_plaintext(inbox).await?;
        Ok(accepted)
    }

    /// Queries the devices of senders whose messages are held because no signature of their device is known. The SDK
    /// does that itself for the members of rooms whose encryption a sync reported, but not where the SDK requested the
    /// encryption state.
    async fn query_held_devices(&self) {
        let senders = std::mem::take(&mut *self.unknown_senders());
        for user in senders {
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

    /// Gives up entries whose sender's device did not become trusted in time.
    pub(super) async fn give_up(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let now = Instant::now();
        let due: Vec<String> = self
            .unverified_sessions()
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(session, _)| session.clone())
            .collect();
        for session in due {
            self.retry(Some(&session), inbox).await?;
            self.unverified_sessions().remove(&session);
        }
        Ok(())
    }

    /// When [`Matrix::give_up`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.unverified_sessions().values().min().copied()
    }

    /// Holds an entry of this session until its sender's device is known or trusted. Returns the deadline.
    pub(super) fn hold(&self, session: &str, sender: &str, hold: TrustHold) -> Instant {
        let deadline = Instant::now() + self.key_wait.max(longest(hold, &self.timeouts));
        *self
            .unverified_sessions()
            .entry(session.to_owned())
            .or_insert_with(|| {
                self.unknown_senders().insert(sender.to_owned());
                deadline
            })
    }

    fn unknown_senders(&self) -> MutexGuard<'_, HashSet<String>> {
        self.unknown_senders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn unverified_sessions(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.unverified_sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome of retrying an entry; `None` while it still waits.
    async fn reread(&self, waiting: &UndecryptableEvent) -> Option<RetryOutcome> {
        let room = self.room(&waiting.place)?;
        let came = Self::as_received(waiting)?;
        let unsealed = self.try_decrypt(&room, &came).await;
        let envelope = EventFields::open(&unsealed.event)?;
        let classification = self
            .classify(
                &room,
                &unsealed,
                &envelope,
                &mut DisplayNames::default(),
                true,
            )
            .await;
        let classification = self.pin_sender(classification, &unsealed, &envelope).await;
        let payload = match classification {
            Classification::Message(message) => {
                self.has_relayed(&waiting.place, &envelope.sender);
                message.into()
            }
            Classification::Command(command) => command.into(),
            Classification::Nothing => ArrivalContent::Skipped(SkipRule::NotAMessage),
            Classification::Skipped(rule) => ArrivalContent::Skipped(rule),
            Classification::Waits(WaitReason::Trust(TrustHold::Approval), _) => {
                let held = self.suspect(&envelope.sender, &unsealed);
                self.hold_for_approval(waiting.entry, &held).await;
                return None;
            }
            Classification::Waits(WaitReason::Trust(hold), session) => {
                if self.hold(&session, &envelope.sender, hold) > Instant::now() {
                    return None;
                }
                self.warn_untrusted_sender(&envelope.sender);
                ArrivalContent::Skipped(SkipRule::UntrustedDevice)
            }
            Classification::Waits(WaitReason::Key, _) => return None,
        };
        if let ArrivalContent::Skipped(rule) = payload {
            self.refused(rule, &room);
        }
        Some(RetryOutcome {
            payload,
            opened: unsealed.opened_with(true),
            device: unsigned_devices::device_of(&unsealed, waiting),
        })
    }

    /// Warns once per sender that their messages are not relayed, without naming them.
    fn warn_untrusted_sender(&self, sender: &str) {
        let first = {
            let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
            senders.first_warning(sender)
        };
        if let Some(sender) = first {
            warn!(
                sender = format!("{sender:016x}"),
                "Messages from an unverified device are not relayed"
            );
        }
    }
}

/// The longest time that a message may be held for this reason.
fn longest(hold: TrustHold, timeouts: &Timeouts) -> Duration {
    match hold {
        TrustHold::DeviceList => timeouts.device_wait,
        TrustHold::Signature => TRUST_WAIT,
        // There is no limit for an admin's approval; this only bounds how long the session is watched.
        TrustHold::Approval => Duration::from_hours(365 * 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p02_a_device_list_has_a_minute_and_a_person_all_the_time() {
        let timeouts = Timeouts::default();
        let waits =
            [TrustHold::Signature, TrustHold::DeviceList].map(|hold| longest(hold, &timeouts));
        assert_eq!(waits, [10, 60].map(Duration::from_secs));
        assert!(longest(TrustHold::Approval, &timeouts) > timeouts.key_limit);
    }
}
