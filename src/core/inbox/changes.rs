//! The message of a person in an arrival, and what it changes in an earlier message.

use footbridge_store::{Arrival, Change, Payload};

use crate::message::{Action, Message};

/// The message of a person, if a person wrote the payload.
pub(super) fn human_message(payload: &Payload) -> Option<Message> {
    let Payload::Ready(payload) = payload else {
        return None;
    };
    let message = Message::from_bytes(payload).ok()?;
    (!message.sender.is_bridge()).then_some(message)
}

/// Whether this only deletes a message or removes a reaction.
#[must_use]
pub fn is_retraction(message: &Message) -> bool {
    matches!(
        message.action,
        Action::Delete { .. } | Action::Unreact { .. }
    )
}

/// The change that an arrival makes, if any.
pub(super) fn change_of(arrival: &Arrival, message: &Message) -> Option<Change> {
    let target = match &message.action {
        Action::Edit { target, .. } | Action::Delete { target } => Some(target.clone()),
        Action::Unreact { .. } => None,
        _ => return None,
    };
    Some(Change {
        place: arrival.place.clone(),
        event_id: arrival.event_id.clone(),
        target,
        is_retraction: is_retraction(message),
        stays: message.is_nobridge(),
    })
}
