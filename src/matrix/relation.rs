//! The relation of an event to other events, readable even if the event is not.

use footbridge_store::RemoteId;
use matrix_sdk::{
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    ruma::serde::Raw,
};
use serde_json::Value;

/// The field of an event's content that holds its relation to another event.
const RELATES: &str = "m.relates_to";

/// An event's relation outside of its ciphertext.
pub(super) struct Relation {
    pub replaces: bool,
    pub thread: Option<RemoteId>,
}

impl Relation {
    pub fn of(content: &Value) -> Self {
        let relates = content.get(RELATES);
        let field = |name| {
            relates
                .and_then(|relates| relates.get(name))
                .and_then(Value::as_str)
        };
        Self {
            replaces: field("rel_type") == Some("m.replace"),
            thread: (field("rel_type") == Some("m.thread"))
                .then(|| field("event_id").map(RemoteId::from))
                .flatten(),
        }
    }
}

/// A decrypted event with the relation from outside of the ciphertext of the event as it `came`, and no other: the
/// homeserver and all clients use that one and ignore a relation inside (specification, "Event relationships"). The SDK
/// prefers the relation inside (matrix-sdk-crypto 0.18, `InboundGroupSession::decrypt`).
pub(super) fn with_outer_relation(
    mut decrypted: TimelineEvent,
    came: &TimelineEvent,
) -> TimelineEvent {
    let TimelineEventKind::Decrypted(open) = &mut decrypted.kind else {
        return decrypted;
    };
    let parsed = |json: &str| serde_json::from_str::<Value>(json).ok();
    let outer =
        parsed(came.raw().json().get()).and_then(|came| came.get("content")?.get(RELATES).cloned());
    let Some(mut event) = parsed(open.event.json().get()) else {
        return decrypted;
    };
    let Some(content) = event.get_mut("content").and_then(Value::as_object_mut) else {
        return decrypted;
    };
    if content.get(RELATES) == outer.as_ref() {
        return decrypted;
    }
    match outer {
        Some(relation) => content.insert(RELATES.to_owned(), relation),
        None => content.remove(RELATES),
    };
    if let Ok(event) = Raw::new(&event) {
        open.event = event.cast_unchecked();
    }
    decrypted
}
