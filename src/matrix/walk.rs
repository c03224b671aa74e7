//! Walking a room's timeline: one event in, at most one arrival out. All rules about what crosses and what does
//! not are applied here.

use footbridge_core::{
    crash_points,
    message::{Action, Command, Message},
    peer_bridges::PEER_BRIDGE,
};
use footbridge_store::{Arrival, Millis, Payload, Place, RemoteId};
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
    alarms::Alarm,
    command::asked,
    convert::{self, Incoming, Read},
    found::Found,
    lookup,
    relation::Relation,
    senders::{Author, writer},
    unseal::Unsealed,
    verdict::{Hold, Origin, Pin, Verdict, verdict},
};

pub(super) use super::envelope::{Envelope, Names};

/// The rule for what no key will ever open.
const UNDECRYPTABLE: &str = "undecryptable";
/// The rule for an edit of somebody else's message.
const FOREIGN_EDIT: &str = Alarm::ForeignEdit.as_str();
/// The rule for an edit of what never crossed.
const UNKNOWN_TARGET: &str = "unknown-target";
/// The rule for a ciphertext of another room.
const FOREIGN_ROOM: &str = Alarm::ForeignRoom.as_str();
/// The rule for a redaction or a state event that was encrypted.
const UNCHECKED: &str = Alarm::Unchecked.as_str();

/// What an event turned out to be.
#[derive(Debug)]
pub(super) enum Walked {
    /// Nothing that crosses.
    Nothing,
    /// Something that happened.
    Arrival(Found),
    /// Something that our own account did, but not, as far as the server tells, this device: a person who
    /// shares the account, or a step of ours that has not been settled yet.
    Ours(Found),
}

/// Why an entry waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Its key has not come.
    Key,
    /// It is not known yet whether its sender may be believed.
    Trust(Hold),
}

/// What can be read of an event.
pub(super) enum Reading {
    /// Nothing that crosses.
    Nothing,
    /// A message.
    Message(Message),
    /// Something asked of the bridge itself.
    Command(Command),
    /// Not yet.
    Waits(Waits, String),
    /// By this rule it does not cross.
    Skipped(&'static str),
}

impl Reading {
    fn waits(&self) -> bool {
        matches!(self, Self::Waits(..))
    }
}

/// What goes into the journal.
struct Letter {
    /// Whether others will refer to it.
    is_new: bool,
    thread: Option<RemoteId>,
    payload: Payload,
}

impl Letter {
    /// What no other event will speak of.
    fn of_nobodys_target(payload: Payload) -> Self {
        Self {
            is_new: false,
            thread: None,
            payload,
        }
    }
}

impl Matrix {
    /// Walks one event. `encrypted` says whether the room is or ever was encrypted.
    pub(super) async fn walk(
        &self,
        room: &Room,
        place: &Place,
        came: &TimelineEvent,
        names: &mut Names,
        encrypted: bool,
    ) -> Walked {
        let unsealed = self.unseal(room, came).await;
        let event = unsealed.event.as_ref();
        let Some(envelope) = Envelope::open(event) else {
            warn!(
                matrix.room = place.address(),
                "An event without its basic fields was passed over"
            );
            return Walked::Nothing;
        };
        let ours = envelope.sender == self.own.as_str();
        let is_open = matches!(event.kind, TimelineEventKind::Decrypted(_));
        if ours && lookup::marked(&envelope).is_some() {
            if is_open || !encrypted {
                self.remember_sender(place, &envelope);
            }
            return Walked::Nothing;
        }
        let reading = self
            .read(room, &unsealed, &envelope, names, encrypted)
            .await;
        let reading = self.believing(reading, &unsealed, &envelope).await;
        // Of what does not cross, in an encrypted room, nobody knows for certain who wrote it. What waits crosses by the
        // sender that is shown with it now, or never.
        if !encrypted || !matches!(reading, Reading::Skipped(_)) && (is_open || reading.waits()) {
            self.remember_sender(place, &envelope);
        }
        if is_open && matches!(reading, Reading::Message(_)) {
            self.has_crossed(place, &envelope.sender);
        }
        let bridges = match reading {
            Reading::Skipped(PEER_BRIDGE) => self.other_bridges(place, &envelope),
            _ => Vec::new(),
        };
        if let Reading::Skipped(rule) = reading {
            self.refused(rule, room);
        }
        let for_approval = matches!(reading, Reading::Waits(Waits::Trust(Hold::Approval), _));
        let held = for_approval.then(|| self.suspect(&envelope.sender, &unsealed));
        let Some(letter) = self.enclose(reading, came, &envelope) else {
            return Walked::Nothing;
        };
        let event_id = RemoteId(envelope.event_id);
        let arrival = Arrival {
            place: place.clone(),
            message: letter.is_new.then(|| event_id.clone()),
            event_id,
            thread: letter.thread,
            sent_at: Millis(envelope.origin_server_ts),
            payload: letter.payload,
        };
        let found = Found {
            writer: writer(&arrival, event),
            opened: unsealed.opened_with(held.is_none()),
            arrival,
            held,
            bridges,
            shown: unsealed.shown(place, came),
        };
        if ours {
            Walked::Ours(found)
        } else {
            Walked::Arrival(found)
        }
    }

    /// What is written down of an event; `None` when nothing of it crosses.
    fn enclose(
        &self,
        reading: Reading,
        came: &TimelineEvent,
        envelope: &Envelope,
    ) -> Option<Letter> {
        match reading {
            Reading::Nothing => None,
            Reading::Skipped(rule) => {
                debug!(rule, "An event does not cross");
                Some(Letter::of_nobodys_target(Payload::Skipped(rule)))
            }
            Reading::Waits(why, session) => {
                debug!(why = ?why, "An event cannot be read yet");
                match why {
                    Waits::Key => {}
                    Waits::Trust(Hold::Approval) => self.alarms.raise(Alarm::IdentityChanged, 1),
                    Waits::Trust(hold) => drop(self.hold(&session, &envelope.sender, hold)),
                }
                self.begin_waiting();
                let relation = Relation::of(&envelope.content);
                Some(Letter {
                    is_new: !relation.replaces,
                    thread: relation.thread,
                    payload: Payload::Undecryptable {
                        session,
                        raw: came.raw().json().get().as_bytes().to_vec(),
                        key_wait_until: self.clock.now().plus(self.key_wait),
                    },
                })
            }
            Reading::Command(command) => asked(&command).map(Letter::of_nobodys_target),
            Reading::Message(message) => Some(Letter {
                is_new: matches!(
                    message.action,
                    Action::Post { .. } | Action::Unsupported { .. } | Action::React { .. }
                ),
                payload: ready(&message)?,
                thread: match message.action {
                    Action::Post { thread, .. } => thread,
                    _ => None,
                },
            }),
        }
    }

    /// Reads one event, by the rules about trust and encryption, but not what breaks us (see `Matrix::read`).
    pub(super) async fn read_unguarded(
        &self,
        room: &Room,
        unsealed: &Unsealed<'_>,
        envelope: &Envelope,
        names: &mut Names,
        encrypted: bool,
    ) -> Reading {
        let event = unsealed.event.as_ref();
        crash_points::poison(&envelope.event_type);
        if envelope.state_key.is_some() || envelope.unsigned.redacted_because.is_some() {
            return Reading::Nothing;
        }
        match &event.kind {
            TimelineEventKind::UnableToDecrypt { utd_info, .. } => {
                return self
                    .unread(room, &utd_info.reason, unsealed, envelope)
                    .await;
            }
            // Nobody could even try.
            TimelineEventKind::PlainText { .. } if envelope.event_type == "m.room.encrypted" => {
                return waits(Waits::Key, unsealed, envelope);
            }
            TimelineEventKind::PlainText { .. } => {}
            TimelineEventKind::Decrypted(decrypted) => {
                let state = &decrypted.encryption_info.verification_state;
                match verdict(self.trust, Origin::Device(state, &unsealed.pin)) {
                    Verdict::Relay => {}
                    Verdict::Hold(hold) => return waits(Waits::Trust(hold), unsealed, envelope),
                    Verdict::Skip(rule) => return Reading::Skipped(rule),
                }
                if envelope.unchecked {
                    return Reading::Skipped(UNCHECKED);
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
        // Where messages of any device cross, orders still need one that its owner has signed.
        let signed = !in_clear && matches!(unsealed.pin, Pin::Same | Pin::First(_));
        if let Some(command) = self
            .command(room, &incoming, encrypted && in_clear, signed)
            .await
        {
            return Reading::Command(command);
        }
        let message = match convert::message_from_event(&incoming) {
            Read::Message(message) => message,
            Read::Ignore(rule) => {
                debug!(matrix.room = %room.room_id(), rule, "An event is none that crosses");
                return Reading::Nothing;
            }
        };
        // Redactions are never encrypted; the server has checked that the sender may redact. Nor are reactions: whether one
        // crosses is for the portal to say.
        let never_encrypted =
            matches!(message.action, Action::Delete { .. } | Action::React { .. });
        let ever_encrypted = encrypted && !never_encrypted;
        if in_clear
            && let Verdict::Skip(rule) = verdict(self.trust, Origin::Clear { ever_encrypted })
        {
            return Reading::Skipped(rule);
        }
        if let Action::Edit { target, .. } = &message.action {
            match self.author(room, &envelope.sender, target).await {
                Author::Same => {}
                Author::Another => return Reading::Skipped(FOREIGN_EDIT),
                // In the clear nobody knows better.
                Author::Claimed if !encrypted => {}
                Author::Claimed => return Reading::Skipped(UNKNOWN_TARGET),
            }
        }
        Reading::Message(message)
    }

    /// What an event is that could not be decrypted.
    async fn unread(
        &self,
        room: &Room,
        reason: &UnableToDecryptReason,
        unsealed: &Unsealed<'_>,
        envelope: &Envelope,
    ) -> Reading {
        match reason {
            UnableToDecryptReason::MissingMegolmSession { .. } => {
                let waits = waits(Waits::Key, unsealed, envelope);
                match &waits {
                    Reading::Waits(_, session) if self.is_of_another_room(room, session).await => {
                        Reading::Skipped(FOREIGN_ROOM)
                    }
                    _ => waits,
                }
            }
            UnableToDecryptReason::UnknownMegolmMessageIndex => {
                waits(Waits::Key, unsealed, envelope)
            }
            UnableToDecryptReason::SenderIdentityNotTrusted(level) => {
                let state = VerificationState::Unverified(level.clone());
                match verdict(self.trust, Origin::Device(&state, &unsealed.pin)) {
                    Verdict::Hold(hold) => waits(Waits::Trust(hold), unsealed, envelope),
                    Verdict::Skip(rule) => Reading::Skipped(rule),
                    Verdict::Relay => Reading::Skipped(UNDECRYPTABLE),
                }
            }
            // It opens, and says that it is for another room.
            UnableToDecryptReason::MalformedEncryptedEvent if unsealed.opened.is_some() => {
                Reading::Skipped(FOREIGN_ROOM)
            }
            _ => Reading::Skipped(UNDECRYPTABLE),
        }
    }
}

/// The stored form of a message.
pub(super) fn ready(message: &Message) -> Option<Payload> {
    match message.to_bytes() {
        Ok(bytes) => Some(Payload::Ready(bytes)),
        Err(error) => {
            warn!(error = %error, "A message cannot be written down");
            None
        }
    }
}

pub(super) fn waits(why: Waits, unsealed: &Unsealed<'_>, envelope: &Envelope) -> Reading {
    let named = || envelope.content.get("session_id").and_then(Value::as_str);
    let session = unsealed
        .opened
        .as_ref()
        .map(|opened| opened.session.as_str());
    match session.or_else(named) {
        Some(session) => Reading::Waits(why, session.to_owned()),
        // Redacted, or never encrypted by anything we know.
        None => Reading::Skipped(UNDECRYPTABLE),
    }
}
