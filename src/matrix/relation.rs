//! What an event says about others, readable even where the event is not.

use footbridge_store::RemoteId;
use matrix_sdk::{
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    ruma::serde::Raw,
};
use serde_json::Value;

/// Where an event says to which other it relates, and how.
const RELATES: &str = "m.relates_to";

/// What an event says about others outside of its ciphertext.
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

/// A decrypted event with the relation that stands beside the ciphertext of the event as it `came`, and no other: the
/// homeserver and all clients go by that, and ignore one from inside (specification, "Event relationships"). The SDK takes
/// that from inside first (matrix-sdk-crypto 0.18, `InboundGroupSession::decrypt`).
pub(super) fn with_outer_relation(mut read: TimelineEvent, came: &TimelineEvent) -> TimelineEvent {
    let TimelineEventKind::Decrypted(open) = &mut read.kind else {
        return read;
    };
    let parsed = |json: &str| serde_json::from_str::<Value>(json).ok();
    let beside =
        parsed(came.raw().json().get()).and_then(|came| came.get("content")?.get(RELATES).cloned());
    let Some(mut event) = parsed(open.event.json().get()) else {
        return read;
    };
    let Some(content) = event.get_mut("content").and_then(Value::as_object_mut) else {
        return read;
    };
    if content.get(RELATES) == beside.as_ref() {
        return read;
    }
    match beside {
        Some(relation) => content.insert(RELATES.to_owned(), relation),
        None => content.remove(RELATES),
    };
    if let Ok(event) = Raw::new(&event) {
        open.event = event.cast_unchecked();
    }
    read
}
