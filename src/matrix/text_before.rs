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
    fault::{Fault, retry},
    send::not_sent,
    walk::{Envelope, Names, Reading},
};

/// The most edits that are read once more, each by a request, while the homeserver says that they were redacted.
const MOST_EDITS: usize = 24;

/// What an event says that is read once more.
enum Again {
    /// This.
    Says(Box<Message>),
    /// It was redacted.
    Redacted,
    /// It cannot be read, or may not be believed.
    UndecryptableTexts,
}

impl Matrix {
    /// See `Outlet::text_before`.
    pub(super) async fn find_text(
        &self,
        from: &Place,
        message: &RemoteId,
        edits: &[RemoteId],
    ) -> Result<TextBeforeEdit, SendError> {
        let room = self
            .room(from)
            .ok_or_else(|| Fault::NotJoined.into_send_error())?;
        for edit in edits.iter().take(MOST_EDITS) {
            match self.read_again(&room, from, edit).await? {
                Again::Says(said) if said.target() == Some(message) => {
                    return Ok(TextBeforeEdit::Says(said, Some(edit.clone())));
                }
                Again::Redacted => {}
                Again::Says(_) | Again::UndecryptableTexts => {
                    return Ok(TextBeforeEdit::UndecryptableTexts);
                }
            }
        }
        if edits.len() > MOST_EDITS {
            return Ok(TextBeforeEdit::UndecryptableTexts);
        }
        Ok(match self.read_again(&room, from, message).await? {
            Again::Says(said) => match as_an_edit(*said, message) {
                Some(edit) => TextBeforeEdit::Says(Box::new(edit), None),
                None => TextBeforeEdit::UndecryptableTexts,
            },
            Again::Redacted => TextBeforeEdit::Redacted,
            Again::UndecryptableTexts => TextBeforeEdit::UndecryptableTexts,
        })
    }

    /// Reads an event of a room once more, by all rules by which it was read at first.
    async fn read_again(
        &self,
        room: &Room,
        place: &Place,
        event: &RemoteId,
    ) -> Result<Again, SendError> {
        let Some(came) = fetch(room, event).await? else {
            return Ok(Again::UndecryptableTexts);
        };
        let unsealed = self.unseal(room, &came).await;
        let Some(envelope) = Envelope::open(&unsealed.event) else {
            return Ok(Again::UndecryptableTexts);
        };
        if envelope.event_id != event.as_str() {
            return Ok(Again::UndecryptableTexts);
        }
        if envelope.is_redacted() {
            return Ok(Again::Redacted);
        }
        let keeps = self.keeps_here(place, &envelope.sender).await;
        if keeps.map_err(|error| retry(None, Outcome::NotDone, &format!("{error:#}")))? {
            // They want nothing of what they write carried over any more.
            return Ok(Again::UndecryptableTexts);
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
                return Ok(Again::UndecryptableTexts);
            }
        } else if matches!(unsealed.event.kind, TimelineEventKind::Decrypted(_)) {
            return Ok(Again::UndecryptableTexts);
        }
        let mut names = Names::default();
        let reading = self
            .read(room, &unsealed, &envelope, &mut names, encrypted)
            .await;
        Ok(match self.believing(reading, &unsealed, &envelope).await {
            Reading::Message(message) if message.is_nobridge() => Again::UndecryptableTexts,
            Reading::Message(message) => {
                let wrote = self.store.is_author(place, event, &envelope.sender).await;
                match (wrote.map_err(broken)?, &message.action) {
                    // Who wrote an edit, `read` has compared with who wrote its message.
                    (_, Action::Edit { .. }) | (Some(true), _) => Again::Says(Box::new(message)),
                    _ => Again::UndecryptableTexts,
                }
            }
            Reading::Nothing | Reading::Command(_) | Reading::Waits(..) | Reading::Skipped(_) => {
                info!(
                    matrix.room = place.address(),
                    "An event that was read before cannot be read any more"
                );
                Again::UndecryptableTexts
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
        Err(error) => match Fault::from(&error) {
            Fault::NotFound(_) | Fault::Forbidden(_) => Ok(None),
            fault => Err(not_sent(&fault)),
        },
    }
}

/// A message as the edit that makes it say the same again.
fn as_an_edit(message: Message, target: &RemoteId) -> Option<Message> {
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
