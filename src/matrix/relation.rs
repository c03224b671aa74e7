//! What an event says about others, readable even where the event is not.

use footbridge_store::RemoteId;
use serde_json::Value;

/// What an event says about others outside of its ciphertext.
pub(super) struct Relation {
    pub replaces: bool,
    pub thread: Option<RemoteId>,
}

impl Relation {
    pub fn of(content: &Value) -> Self {
        let relates = content.get("m.relates_to");
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
