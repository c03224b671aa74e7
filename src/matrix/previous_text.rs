//! What a message says once an edit of it was redacted: its newest edit that stands, or its own text, read back from the
//! homeserver. Nothing counts but what this bridge has read before under the same event, so that the homeserver cannot
//! put other words in their place.

use footbridge_core::{
    message::{Action, Message, Style},
    outlet::{Outcome, SendError, TextBeforeEdit},
    text::Body,
};
use footbridge_store::{Place, RemoteId};
use matrix_sdk::{
    Room,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    ruma::{EventId, api::client::room::get_room_event},
};
use tracing::{info, warn};

use super::{
    Matrix,
    request_error::{RequestError, retry},
    send::not_sent,
    timeline::{Classification, DisplayNames, EventFields},
};

/// The most edits that are read once more, each by a request, while the homeserver says that they were redacted.
const MAX_EDITS: usize = 24;

/// What an event says that is read once more.
enum RereadEvent {
    /// This.
    Text(Box<Message>),
    /// It was redacted.
    Redacted,
    /// It cannot be read, or may not be believed.
    UndecryptableTexts,
}

impl Matrix {
    /// See `Outlet::text_before`.
    pub(super) async fn find_previous_text(
        &self,
        from: &Place,
        message: &RemoteId,
        edits: &[RemoteId],
    ) -> Result<TextBeforeEdit, SendError> {
        let room = self
            .room(from)
            .ok_or_else(|| RequestError::NotJoined.into_send_error())?;
        for edit in edits.iter().take(MAX_EDITS) {
            match self.reread_event(&room, from, edit).await? {
                RereadEvent::Text(said) if said.target() == Some(message) => {
                    return Ok(TextBeforeEdit::Says(said, Some(edit.clone())));
                }
                RereadEvent::Redacted => {}
                RereadEvent::Text(_) | RereadEvent::UndecryptableTexts => {
                    return Ok(TextBeforeEdit::UndecryptableTexts);
                }
            }
        }
        if edits.len() > MAX_EDITS {
            return Ok(TextBeforeEdit::UndecryptableTexts);
        }
        Ok(match self.reread_event(&room, from, message).await? {
            RereadEvent::Text(said) => match as_edit(*said, message) {
                Some(edit) => TextBeforeEdit::Says(Box::new(edit), None),
                None => TextBeforeEdit::UndecryptableTexts,
            },
            RereadEvent::Redacted => TextBeforeEdit::Redacted,
            RereadEvent::UndecryptableTexts => TextBeforeEdit::UndecryptableTexts,
        })
    }

    /// Reads an event of a room once more, by all rules by which it was read at first.
    async fn reread_event(
        &self,
        room: &Room,
        place: &Place,
        event: &RemoteId,
    ) -> Result<RereadEvent, SendError> {
        let Some(came) = fetch(room, event).await? else {
            return Ok(RereadEvent::UndecryptableTexts);
        };
        let unsealed = self.try_decrypt(room, &came).await;
        let Some(envelope) = EventFields::open(&unsealed.event) else {
            return Ok(RereadEvent::UndecryptableTexts);
        };
        if envelope.event_id != event.as_str() {
            return Ok(RereadEvent::UndecryptableTexts);
        }
        if envelope.is_redacted() {
            return Ok(RereadEvent::Redacted);
        }
        let keeps = self.has_opted_out(place, &envelope.sender).await;
        if keeps.map_err(|error| retry(None, Outcome::NotDone, &format!("{error:#}")))? {
            // They want nothing of what they write carried over any more.
            return Ok(RereadEvent::UndecryptableTexts);
        }
        let broken =
            |error: footbridge_store::Error| retry(None, Outcome::NotDone, &error.to_string());
        let encrypted = self.was_encrypted(place).await.map_err(broken)?;
        if let Some(opened) = unsealed.opened_with(true) {
            let known = self.store.was_decrypted_with(event, &opened).await;
            if !known.map_err(broken)? {
                warn!(
                    matrix.room = place.address(),
                    "The homeserver shows another message under an event that was read before: it is not believed"
                );
                return Ok(RereadEvent::UndecryptableTexts);
            }
        } else if matches!(unsealed.event.kind, TimelineEventKind::Decrypted(_)) {
            return Ok(RereadEvent::UndecryptableTexts);
        }
        let mut names = DisplayNames::default();
        let reading = self
            .classify(room, &unsealed, &envelope, &mut names, encrypted)
            .await;
        Ok(match self.pin_sender(reading, &unsealed, &envelope).await {
            Classification::Message(message) if message.is_nobridge() => {
                RereadEvent::UndecryptableTexts
            }
            Classification::Message(message) => {
                let wrote = self.store.is_author(place, event, &envelope.sender).await;
                match (wrote.map_err(broken)?, &message.action) {
                    // Who wrote an edit, `read` has compared with who wrote its message.
                    (_, Action::Edit { .. }) | (Some(true), _) => {
                        RereadEvent::Text(Box::new(message))
                    }
                    _ => RereadEvent::UndecryptableTexts,
                }
            }
            Classification::Nothing
            | Classification::Command(_)
            | Classification::Waits(..)
            | Classification::Skipped(_) => {
                info!(
                    matrix.room = place.address(),
                    "An event that was read before cannot be read any more"
                );
                RereadEvent::UndecryptableTexts
            }
        })
    }
}

/// An event as the homeserver has it, still encrypted; `None` where it has none of this id, or does not show it.
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
            fault => Err(not_sent(&fault)),
        },
    }
}

/// A message as the edit that makes it say the same again.
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
