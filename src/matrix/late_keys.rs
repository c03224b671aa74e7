//! Late keys: entries that could not be read are tried again when a key or news of a device comes. Those of
//! devices that do not become trusted are given up here; for keys that never come see `unread`.

use std::{
    collections::{HashMap, HashSet},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_core::inbox::Inbox;
use footbridge_store::{Accepted, Batch, DecryptedWith, Payload, UndecryptableEvent};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use matrix_sdk::ruma::UserId;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{
    Matrix, MatrixError, Timeouts,
    commands::command_payload,
    timeline::{Classification, DisplayNames, EventFields, WaitReason, message_payload},
    trust_policy::{TrustHold, UNTRUSTED},
    unsigned_devices,
};

/// How long the sender's device may take to become known as signed. News of devices come by other ways than
/// messages and may come after them.
const TRUST_WAIT: Duration = Duration::from_secs(10);
/// How long asking for somebody's devices may hold up what else there is.
const DEVICE_QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The rule for what turned out to be no message once it could be read.
const NO_MESSAGE: &str = "not-a-message";

/// What has become of an entry that waited.
struct RetryOutcome {
    payload: Payload,
    opened: Option<DecryptedWith>,
    /// The device that it comes from.
    device: Option<String>,
}

/// Why to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wakeup {
    /// Keys of these sessions came.
    Keys(Vec<String>),
    /// So many keys came that not all were told.
    ManyKeys,
    /// Something is new about other people's devices.
    Devices,
    /// Somebody in charge has accepted an identity.
    Approved,
}

impl Matrix {
    /// What may make waiting entries readable, as it happens.
    pub(super) async fn wakeups(&self) -> Result<BoxStream<'static, Wakeup>, MatrixError> {
        let encryption = self.client.encryption();
        let broken = |error: matrix_sdk::Error| {
            MatrixError::CryptoStore(format!("no news of devices: {error}"))
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
        let approvals = stream::unfold(self.approved.clone(), |bell| async move {
            bell.notified().await;
            Some((Wakeup::Approved, bell))
        });
        let news = stream::select(devices, stream::select(identities, approvals));
        Ok(stream::select(keys, news).boxed())
    }

    /// Tries again what this news is about.
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

    /// What is done now and then, whatever comes.
    pub(super) async fn sweep(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        self.store.compact_used_indexes(self.clock.now()).await?;
        self.notify_identity_changes(inbox).await?;
        self.retry(None, inbox).await
    }

    /// Tries entries that wait: all, or those of one session.
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

    /// Tries one entry that waits. Answers whether it does so no longer.
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
        if payload == Payload::Skipped(UNTRUSTED) {
            self.notify_unsigned(waiting, device.as_deref(), inbox)
                .await?;
        } else {
            // Its sender's device has become known, and nobody need look after it.
            self.unverified_sessions().remove(&waiting.session);
        }
        let replayed = inbox.fill(waiting.entry, payload, opened).await?;
        self.replayed(usize::from(replayed));
        self.notify_signed(inbox).await?;
        Ok(true)
    }

    /// Takes in what was walked, and says what of it was refused.
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

    /// Asks for the devices of those whose messages are held because no signature of theirs is known. The SDK does it by
    /// itself for the members of rooms whose encryption a sync has told it of, and not where it has asked for that.
    async fn query_held_devices(&self) {
        let strangers = std::mem::take(&mut *self.unknown_senders());
        for user in strangers {
            let Ok(user) = UserId::parse(user) else {
                continue;
            };
            let encryption = self.client.encryption();
            let asked = timeout(
                DEVICE_QUERY_TIMEOUT,
                encryption.request_user_identity(&user),
            )
            .await;
            if !matches!(asked, Ok(Ok(_))) {
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

    /// An entry of this session waits for its sender's device to become known or trusted. Answers until when.
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

    /// What has become of an entry that waits; `None` when it still does.
    async fn reread(&self, waiting: &UndecryptableEvent) -> Option<RetryOutcome> {
        let room = self.room(&waiting.place)?;
        let came = Self::as_received(waiting)?;
        let unsealed = self.try_decrypt(&room, &came).await;
        let envelope = EventFields::open(&unsealed.event)?;
        let reading = self
            .classify(
                &room,
                &unsealed,
                &envelope,
                &mut DisplayNames::default(),
                true,
            )
            .await;
        let reading = self.pin_sender(reading, &unsealed, &envelope).await;
        let payload = match reading {
            Classification::Message(message) => {
                self.has_crossed(&waiting.place, &envelope.sender);
                message_payload(&message)?
            }
            Classification::Command(command) => command_payload(&command)?,
            Classification::Nothing => Payload::Skipped(NO_MESSAGE),
            Classification::Skipped(rule) => Payload::Skipped(rule),
            Classification::Waits(WaitReason::Trust(TrustHold::Approval), _) => {
                let suspect = self.suspect(&envelope.sender, &unsealed);
                self.hold_for_approval(waiting.entry, &suspect).await;
                return None;
            }
            Classification::Waits(WaitReason::Trust(hold), session) => {
                if self.hold(&session, &envelope.sender, hold) > Instant::now() {
                    return None;
                }
                self.warn_untrusted_sender(&envelope.sender);
                Payload::Skipped(UNTRUSTED)
            }
            Classification::Waits(WaitReason::Key, _) => return None,
        };
        if let Payload::Skipped(rule) = payload {
            self.refused(rule, &room);
        }
        Some(RetryOutcome {
            payload,
            opened: unsealed.opened_with(true),
            device: unsigned_devices::device_of(&unsealed, waiting),
        })
    }

    /// Says once per sender that their messages do not cross, without naming them.
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

/// How long a message may be held for this.
fn longest(hold: TrustHold, patience: &Timeouts) -> Duration {
    match hold {
        TrustHold::DeviceList => patience.device_wait,
        TrustHold::Signature => TRUST_WAIT,
        // People take as long as they take, so this ends nothing: it is only when they are looked after.
        TrustHold::Approval => Duration::from_hours(365 * 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p02_a_device_list_has_a_minute_and_a_person_all_the_time() {
        let patience = Timeouts::default();
        let waits =
            [TrustHold::Signature, TrustHold::DeviceList].map(|hold| longest(hold, &patience));
        assert_eq!(waits, [10, 60].map(Duration::from_secs));
        assert!(longest(TrustHold::Approval, &patience) > patience.key_limit);
    }
}
