//! The bridge's reactions. Matrix never encrypts them, so into an encrypted room they are sent only where the portal
//! allows it.

use footbridge_core::outlet::{Done, Outcome, SendError};
use footbridge_store::{Copy, Place, RemoteId};
use matrix_sdk::{
    Room,
    ruma::{OwnedTransactionId, api::error::ErrorKind},
};
use serde_json::json;

use super::{
    Matrix,
    request_error::{RequestError, retry},
    send::put,
    unanswered_sends,
};

/// How to react.
#[derive(Clone, Copy)]
pub(super) struct ReactOptions {
    /// Whether to react although the room is encrypted and the reaction is not.
    pub unencrypted: bool,
    /// Whether the reaction is the bridge's own, and not relayed from a channel.
    pub own: bool,
}

impl Matrix {
    /// Reacts to a message. A reaction that exists already counts as success.
    pub(super) async fn react(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        (target, with, how): (&RemoteId, &str, ReactOptions),
    ) -> Result<Done, SendError> {
        let _turn = self.turns.take(to).await;
        if self.guard.check(room, to).await? && !how.unencrypted {
            // At the retry the lane knows that the room is encrypted.
            return Err(retry(
                None,
                Outcome::NotDone,
                "the room has just been encrypted",
            ));
        }
        let mut content = json!({ "m.relates_to": {
            "rel_type": "m.annotation", "event_id": target.as_str(), "key": with,
        }});
        unanswered_sends::mark(&mut content, key.as_str());
        if !how.own {
            self.peer_bridges.mark(to, &mut content);
        }
        match put(room, &key, "m.reaction", content).await {
            Ok(sent) => Ok(Done::ReactionAdded(Copy {
                remote: RemoteId(sent.response.event_id.to_string()),
                thread: None,
                sent_at: self.clock.now(),
                file: None,
            })),
            Err(error) if is_duplicate(&error) => Ok(Done::Edited(target.clone())),
            Err(error) => Err(RequestError::from(&error).into_send_error()),
        }
    }
}

/// Whether the homeserver says that this account has made this reaction already.
fn is_duplicate(error: &matrix_sdk::Error) -> bool {
    matches!(
        error.client_api_error_kind(),
        Some(ErrorKind::DuplicateAnnotation)
    )
}
