//! Sends that were never answered (D09, D10): the homeserver makes one event of however many tries, but only as
//! long as it remembers the transaction id, and it may count a send in the clear and an encrypted one as two.
//! Where that is in doubt the event is looked for in the room before the send is repeated.

use std::time::Duration;

use footbridge_core::outlet::{Done, Outcome, SendError, Step};
use footbridge_store::{Copy, Flag, Millis, Place, RemoteId};
use matrix_sdk::{
    Room,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    room::MessagesOptions,
    ruma::uint,
};
use serde_json::Value;
use tracing::info;

use super::{
    Matrix, bundle_edits::rewritten, convert::bundles, request_error::RequestError,
    request_error::retry, send::not_sent, timeline::EventFields,
};

/// Under this key the content of each event we send holds its transaction id. Encrypted rooms encrypt it with the
/// rest; the homeserver knows it anyway.
const DELIVERY_KEY: &str = "org.footbridge.delivery";
/// The homeserver's clock may differ from ours by so much.
const CLOCK_SKEW: Duration = Duration::from_hours(1);
/// How many pages of history are read at most.
const MAX_PAGES: usize = 40;

/// Marks a content as that of this transaction.
pub(super) fn mark(content: &mut Value, key: &str) {
    if let Some(content) = content.as_object_mut() {
        content.insert(DELIVERY_KEY.to_owned(), key.into());
    }
}

/// The transaction that an event of ours was sent by, as far as it says.
pub(super) fn marked(envelope: &EventFields) -> Option<&str> {
    let marked = || envelope.content.get(DELIVERY_KEY).and_then(Value::as_str);
    envelope.unsigned.transaction_id.as_deref().or_else(marked)
}

/// What a look at an event of the room tells.
enum EventMatch {
    /// It is the one.
    Found(RemoteId, Millis),
    /// It is another one.
    Another,
    /// It is one of ours that cannot be read: it may be the one.
    UndecryptableTexts,
    /// From here on all is older than the step.
    TooOld,
}

impl Matrix {
    /// See `Outlet::look_up`.
    pub(super) async fn find_unanswered_send(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        if !self.may_be_forgotten(to, since).await? {
            return Ok(None);
        }
        self.find_in_room(to, key, step, since).await
    }

    /// See `Outlet::find_by_key_always`.
    pub(super) async fn find_in_room(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        let (thread, target) = match step {
            Step::Post { thread, .. }
            | Step::SendFile { thread, .. }
            | Step::Bundle { thread, .. } => (thread, None),
            Step::Edit { target, .. } | Step::EditPart { target, .. } => (&None, Some(target)),
            // Gone twice is gone once.
            Step::Delete { .. } | Step::Unreact { .. } => return Ok(None),
            Step::React { .. } => (&None, None),
        };
        let found = if let Some(found) = self.former(to, key).await? {
            Some(found)
        } else {
            let room = self.known_room(to).await?;
            self.search_back(&room, to, key, since).await?
        };
        let what = if found.is_some() {
            "it had been sent; adopted"
        } else {
            "it had not been sent; sending it again"
        };
        info!(
            matrix.room = to.address(),
            "A send was never answered: {what}"
        );
        if let (Some((remote, _)), Step::Bundle { parts, thread }) = (&found, step) {
            let event = bundles::event_of(parts, thread.as_ref(), None);
            let said = event.as_ref().and_then(bundles::to_verify);
            self.save_event_digest(to, remote, said).await?;
        }
        let event = |remote, sent_at| Copy {
            remote,
            thread: None,
            sent_at,
            file: None,
        };
        Ok(found.map(|(remote, sent_at)| match (target, step) {
            (Some(target), Step::EditPart { slot, part, .. }) => {
                rewritten((target, *slot), part.as_ref(), event(remote, sent_at))
            }
            (Some(target), _) => Done::EditedBy {
                target: target.clone(),
                by: event(remote, sent_at),
            },
            (None, Step::React { .. }) => Done::ReactionAdded(Copy {
                remote,
                thread: None,
                sent_at,
                file: None,
            }),
            (None, _) => Done::Created(Copy {
                remote,
                thread: thread.clone(),
                sent_at,
                file: None,
            }),
        }))
    }

    /// Whether the homeserver may not know any more what it was sent since then, or may not recognise it.
    async fn may_be_forgotten(&self, to: &Place, since: Millis) -> Result<bool, SendError> {
        let now = self.clock.now();
        // A moment in the future is one before the clock was put back: nobody knows how long ago.
        if since > now || now.since(since) >= self.timeouts.unknown_after {
            return Ok(true);
        }
        // Transaction ids are known per device.
        if since <= self.device_since {
            return Ok(true);
        }
        let encrypted = self.encrypted_at(to).await?;
        Ok(encrypted.is_some_and(|at| at >= since))
    }

    /// When the room became encrypted, as far as we know.
    async fn encrypted_at(&self, to: &Place) -> Result<Option<Millis>, SendError> {
        let encrypted = self.store.raised_at(to, Flag::EverEncrypted).await;
        encrypted.map_err(|error| retry(None, Outcome::NotDone, &error.to_string()))
    }

    /// What a device before this one was found to have sent.
    async fn former(&self, to: &Place, key: &str) -> Result<Option<(RemoteId, Millis)>, SendError> {
        let found = self.store.former_send(to, key).await;
        found.map_err(|error| retry(None, Outcome::NotDone, &error.to_string()))
    }

    /// Reads the room backwards until the event is found or everything is older.
    async fn search_back(
        &self,
        room: &Room,
        to: &Place,
        key: &str,
        since: Millis,
    ) -> Result<Option<(RemoteId, Millis)>, SendError> {
        let mut from = None;
        // What a former device sent, this one cannot read; but it was looked through while that could.
        let mut unreadable = since <= self.device_since && self.former(to, "").await?.is_some();
        // What was sent before the room was encrypted may be found in the clear.
        let may_be_clear = self.encrypted_at(to).await?.is_none_or(|at| at >= since);
        for _ in 0..MAX_PAGES {
            let mut options = MessagesOptions::backward().from(from.as_deref());
            options.limit = uint!(500);
            let page = room
                .messages(options)
                .await
                .map_err(|error| not_sent(&RequestError::from(&error)))?;
            for event in &page.chunk {
                match self.look_at(event, key, (since, may_be_clear)) {
                    EventMatch::Found(remote, sent_at) => return Ok(Some((remote, sent_at))),
                    EventMatch::Another => {}
                    EventMatch::UndecryptableTexts => unreadable = true,
                    EventMatch::TooOld => return not_found(unreadable),
                }
            }
            match page.end {
                Some(end) if from.as_ref() != Some(&end) => from = Some(end),
                _ => return not_found(unreadable),
            }
        }
        not_found(true)
    }

    fn look_at(
        &self,
        event: &TimelineEvent,
        key: &str,
        (since, may_be_clear): (Millis, bool),
    ) -> EventMatch {
        let Some(envelope) = EventFields::open(event) else {
            return EventMatch::Another;
        };
        let sent_at = Millis(envelope.origin_server_ts);
        if sent_at.plus(CLOCK_SKEW) < since {
            return EventMatch::TooOld;
        }
        if envelope.sender != self.own.as_str() {
            return EventMatch::Another;
        }
        // Reactions are never encrypted. All else in an encrypted room, anybody may have written who runs a homeserver.
        let is_clear = matches!(event.kind, TimelineEventKind::PlainText { .. });
        if is_clear && !may_be_clear && envelope.event_type != "m.reaction" {
            return EventMatch::Another;
        }
        match marked(&envelope) {
            Some(marked) if marked == key => {
                EventMatch::Found(RemoteId(envelope.event_id), sent_at)
            }
            // What was sent before this device was ours is among what was found when it took its place.
            None if event.kind.is_utd()
                && sent_at >= self.device_since
                && self.may_be_this_device(&envelope) =>
            {
                EventMatch::UndecryptableTexts
            }
            _ => EventMatch::Another,
        }
    }

    /// Whether an event of our account, as far as it says, came from this device.
    fn may_be_this_device(&self, envelope: &EventFields) -> bool {
        let device = envelope.content.get("device_id").and_then(Value::as_str);
        let own = self
            .client
            .device_id()
            .map(matrix_sdk::ruma::DeviceId::as_str);
        device.is_none() || device == own
    }
}

/// Nothing was found. Whether that says that there is nothing.
fn not_found(unreadable: bool) -> Result<Option<(RemoteId, Millis)>, SendError> {
    if unreadable {
        return Err(SendError::Refused {
            reason: "the homeserver never answered, and nobody can tell any more whether the \
                     message arrived"
                .into(),
        });
    }
    Ok(None)
}
