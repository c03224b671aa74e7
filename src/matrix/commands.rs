//! Commands to the bridge in a room: a line that begins with `!bridge`, or the reaction 🔁 on a message that failed.

use footbridge_core::message::{Command, Sender};
use footbridge_store::{Place, Store};
use matrix_sdk::{Room, ruma::UserId};

use super::convert::{CommandRequest, Incoming};

/// The command in this event, if it is one. `in_clear` says that the event was not encrypted although the room is:
/// then only a reaction counts. Reactions are never encrypted, and all that one can do is retry what its author
/// wanted to send. `sealed` says that the event was encrypted, by a device whose messages are relayed.
pub(super) async fn find(
    store: &Store,
    room: &Room,
    incoming: &Incoming,
    in_clear: bool,
    sealed: bool,
) -> Option<Command> {
    let request = CommandRequest::of(incoming)?;
    if in_clear && !request.is_reaction {
        return None;
    }
    if let (true, Some(target)) = (request.is_reaction, &request.target) {
        let place = Place::room(room.room_id().as_str());
        let about = store.parked_deliveries_of(&place, target).await.ok()?;
        // An ordinary reaction.
        if about.is_empty() {
            return None;
        }
    }
    Some(Command {
        sender: Sender {
            id: incoming.sender.clone(),
            name: incoming.sender_name.clone(),
            avatar: None,
        },
        arguments: request.words,
        target: request.target,
        thread: request.thread,
        moderator: may_redact(room, &incoming.sender).await,
        by_reaction: request.is_reaction,
        encrypted: sealed,
    })
}

/// Whether this user may redact other people's messages, as far as the SDK knows; no request is made.
async fn may_redact(room: &Room, user: &str) -> bool {
    let Ok(user) = <&UserId>::try_from(user) else {
        return false;
    };
    room.power_levels()
        .await
        .is_ok_and(|levels| levels.user_can_redact_event_of_other(user))
}
