//! Notices about undecryptable messages (D20): one per sender, with what is missing and why, which is edited when that
//! ends. This module decides; the store remembers.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use footbridge_core::{
    crash_points,
    inbox::{Inbox, UndecryptableTexts},
};
use footbridge_store::{
    EntryId, KeyWait, Place, ResolvedGroup, Store, UndecryptableEvent, UndecryptableNotice,
};
use matrix_sdk::{
    deserialized_responses::{TimelineEventKind, UnableToDecryptReason, VerificationState},
    ruma::{DeviceId, UserId},
};
use tracing::info;

use super::{
    MatrixError,
    account_client::AccountClient,
    config::Trust,
    decrypt::{DecryptionResult, Decryptor, as_received},
    event_fields::EventFields,
    identities::{self, Identities},
    room_flags::RoomFlags,
    trust_policy::{Provenance, TrustDecision, decide},
    unsigned_devices::{self, LOCK, UnreadableReason, UnsignedNotices, advice},
};

/// The shortest time between two notices about one sender.
const NOTICE_INTERVAL: Duration = Duration::from_hours(1);
/// The shortest time between two notices about an unsigned device.
const UNSIGNED_NOTICE_INTERVAL: Duration = Duration::from_hours(24);

/// The reason codes in the store. For a withheld key it is the code of the protocol.
const NO_KEY: &str = "no-key";
const LATER_KEY: &str = "later-key";
/// The device has not been signed by its owner.
pub(super) const UNSIGNED: &str = "unsigned";
/// The sender's identity has changed.
pub(super) const CHANGED: &str = "identity-changed";

/// Sends the notices of one account.
#[derive(Debug)]
pub(super) struct UndecryptableNotices {
    pub account: AccountClient,
    pub store: Store,
    pub trust: Trust,
    /// When a room key is no longer expected.
    pub key_limit: Duration,
    pub flags: Arc<RoomFlags>,
    pub decryptor: Arc<Decryptor>,
    pub identities: Arc<Identities>,
    pub unsigned_notices: Arc<UnsignedNotices>,
}

impl UndecryptableNotices {
    /// Edits the notices whose entries no longer wait.
    pub(super) async fn notify_resolved(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        for group in self.store.resolved_groups().await? {
            let name = self.account.display_name(&group.place, &group.sender).await;
            let elsewhere = if has_opted_out(&self.store, &group.place, &group.sender).await? {
                final_notice(&group, "somebody")
            } else {
                final_notice(&group, &name)
            };
            let resolution = (group.failed > 0).then(|| {
                format!(
                    "⚠ {} from {name} could not be relayed: {}.",
                    messages(group.failed),
                    why(&group.reason)
                )
            });
            let all_well = || format!("🔓 No messages from {name} are missing any more.");
            let texts = UndecryptableTexts {
                to_sender: resolution
                    .clone()
                    .or_else(|| elsewhere.as_ref().map(|_| all_well())),
                elsewhere,
                resolution,
                marker: None,
            };
            inbox.notify_resolved(group, texts).await?;
        }
        Ok(())
    }

    /// Sends one notice per sender about these waiting entries.
    pub(super) async fn notify_waiting(
        &self,
        due: &[&KeyWait],
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let due_entries: HashSet<EntryId> = due.iter().map(|one| one.entry).collect();
        let sessions: HashSet<&str> = due.iter().map(|one| one.session.as_str()).collect();
        let limit = self.key_limit;
        let expired: HashSet<EntryId> = due
            .iter()
            .filter(|one| one.waited >= limit)
            .map(|one| one.entry)
            .collect();
        let mut by_sender: BTreeMap<(Place, String), (String, Vec<EntryId>)> = BTreeMap::new();
        for session in sessions {
            for waiting in self.store.undecryptable_events(Some(session)).await? {
                let Some(sender) =
                    sender_of(&waiting).filter(|_| due_entries.contains(&waiting.entry))
                else {
                    continue;
                };
                let known = by_sender.contains_key(&(waiting.place.clone(), sender.clone()));
                let reason = if known {
                    String::new()
                } else {
                    self.reason(&waiting).await
                };
                let entries = by_sender
                    .entry((waiting.place, sender))
                    .or_insert((reason, Vec::new()));
                entries.1.push(waiting.entry);
            }
        }
        for ((place, sender), (reason, entries)) in by_sender {
            // Whether the device is signed is known in some minutes at most; then a notice is sent.
            if reason == UNSIGNED && !entries.iter().any(|entry| expired.contains(entry)) {
                continue;
            }
            let why = UnreadableReason {
                reason: &reason,
                device: None,
            };
            self.notify(entries, &place, &sender, why, inbox).await?;
        }
        Ok(())
    }

    /// Sends or extends one notice that these entries of one sender are held or cannot be decrypted.
    async fn notify(
        &self,
        entries: Vec<EntryId>,
        place: &Place,
        sender: &str,
        UnreadableReason { reason, device }: UnreadableReason<'_>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let name = self.account.display_name(place, sender).await;
        let why = why(reason);
        let text = match reason {
            UNSIGNED => format!(
                "🔒 Messages from {name} are not relayed: {why}. They will be relayed once the owner verifies that \
                 device from another one, or with the recovery key."
            ),
            CHANGED => format!(
                "🔒 Messages from {name} are held: {why}. They will appear when an admin of the bridge \
                 accepts it."
            ),
            _ => format!(
                "🔒 Messages from {name} cannot be read yet: {why}. They will appear when the key arrives."
            ),
        };
        if reason == CHANGED {
            for (key, _) in self.store.changed_identities_of(sender).await? {
                self.identities
                    .notify_identity_change(place, sender, &key, &name, inbox)
                    .await?;
            }
        }
        if has_opted_out(&self.store, place, sender).await? {
            return Ok(());
        }
        info!(
            matrix.room = place.address(),
            entries = entries.len(),
            reason,
            "Undecryptable messages; sent a notice"
        );
        // What a notice says in the room about a person's device is for encrypted rooms only.
        let here = match advice(reason, &name, device) {
            Some(advice) if self.flags.was_encrypted(place).await? => Some(advice),
            _ => None,
        };
        let texts = UndecryptableTexts {
            elsewhere: Some(text),
            marker: (reason == UNSIGNED && here.is_some()).then_some(LOCK),
            to_sender: here,
            resolution: None,
        };
        let notice = UndecryptableNotice {
            entries,
            place: place.clone(),
            sender: sender.to_owned(),
            reason: reason.to_owned(),
            merge_within: if reason == UNSIGNED {
                UNSIGNED_NOTICE_INTERVAL
            } else {
                NOTICE_INTERVAL
            },
            here: texts.to_sender.is_some(),
            device: device.filter(|_| reason == UNSIGNED).map(str::to_owned),
        };
        if inbox.notify_undecryptable(notice, texts).await? && reason == UNSIGNED {
            self.unsigned_notices.note_notified(place, sender);
        }
        crash_points::point("undecryptable.notified");
        Ok(())
    }

    /// Sends a notice about a message whose device did not become known as signed in time.
    pub(super) async fn notify_unsigned(
        &self,
        waiting: &UndecryptableEvent,
        device: Option<&str>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let Some(sender) = sender_of(waiting) else {
            return Ok(());
        };
        let why = UnreadableReason {
            reason: UNSIGNED,
            device,
        };
        let (entries, place) = (vec![waiting.entry], &waiting.place);
        self.notify(entries, place, &sender, why, inbox).await
    }

    /// Edits the notices about devices that are signed by now.
    pub(super) async fn notify_signed(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let crossed = self.unsigned_notices.take_relayed();
        if crossed.is_empty() {
            return Ok(());
        }
        for (group, device) in self.store.outdated_groups().await? {
            let who = (group.place.clone(), group.sender.clone());
            let is_over = group.reason == UNSIGNED
                && crossed.contains(&who)
                && self.is_signed(&group.sender, device.as_deref()).await;
            if !is_over {
                continue;
            }
            let name = self.account.display_name(&group.place, &group.sender).await;
            let opted_out = has_opted_out(&self.store, &group.place, &group.sender).await?;
            let texts = unsigned_devices::signed(&name, opted_out, group.skipped);
            inbox.notify_obsolete(group, texts).await?;
            let (place, sender) = who;
            self.unsigned_notices.forget(place, sender);
        }
        Ok(())
    }

    /// Whether the owner of this device has signed it, as far as the SDK knows; no request is made.
    async fn is_signed(&self, user: &str, device: Option<&str>) -> bool {
        let (Ok(user), Some(device)) = (<&UserId>::try_from(user), device) else {
            return false;
        };
        let device = <&DeviceId>::from(device);
        let device = self
            .account
            .client()
            .encryption()
            .get_device(user, device)
            .await;
        matches!(device, Ok(Some(device)) if device.is_cross_signed_by_owner())
    }

    /// The reason code for an undecryptable entry.
    async fn reason(&self, waiting: &UndecryptableEvent) -> String {
        let (Some(room), Some(came)) = (self.account.room(&waiting.place), as_received(waiting))
        else {
            return NO_KEY.to_owned();
        };
        let unsealed = self.decryptor.decrypt(&room, &came).await;
        self.reason_in(&unsealed).to_owned()
    }

    fn reason_in<'a>(&self, unsealed: &'a DecryptionResult<'_>) -> &'a str {
        let untrusted_reason = |state: &VerificationState| match decide(
            self.trust,
            Provenance::Device(state, &unsealed.pin),
        ) {
            TrustDecision::Hold(hold) => identities::reason(hold),
            TrustDecision::Relay | TrustDecision::Skip(_) => UNSIGNED,
        };
        match &unsealed.event.kind {
            TimelineEventKind::Decrypted(open) => {
                untrusted_reason(&open.encryption_info.verification_state)
            }
            TimelineEventKind::PlainText { .. } => NO_KEY,
            TimelineEventKind::UnableToDecrypt { utd_info, .. } => match &utd_info.reason {
                UnableToDecryptReason::MissingMegolmSession {
                    withheld_code: Some(code),
                } => known_code(code.as_str()),
                UnableToDecryptReason::UnknownMegolmMessageIndex => LATER_KEY,
                UnableToDecryptReason::SenderIdentityNotTrusted(level) => {
                    untrusted_reason(&VerificationState::Unverified(level.clone()))
                }
                _ => NO_KEY,
            },
        }
    }
}

/// Whether this user has opted out: then no notice on the other side names them.
pub(super) async fn has_opted_out(
    store: &Store,
    place: &Place,
    sender: &str,
) -> Result<bool, MatrixError> {
    let senders = vec![(place.clone(), sender.to_owned())];
    Ok(store.opted_out(senders).await?.contains(&true))
}

/// The sender of a waiting entry.
pub(super) fn sender_of(waiting: &UndecryptableEvent) -> Option<String> {
    let envelope: EventFields = serde_json::from_slice(&waiting.raw).ok()?;
    Some(envelope.sender)
}

/// A code of the protocol; any other is the sender's own text, which is not stored.
fn known_code(code: &str) -> &str {
    const CODES: [&str; 6] = [
        "m.blacklisted",
        "m.unverified",
        "m.unauthorised",
        "m.unavailable",
        "m.no_olm",
        "m.history_not_shared",
    ];
    let known = CODES.into_iter().find(|known| *known == code);
    known.unwrap_or("withheld")
}

/// The text for a reason code.
fn why(reason: &str) -> &'static str {
    match reason {
        LATER_KEY => "the bridge has received a key that decrypts later messages only",
        UNSIGNED => "the device they come from is not signed by its owner",
        CHANGED => "their identity has changed",
        "m.blacklisted" => {
            "the sender's app withholds the key from the bridge, whose device is blocked there"
        }
        "m.unverified" => {
            "the sender's app withholds the key from the bridge, whose device is not verified there"
        }
        "m.unauthorised" => "the sender's app refuses to share the key with the bridge",
        "m.unavailable" => "the sender's app no longer has the key",
        "m.no_olm" => "the sender's app could not reach the bridge's device to share the key",
        "m.history_not_shared" => "the sender's app does not share keys of earlier messages",
        NO_KEY => "the bridge has not received the key",
        _ => "the sender's app withholds the key from the bridge",
    }
}

pub(super) fn messages(count: u64) -> String {
    match count {
        1 => "1 message".to_owned(),
        _ => format!("{count} messages"),
    }
}

/// The final text for the other side; `None` if the earlier notice stays true.
fn final_notice(group: &ResolvedGroup, name: &str) -> Option<String> {
    if group.reason == UNSIGNED && group.decrypted + group.failed == 0 {
        return None;
    }
    let late = format!("{} from {name} arrived late", messages(group.decrypted));
    let lost = format!(
        "{} from {name} cannot be read and will not appear: {}",
        messages(group.failed),
        why(&group.reason)
    );
    Some(match (group.decrypted, group.failed) {
        (0, 0) => format!("🔓 No messages from {name} are missing any more."),
        (_, 0) => format!("🔓 {late}."),
        (0, _) => format!("🔒 {lost}."),
        (_, _) => format!("🔒 {lost}. {late}."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(reason: &str, decrypted: u64, skipped: u64, failed: u64) -> ResolvedGroup {
        ResolvedGroup {
            group: 1,
            place: Place::room("!r"),
            sender: "@ann:x".into(),
            reason: reason.into(),
            decrypted,
            skipped,
            failed,
        }
    }

    #[test]
    fn the_final_notice_has_the_count() {
        let text = |group| final_notice(&group, "Ann").unwrap();
        assert_eq!(
            text(group(NO_KEY, 1, 0, 0)),
            "🔓 1 message from Ann arrived late."
        );
        assert_eq!(
            text(group(NO_KEY, 3, 1, 0)),
            "🔓 3 messages from Ann arrived late."
        );
        let lost = text(group("m.blacklisted", 0, 0, 2));
        assert!(
            lost.starts_with("🔒 2 messages from Ann cannot be read"),
            "{lost}"
        );
        assert!(lost.contains("is blocked there"), "{lost}");
        let both = text(group(NO_KEY, 1, 0, 1));
        assert!(both.contains("1 message from Ann arrived late"), "{both}");
        assert_eq!(final_notice(&group(UNSIGNED, 0, 2, 0), "Ann"), None);
    }
}
