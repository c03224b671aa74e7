//! Classifying an event: a message, a command, nothing, or something that waits or is skipped. All rules about trust and
//! encryption are applied here, at first and whenever an event is read again.

use std::{panic::AssertUnwindSafe, sync::Arc};

use footbridge_core::{
    crash_points,
    message::{Action, Command, Message},
    peer_bridges::PeerBridges,
};
use footbridge_store::{Millis, Place, RemoteId, SkipRule, Store};
use futures_util::FutureExt as _;
use matrix_sdk::{
    Room,
    deserialized_responses::{
        TimelineEvent, TimelineEventKind, UnableToDecryptReason, VerificationState,
    },
};
use serde_json::Value;
use tracing::{debug, error, warn};

use super::{
    account_client::AccountClient,
    commands,
    config::Trust,
    convert::{self, Converted, Incoming},
    decrypt::{DecryptionResult, Decryptor},
    event_fields::{DisplayNames, EventFields},
    identities::Identities,
    message_authors::{AuthorCheck, MessageAuthors},
    network::MatrixNetwork,
    own_accounts::OwnAccounts,
    trust_policy::{PinStatus, Provenance, TrustDecision, TrustHold, decide},
};

/// Why an entry waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitReason {
    /// Its room key has not arrived.
    Key,
    /// It is not known yet whether its sender can be trusted.
    Trust(TrustHold),
}

/// The classification of an event.
pub(super) enum Classification {
    /// Nothing to relay.
    Nothing,
    /// A message.
    Message(Message),
    /// A command to the bridge.
    Command(Command),
    /// It cannot be relayed yet, with the session id of its room key.
    Waits(WaitReason, String),
    /// It is not relayed, by this rule.
    Skipped(SkipRule),
}

impl Classification {
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Waits(..))
    }
}

/// Reads the events of rooms.
#[derive(Debug)]
pub(super) struct EventReader {
    trust: Trust,
    store: Store,
    decryptor: Arc<Decryptor>,
    identities: Arc<Identities>,
    authors: Arc<MessageAuthors>,
    /// Which channels the rooms are linked to.
    peer_bridges: PeerBridges,
    own_accounts: Arc<OwnAccounts>,
    account: AccountClient,
}

impl EventReader {
    /// For one account of the network.
    pub(super) fn of(
        store: Store,
        decryptor: Arc<Decryptor>,
        identities: Arc<Identities>,
        authors: Arc<MessageAuthors>,
        network: &MatrixNetwork,
        account: AccountClient,
    ) -> Self {
        Self {
            trust: network.policy.trust,
            store,
            decryptor,
            identities,
            authors,
            peer_bridges: network.peer_bridges.clone(),
            own_accounts: network.own_accounts.clone(),
            account,
        }
    }

    /// Decrypts an event that arrived encrypted.
    pub(super) async fn decrypt<'a>(
        &self,
        room: &Room,
        event: &'a TimelineEvent,
    ) -> DecryptionResult<'a> {
        self.decryptor.decrypt(room, event).await
    }

    /// Classifies one event, and pins the identity that signed it if no identity of its sender was pinned before.
    /// `encrypted` says whether the room is or ever was encrypted.
    pub(super) async fn classify(
        &self,
        room: &Room,
        unsealed: &DecryptionResult<'_>,
        envelope: &EventFields,
        names: &mut DisplayNames,
        encrypted: bool,
    ) -> Classification {
        let place = Place::room(room.room_id().as_str());
        if self
            .own_accounts
            .have_sent(&self.account, &place, envelope, unsealed.event.as_ref())
            .await
        {
            return Classification::Nothing;
        }
        let classification = self
            .catch_panic(room, unsealed, envelope, names, encrypted)
            .await;
        self.pin_sender(classification, unsealed, envelope).await
    }

    /// One event must not stop all others: an event that makes the bridge panic is skipped and counted. Otherwise it
    /// would cause the same panic at every start (C25).
    async fn catch_panic(
        &self,
        room: &Room,
        unsealed: &DecryptionResult<'_>,
        envelope: &EventFields,
        names: &mut DisplayNames,
        encrypted: bool,
    ) -> Classification {
        let classification = self.apply_rules(room, unsealed, envelope, names, encrypted);
        let outcome = AssertUnwindSafe(classification).catch_unwind().await;
        let place = Place::room(room.room_id().as_str());
        if matches!(outcome, Ok(Classification::Message(_)))
            && !self
                .peer_bridges
                .peers_in(&place, &envelope.content)
                .is_empty()
        {
            return Classification::Skipped(SkipRule::PeerBridge);
        }
        outcome.unwrap_or_else(|_| {
            error!(
                matrix.room = %room.room_id(),
                "Panic while handling an event; event skipped. Please report this bug"
            );
            Classification::Skipped(SkipRule::Panic)
        })
    }

    /// The rules about trust and encryption. May panic.
    async fn apply_rules(
        &self,
        room: &Room,
        unsealed: &DecryptionResult<'_>,
        envelope: &EventFields,
        names: &mut DisplayNames,
        encrypted: bool,
    ) -> Classification {
        let event = unsealed.event.as_ref();
        crash_points::poison(&envelope.event_type);
        if envelope.state_key.is_some() || envelope.unsigned.redacted_because.is_some() {
            return Classification::Nothing;
        }
        match &event.kind {
            TimelineEventKind::UnableToDecrypt { utd_info, .. } => {
                return self
                    .classify_undecryptable(room, &utd_info.reason, unsealed, envelope)
                    .await;
            }
            // Decryption was not even tried.
            TimelineEventKind::PlainText { .. } if envelope.event_type == "m.room.encrypted" => {
                return waits(WaitReason::Key, unsealed, envelope);
            }
            TimelineEventKind::PlainText { .. } => {}
            TimelineEventKind::Decrypted(decrypted) => {
                let state = &decrypted.encryption_info.verification_state;
                match decide(self.trust, Provenance::Device(state, &unsealed.pin)) {
                    TrustDecision::Relay => {}
                    TrustDecision::Hold(hold) => {
                        return waits(WaitReason::Trust(hold), unsealed, envelope);
                    }
                    TrustDecision::Skip(rule) => return Classification::Skipped(rule),
                }
                if envelope.unchecked {
                    return Classification::Skipped(SkipRule::RedactionOrStateEncrypted);
                }
            }
        }
        let version = room.version().and_then(|version| version.rules());
        let incoming = Incoming {
            event_id: RemoteId(envelope.event_id.clone()),
            sender: envelope.sender.clone(),
            sender_name: names.of(room, &envelope.sender).await,
            sent_at: Millis(envelope.origin_server_ts),
            event_type: envelope.event_type.clone(),
            content: envelope.content.clone(),
            redacts: envelope.redacted(version.as_ref().map(|rules| &rules.redaction)),
        };
        let in_clear = matches!(event.kind, TimelineEventKind::PlainText { .. });
        // Even where messages of unsigned devices are relayed, commands require a device that its owner has signed.
        let signed = !in_clear && matches!(unsealed.pin, PinStatus::Same | PinStatus::First(_));
        let found = commands::find(&self.store, room, &incoming, encrypted && in_clear, signed);
        if let Some(command) = found.await {
            return Classification::Command(command);
        }
        let message = match convert::message_from_event(&incoming) {
            Converted::Message(message) => message,
            Converted::Skip(rule) => {
                debug!(matrix.room = %room.room_id(), rule, "Event ignored: not relayed by type");
                return Classification::Nothing;
            }
        };
        // Redactions are never encrypted; the homeserver has checked that the sender may redact. Reactions are never
        // encrypted either: the portal decides whether one is relayed.
        let never_encrypted =
            matches!(message.action, Action::Delete { .. } | Action::React { .. });
        let ever_encrypted = encrypted && !never_encrypted;
        if in_clear
            && let TrustDecision::Skip(rule) =
                decide(self.trust, Provenance::Plaintext { ever_encrypted })
        {
            return Classification::Skipped(rule);
        }
        if let Action::Edit { target, .. } = &message.action {
            match self.authors.check(room, &envelope.sender, target).await {
                AuthorCheck::Same => {}
                AuthorCheck::Other => return Classification::Skipped(SkipRule::ForeignEdit),
                // In an unencrypted room there is no better evidence.
                AuthorCheck::Claimed if !encrypted => {}
                AuthorCheck::Claimed => return Classification::Skipped(SkipRule::UnknownTarget),
            }
        }
        Classification::Message(message)
    }

    /// Classifies an event that could not be decrypted.
    async fn classify_undecryptable(
        &self,
        room: &Room,
        reason: &UnableToDecryptReason,
        unsealed: &DecryptionResult<'_>,
        envelope: &EventFields,
    ) -> Classification {
        match reason {
            UnableToDecryptReason::MissingMegolmSession { .. } => {
                let waits = waits(WaitReason::Key, unsealed, envelope);
                match &waits {
                    Classification::Waits(_, session)
                        if self.decryptor.is_of_another_room(room, session).await =>
                    {
                        Classification::Skipped(SkipRule::ForeignRoom)
                    }
                    _ => waits,
                }
            }
            UnableToDecryptReason::UnknownMegolmMessageIndex => {
                waits(WaitReason::Key, unsealed, envelope)
            }
            UnableToDecryptReason::SenderIdentityNotTrusted(level) => {
                let state = VerificationState::Unverified(level.clone());
                match decide(self.trust, Provenance::Device(&state, &unsealed.pin)) {
                    TrustDecision::Hold(hold) => waits(WaitReason::Trust(hold), unsealed, envelope),
                    TrustDecision::Skip(rule) => Classification::Skipped(rule),
                    TrustDecision::Relay => Classification::Skipped(SkipRule::Undecryptable),
                }
            }
            // It was decrypted, and says that it belongs to another room.
            UnableToDecryptReason::MalformedEncryptedEvent if unsealed.opened.is_some() => {
                Classification::Skipped(SkipRule::ForeignRoom)
            }
            _ => Classification::Skipped(SkipRule::Undecryptable),
        }
    }

    /// Pins the identity that signed the message that has just been read, if no identity of the sender was pinned
    /// before. A message that another identity has signed is held.
    async fn pin_sender(
        &self,
        classification: Classification,
        unsealed: &DecryptionResult<'_>,
        envelope: &EventFields,
    ) -> Classification {
        let (PinStatus::First(key), Classification::Message(_) | Classification::Command(_)) =
            (&unsealed.pin, &classification)
        else {
            return classification;
        };
        let user = &envelope.sender;
        match self.identities.pin(user, key).await {
            Ok(true) => classification,
            Ok(false) => waits(WaitReason::Trust(TrustHold::Approval), unsealed, envelope),
            Err(error) => {
                let error = format!("{error:#}");
                warn!(error, "Failed to save an identity pin; message held");
                waits(WaitReason::Trust(TrustHold::Approval), unsealed, envelope)
            }
        }
    }
}

/// An event that waits, by its room key.
fn waits(
    why: WaitReason,
    unsealed: &DecryptionResult<'_>,
    envelope: &EventFields,
) -> Classification {
    let named = || envelope.content.get("session_id").and_then(Value::as_str);
    let session = unsealed
        .opened
        .as_ref()
        .map(|opened| opened.session.as_str());
    match session.or_else(named) {
        Some(session) => Classification::Waits(why, session.to_owned()),
        // Redacted, or encrypted with an unknown algorithm.
        None => Classification::Skipped(SkipRule::Undecryptable),
    }
}
