//! Sends without a response (D09, D10): the homeserver creates one event however often a send is retried, but only as
//! long as it remembers the transaction id, and it may treat a plaintext send and an encrypted one as two. Where that
//! is uncertain, the event is looked up in the room before the send is repeated.

use std::{sync::Arc, time::Duration};

use footbridge_core::{
    clock::Clock,
    outlet::{Done, Outcome, SendError, Step},
};
use footbridge_store::{Copy, Flag, Millis, Place, RemoteId, Store};
use matrix_sdk::{
    Room,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    room::MessagesOptions,
    ruma::uint,
};
use serde_json::Value;
use tracing::info;

use super::{
    account_client::AccountClient,
    convert::bundles,
    event_edits::rewritten,
    event_fields::EventFields,
    event_sender::not_sent,
    own_events::OwnEvents,
    request_error::{RequestError, retry},
    unjoined_rooms::UnjoinedRooms,
};

/// The content key under which each event of the bridge holds its transaction id. In encrypted rooms it is encrypted
/// with the rest; the homeserver knows the id anyway.
const DELIVERY_KEY: &str = "org.footbridge.delivery";
/// How much the homeserver's clock may differ from the local one.
const CLOCK_SKEW: Duration = Duration::from_hours(1);
/// The most pages of history that are read.
const MAX_PAGES: usize = 40;

/// Marks a content with this transaction id.
pub(super) fn mark(content: &mut Value, key: &str) {
    if let Some(content) = content.as_object_mut() {
        content.insert(DELIVERY_KEY.to_owned(), key.into());
    }
}

/// The transaction id of an event of the bridge, as far as the event contains it.
pub(super) fn marked(envelope: &EventFields) -> Option<&str> {
    let marked = || envelope.content.get(DELIVERY_KEY).and_then(Value::as_str);
    envelope.unsigned.transaction_id.as_deref().or_else(marked)
}

/// How an event of the room compares with the send.
enum EventMatch {
    /// It is the event that was sent.
    Found(RemoteId, Millis),
    /// It is another event.
    Another,
    /// It is an event of this account that cannot be decrypted: it may be the one.
    Unreadable,
    /// It and all older events were sent before the step.
    TooOld,
}

/// Looks for sends of this device whose outcome is unknown.
#[derive(Debug)]
pub(super) struct UnansweredSends {
    pub account: AccountClient,
    pub store: Store,
    pub clock: Clock,
    pub unjoined_rooms: Arc<UnjoinedRooms>,
    pub own_events: Arc<OwnEvents>,
    /// When this device was saved in the store: messages sent before that came from another device.
    pub device_since: Millis,
    /// When a send of unknown outcome is no longer repeated before the bridge has looked for it.
    pub unknown_after: Duration,
}

impl UnansweredSends {
    /// See `Outlet::find_by_key`.
    pub(super) async fn find(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        if !self.may_be_forgotten(to, since).await? {
            return Ok(None);
        }
        self.find_always(to, key, step, since).await
    }

    /// See `Outlet::find_by_key_always`.
    pub(super) async fn find_always(
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
            // A repeated redaction has no further effect.
            Step::Delete { .. } | Step::Unreact { .. } => return Ok(None),
            Step::React { .. } => (&None, None),
        };
        let found = if let Some(found) = self.former(to, key).await? {
            Some(found)
        } else {
            let room = self.unjoined_rooms.known_room(to).await?;
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
            let digest_input = event.as_ref().and_then(bundles::to_verify);
            self.own_events
                .save_digest(to, remote, digest_input)
                .await?;
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

    /// Whether the homeserver may have forgotten a send since then, or may not recognise it.
    async fn may_be_forgotten(&self, to: &Place, since: Millis) -> Result<bool, SendError> {
        let now = self.clock.now();
        // A time in the future was recorded before the clock was put back: its age is unknown.
        if since > now || now.since(since) >= self.unknown_after {
            return Ok(true);
        }
        // Transaction ids are known per device.
        if since <= self.device_since {
            return Ok(true);
        }
        let encrypted = self.encrypted_at(to).await?;
        Ok(encrypted.is_some_and(|at| at >= since))
    }

    /// When the room became encrypted, as far as the bridge knows.
    async fn encrypted_at(&self, to: &Place) -> Result<Option<Millis>, SendError> {
        let encrypted = self.store.raised_at(to, Flag::EverEncrypted).await;
        encrypted.map_err(|error| retry(None, Outcome::NotDone, &error.to_string()))
    }

    /// The event that a former device has sent for this step.
    async fn former(&self, to: &Place, key: &str) -> Result<Option<(RemoteId, Millis)>, SendError> {
        let found = self.store.former_send(to, key).await;
        found.map_err(|error| retry(None, Outcome::NotDone, &error.to_string()))
    }

    /// Reads the room backwards until the event is found or all further events are older.
    async fn search_back(
        &self,
        room: &Room,
        to: &Place,
        key: &str,
        since: Millis,
    ) -> Result<Option<(RemoteId, Millis)>, SendError> {
        let mut from = None;
        // This device cannot decrypt what a former device sent; but those events were looked up while the former keys
        // were there.
        let mut unreadable = since <= self.device_since && self.former(to, "").await?.is_some();
        // An event from before the room was encrypted may be found in plaintext.
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
                    EventMatch::Unreadable => unreadable = true,
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
        if !self.account.is_own(&envelope.sender) {
            return EventMatch::Another;
        }
        // Reactions are never encrypted. Any other plaintext event in an encrypted room may be forged by the
        // homeserver.
        let is_clear = matches!(event.kind, TimelineEventKind::PlainText { .. });
        if is_clear && !may_be_clear && envelope.event_type != "m.reaction" {
            return EventMatch::Another;
        }
        match marked(&envelope) {
            Some(marked) if marked == key => {
                EventMatch::Found(RemoteId(envelope.event_id), sent_at)
            }
            // Events from before this device were looked up when it replaced the former one.
            None if event.kind.is_utd()
                && sent_at >= self.device_since
                && self.may_be_this_device(&envelope) =>
            {
                EventMatch::Unreadable
            }
            _ => EventMatch::Another,
        }
    }

    /// Whether an event of this account came, by its own claim, from this device.
    fn may_be_this_device(&self, envelope: &EventFields) -> bool {
        let device = envelope.content.get("device_id").and_then(Value::as_str);
        let own = self
            .account
            .client()
            .device_id()
            .map(matrix_sdk::ruma::DeviceId::as_str);
        device.is_none() || device == own
    }
}

/// Nothing was found. If some events could not be decrypted, that proves nothing.
fn not_found(unreadable: bool) -> Result<Option<(RemoteId, Millis)>, SendError> {
    if unreadable {
        return Err(SendError::Refused {
            reason: "the homeserver never answered, and it is no longer possible to find out whether the \
                     message arrived"
                .into(),
        });
    }
    Ok(None)
}
