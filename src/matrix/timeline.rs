//! Processing one event of a room's timeline into at most one arrival. All rules about what is relayed and what is not
//! are applied here.

use footbridge_core::{
    crash_points,
    inbox::{Arrival, ArrivalContent},
    message::{Action, Command, Message},
};
use footbridge_store::{Millis, Place, RemoteId, SkipRule};
use matrix_sdk::{
    Room,
    deserialized_responses::{
        TimelineEvent, TimelineEventKind, UnableToDecryptReason, VerificationState,
    },
};
use serde_json::Value;
use tracing::{debug, warn};

use super::{
    Matrix,
    convert::{self, Converted, Incoming},
    decrypt::DecryptionResult,
    processed_event::ProcessedEvent,
    relation::Relation,
    security_metrics::SecurityClass,
    sender_cache::{AuthorCheck, writer},
    trust_policy::{PinStatus, Provenance, TrustDecision, TrustHold, decide},
    unanswered_sends,
};

pub(super) use super::event_fields::{DisplayNames, EventFields};

/// The result of processing an event.
#[derive(Debug)]
pub(super) enum EventOutcome {
    /// Nothing to relay.
    Nothing,
    /// An arrival.
    Arrival(ProcessedEvent),
    /// An arrival from the bridge's own account but, by the homeserver's claim, not from this device: a person who
    /// shares the account, or a step of a lane that has not been settled yet.
    OwnAccount(ProcessedEvent),
}

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
    fn waits(&self) -> bool {
        matches!(self, Self::Waits(..))
    }
}

/// A new entry for the journal.
struct NewEntry {
    /// Whether other events can refer to it.
    is_new: bool,
    thread: Option<RemoteId>,
    payload: ArrivalContent,
}

impl NewEntry {
    /// An entry that no other event refers to.
    fn unreferenced(payload: ArrivalContent) -> Self {
        Self {
            is_new: false,
            thread: None,
            payload,
        }
    }
}

impl Matrix {
    /// Processes one event. `encrypted` says whether the room is or ever was encrypted.
    pub(super) async fn process_event(
        &self,
        room: &Room,
        place: &Place,
        came: &TimelineEvent,
        names: &mut DisplayNames,
        encrypted: bool,
    ) -> EventOutcome {
        let unsealed = self.try_decrypt(room, came).await;
        let event = unsealed.event.as_ref();
        let Some(envelope) = EventFields::open(event) else {
            warn!(
                matrix.room = place.address(),
                "Skipped an event without its required fields"
            );
            return EventOutcome::Nothing;
        };
        let is_own = envelope.sender == self.own.as_str();
        let is_open = matches!(event.kind, TimelineEventKind::Decrypted(_));
        if is_own && unanswered_sends::marked(&envelope).is_some() {
            if is_open || !encrypted {
                self.remember_sender(place, &envelope);
            }
            return EventOutcome::Nothing;
        }
        let classification = self
            .classify(room, &unsealed, &envelope, names, encrypted)
            .await;
        let classification = self.pin_sender(classification, &unsealed, &envelope).await;
        // In an encrypted room the sender of an event that is not relayed is not certain. A waiting event is relayed
        // with the sender that is shown now, or never.
        if !encrypted
            || !matches!(classification, Classification::Skipped(_))
                && (is_open || classification.waits())
        {
            self.remember_sender(place, &envelope);
        }
        if is_open && matches!(classification, Classification::Message(_)) {
            self.has_relayed(place, &envelope.sender);
        }
        let bridges = match classification {
            Classification::Skipped(SkipRule::PeerBridge) => self.other_bridges(place, &envelope),
            _ => Vec::new(),
        };
        if let Classification::Skipped(rule) = classification {
            self.refused(rule, room);
        }
        let for_approval = matches!(
            classification,
            Classification::Waits(WaitReason::Trust(TrustHold::Approval), _)
        );
        let held = for_approval.then(|| self.suspect(&envelope.sender, &unsealed));
        let Some(entry) = self.to_entry(classification, came, &envelope) else {
            return EventOutcome::Nothing;
        };
        let event_id = RemoteId(envelope.event_id);
        let arrival = Arrival {
            place: place.clone(),
            message: entry.is_new.then(|| event_id.clone()),
            event_id,
            thread: entry.thread,
            sent_at: Millis(envelope.origin_server_ts),
            payload: entry.payload,
        };
        let processed = ProcessedEvent {
            writer: writer(&arrival, event),
            opened: unsealed.opened_with(held.is_none()),
            arrival,
            held,
            bridges,
            shown: unsealed.shown(place, came),
        };
        if is_own {
            EventOutcome::OwnAccount(processed)
        } else {
            EventOutcome::Arrival(processed)
        }
    }

    /// The journal entry of an event; `None` if nothing of it is relayed.
    fn to_entry(
        &self,
        classification: Classification,
        came: &TimelineEvent,
        envelope: &EventFields,
    ) -> Option<NewEntry> {
        match classification {
            Classification::Nothing => None,
            Classification::Skipped(rule) => {
                debug!(rule = rule.as_str(), "Event skipped");
                Some(NewEntry::unreferenced(ArrivalContent::Skipped(rule)))
            }
            Classification::Waits(why, session) => {
                debug!(why = ?why, "An event cannot be relayed yet");
                match why {
                    WaitReason::Key => {}
                    WaitReason::Trust(TrustHold::Approval) => {
                        self.security.record(SecurityClass::IdentityChanged, 1)
                    }
                    WaitReason::Trust(hold) => drop(self.hold(&session, &envelope.sender, hold)),
                }
                self.begin_waiting();
                let relation = Relation::of(&envelope.content);
                Some(NewEntry {
                    is_new: !relation.replaces,
                    thread: relation.thread,
                    payload: ArrivalContent::Undecryptable {
                        session,
                        raw: came.raw().json().get().as_bytes().to_vec(),
                        key_wait_until: self.clock.now().plus(self.key_wait),
                    },
                })
            }
            Classification::Command(command) => Some(NewEntry::unreferenced(command.into())),
            Classification::Message(message) => Some(NewEntry {
                is_new: matches!(
                    message.action,
                    Action::Post { .. } | Action::Unsupported { .. } | Action::React { .. }
                ),
                thread: match &message.action {
                    Action::Post { thread, .. } => thread.clone(),
                    _ => None,
                },
                payload: message.into(),
            }),
        }
    }

    /// Classifies one event, by the rules about trust and encryption. May panic (see `Matrix::classify`).
    pub(super) async fn classify_unguarded(
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
        if let Some(command) = self
            .command(room, &incoming, encrypted && in_clear, signed)
            .await
        {
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
            match self.author(room, &envelope.sender, target).await {
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
                        if self.is_of_another_room(room, session).await =>
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
}

pub(super) fn waits(
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
