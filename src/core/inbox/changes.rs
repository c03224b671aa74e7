//! What a person said, and what of it changes what was said before.

use footbridge_store::{Arrival, Change, Payload};

use crate::message::{Action, Message};

/// What a person said, if somebody did.
pub(super) fn said(payload: &Payload) -> Option<Message> {
    let Payload::Ready(letter) = payload else {
        return None;
    };
    let message = Message::from_bytes(letter).ok()?;
    (!message.sender.is_bridge()).then_some(message)
}

/// Whether this only takes something back.
#[must_use]
pub fn takes_back(message: &Message) -> bool {
    matches!(
        message.action,
        Action::Delete { .. } | Action::Unreact { .. }
    )
}

/// What an arrival changes, if it does.
pub(super) fn change_of(arrival: &Arrival, message: &Message) -> Option<Change> {
    let target = match &message.action {
        Action::Edit { target, .. } | Action::Delete { target } => Some(target.clone()),
        Action::Unreact { .. } => None,
        _ => return None,
    };
    Some(Change {
        place: arrival.place.clone(),
        fact: arrival.fact.clone(),
        target,
        takes_back: takes_back(message),
        stays: message.stays_here(),
    })
}
