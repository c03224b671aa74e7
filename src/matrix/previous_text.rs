//! The text of a message after an edit of it was redacted: its newest edit that was not redacted, or its original text,
//! read back from the homeserver. Only a content counts that this bridge has read before under the same event id, so
//! that the homeserver cannot replace it.

use std::sync::Arc;

use footbridge_core::{
    message::{Action, Message, Style},
    outlet::{Outcome, SendError, TextBeforeEdit},
    text::Body,
};
use footbridge_store::{Place, RemoteId, Store};
use matrix_sdk::{
    Room,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    ruma::{EventId, api::client::room::get_room_event},
};
use tracing::{info, warn};

use super::{
    account_client::AccountClient,
    event_fields::{DisplayNames, EventFields},
    event_reader::{Classification, EventReader},
    request_error::{RequestError, retry},
    room_flags::RoomFlags,
    undecryptable::has_opted_out,
};

/// The most edits that are read again, each with one request, while the homeserver says that they were redacted.
const MAX_EDITS: usize = 24;

/// The result of reading an event again.
enum RereadEvent {
    /// Its message.
    Text(Box<Message>),
    /// It was redacted.
    Redacted,
    /// It cannot be read, or must not be trusted.
    Unreadable,
}

/// Reads messages of rooms again.
#[derive(Debug)]
pub(super) struct PreviousTexts {
    account: AccountClient,
    store: Store,
    flags: Arc<RoomFlags>,
    reader: Arc<EventReader>,
}

impl PreviousTexts {
    pub(super) fn of(
        account: AccountClient,
        store: Store,
        flags: Arc<RoomFlags>,
        reader: Arc<EventReader>,
    ) -> Self {
        Self {
            account,
            store,
            flags,
            reader,
        }
    }

    /// See `Outlet::text_before_edit`.
    pub(super) async fn find(
        &self,
        from: &Place,
        message: &RemoteId,
        edits: &[RemoteId],
    ) -> Result<TextBeforeEdit, SendError> {
        let room = self
            .account
            .room(from)
            .ok_or_else(|| RequestError::NotJoined.into_send_error())?;
        for edit in edits.iter().take(MAX_EDITS) {
            match self.reread_event(&room, from, edit).await? {
                RereadEvent::Text(text) if text.target() == Some(message) => {
                    return Ok(TextBeforeEdit::Text(text, Some(edit.clone())));
                }
                RereadEvent::Redacted => {}
                RereadEvent::Text(_) | RereadEvent::Unreadable => {
                    return Ok(TextBeforeEdit::Unreadable);
                }
            }
        }
        if edits.len() > MAX_EDITS {
            return Ok(TextBeforeEdit::Unreadable);
        }
        Ok(match self.reread_event(&room, from, message).await? {
            RereadEvent::Text(text) => match as_edit(*text, message) {
                Some(edit) => TextBeforeEdit::Text(Box::new(edit), None),
                None => TextBeforeEdit::Unreadable,
            },
            RereadEvent::Redacted => TextBeforeEdit::Redacted,
            RereadEvent::Unreadable => TextBeforeEdit::Unreadable,
        })
    }

    /// Reads an event of a room again, by all rules by which it was read at first.
    async fn reread_event(
        &self,
        room: &Room,
        place: &Place,
        event: &RemoteId,
    ) -> Result<RereadEvent, SendError> {
        let Some(came) = fetch(room, event).await? else {
            return Ok(RereadEvent::Unreadable);
        };
        let unsealed = self.reader.decrypt(room, &came).await;
        let Some(envelope) = EventFields::open(&unsealed.event) else {
            return Ok(RereadEvent::Unreadable);
        };
        if envelope.event_id != event.as_str() {
            return Ok(RereadEvent::Unreadable);
        }
        if envelope.is_redacted() {
            return Ok(RereadEvent::Redacted);
        }
        let opted_out = has_opted_out(&self.store, place, &envelope.sender).await;
        if opted_out.map_err(|error| retry(None, Outcome::NotDone, &format!("{error:#}")))? {
            // The sender has opted out of relaying since.
            return Ok(RereadEvent::Unreadable);
        }
        let broken =
            |error: footbridge_store::Error| retry(None, Outcome::NotDone, &error.to_string());
        let encrypted = self.flags.was_encrypted(place).await.map_err(broken)?;
        if let Some(opened) = unsealed.opened_with(true) {
            let known = self.store.was_decrypted_with(event, &opened).await;
            if !known.map_err(broken)? {
                warn!(
                    matrix.room = place.address(),
                    "The homeserver returned another content for an event that was read before; it is ignored"
                );
                return Ok(RereadEvent::Unreadable);
            }
        } else if matches!(unsealed.event.kind, TimelineEventKind::Decrypted(_)) {
            return Ok(RereadEvent::Unreadable);
        }
        let mut names = DisplayNames::default();
        let classification = self
            .reader
            .classify(room, &unsealed, &envelope, &mut names, encrypted)
            .await;
        Ok(match classification {
            Classification::Message(message) if message.is_nobridge() => RereadEvent::Unreadable,
            Classification::Message(message) => {
                let wrote = self.store.is_author(place, event, &envelope.sender).await;
                match (wrote.map_err(broken)?, &message.action) {
                    // `classify` has compared the sender of an edit with the sender of its message.
                    (_, Action::Edit { .. }) | (Some(true), _) => {
                        RereadEvent::Text(Box::new(message))
                    }
                    _ => RereadEvent::Unreadable,
                }
            }
            Classification::Nothing
            | Classification::Command(_)
            | Classification::Waits(..)
            | Classification::Skipped(_) => {
                info!(
                    matrix.room = place.address(),
                    "An event that was read before can no longer be read"
                );
                RereadEvent::Unreadable
            }
        })
    }
}

/// An event from the homeserver, still encrypted; `None` where the homeserver has none of this id or does not return
/// it.
async fn fetch(room: &Room, event: &RemoteId) -> Result<Option<TimelineEvent>, SendError> {
    let Ok(id) = <&EventId>::try_from(event.as_str()) else {
        return Ok(None);
    };
    let request = get_room_event::v3::Request::new(room.room_id().to_owned(), id.to_owned());
    match room.client().send(request).await {
        Ok(answer) => Ok(Some(TimelineEvent::from_plaintext(
            answer.event.cast_unchecked(),
        ))),
        Err(error) => match RequestError::from(&error) {
            RequestError::NotFound(_) | RequestError::Forbidden(_) => Ok(None),
            error => Err(error.into_unsent_error()),
        },
    }
}

/// The edit that gives a message this content again.
fn as_edit(message: Message, target: &RemoteId) -> Option<Message> {
    let (body, style) = match message.action {
        Action::Post { body, style, .. } => (body, style),
        Action::Unsupported { summary } => (Body::plain(&summary), Style::Emote),
        _ => return None,
    };
    let action = Action::Edit {
        target: target.clone(),
        body,
        style,
    };
    Some(Message {
        action,
        sender: message.sender,
        sent_at: message.sent_at,
        files: message.files,
    })
}
