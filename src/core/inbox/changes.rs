//! What a message changes in an earlier message.

use footbridge_store::Change;

use super::Arrival;
use crate::message::{Action, Message};

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
