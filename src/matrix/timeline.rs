//! Processing one event of a room's timeline into at most one arrival. `event_reader` decides what the event is; here
//! it is decided what becomes of that.

use std::{sync::Arc, time::Duration};

use footbridge_core::{
    clock::Clock,
    inbox::{Arrival, ArrivalContent},
    message::Action,
    peer_bridges::PeerBridges,
};
use footbridge_store::{Millis, Place, RemoteId, SkipRule};
use matrix_sdk::{
    Room,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
};
use tracing::{debug, warn};

use super::{
    account_client::AccountClient,
    delivery_mark,
    event_fields::{DisplayNames, EventFields},
    event_reader::{Classification, EventReader, WaitReason},
    identities::Identities,
    message_authors::{MessageAuthors, writer},
    processed_event::{ProcessedEvent, peer_claims},
    refusals::Refusals,
    relation::Relation,
    trust_policy::TrustHold,
    unsigned_devices::UnsignedNotices,
    unverified_sessions::UnverifiedSessions,
    wait_timer::WaitTimer,
};

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

/// Processes the events of one account's rooms.
#[derive(Debug)]
pub(super) struct Timeline {
    pub account: AccountClient,
    pub clock: Clock,
    /// How long a lane waits for a missing room key before it delivers later messages.
    pub key_wait: Duration,
    pub reader: Arc<EventReader>,
    pub identities: Arc<Identities>,
    pub authors: Arc<MessageAuthors>,
    pub refusals: Arc<Refusals>,
    pub unverified_sessions: Arc<UnverifiedSessions>,
    pub wait_timer: Arc<WaitTimer>,
    pub unsigned_notices: Arc<UnsignedNotices>,
    /// Which channels the rooms are linked to.
    pub peer_bridges: PeerBridges,
}

impl Timeline {
    /// Processes one event. `encrypted` says whether the room is or ever was encrypted.
    pub(super) async fn process(
        &self,
        room: &Room,
        place: &Place,
        came: &TimelineEvent,
        names: &mut DisplayNames,
        encrypted: bool,
    ) -> EventOutcome {
        let unsealed = self.reader.decrypt(room, came).await;
        let event = unsealed.event.as_ref();
        let Some(envelope) = EventFields::open(event) else {
            warn!(
                matrix.room = place.address(),
                "Skipped an event without its required fields"
            );
            return EventOutcome::Nothing;
        };
        let is_own = self.account.is_own(&envelope.sender);
        let is_open = matches!(event.kind, TimelineEventKind::Decrypted(_));
        if is_own && delivery_mark::of(&envelope).is_some() {
            if is_open || !encrypted {
                self.authors.remember(place, &envelope);
            }
            return EventOutcome::Nothing;
        }
        let classification = self
            .reader
            .classify(room, &unsealed, &envelope, names, encrypted)
            .await;
        // In an encrypted room the sender of an event that is not relayed is not certain. A waiting event is relayed
        // with the sender that is shown now, or never.
        if !encrypted
            || !matches!(classification, Classification::Skipped(_))
                && (is_open || classification.waits())
        {
            self.authors.remember(place, &envelope);
        }
        if is_open && matches!(classification, Classification::Message(_)) {
            self.unsigned_notices.has_relayed(place, &envelope.sender);
        }
        let bridges = match classification {
            Classification::Skipped(SkipRule::PeerBridge) => {
                peer_claims(&self.peer_bridges, place, &envelope)
            }
            _ => Vec::new(),
        };
        if let Classification::Skipped(rule) = classification {
            self.refusals.refused(rule, room);
        }
        let for_approval = matches!(
            classification,
            Classification::Waits(WaitReason::Trust(TrustHold::Approval), _)
        );
        let held = for_approval.then(|| self.identities.suspect(&envelope.sender, &unsealed));
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
                    WaitReason::Trust(TrustHold::Approval) => self.refusals.identity_changed(),
                    WaitReason::Trust(hold) => drop(self.unverified_sessions.hold(
                        &session,
                        &envelope.sender,
                        hold,
                    )),
                }
                self.wait_timer.begin_waiting();
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
}
