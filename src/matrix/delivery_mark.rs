//! The mark by which an event of the bridge is recognised after a lost response: its transaction id, in its content.

use serde_json::Value;

use super::event_fields::EventFields;

/// The content key under which each event of the bridge holds its transaction id. In encrypted rooms it is encrypted
/// with the rest; the homeserver knows the id anyway.
const DELIVERY_KEY: &str = "org.footbridge.delivery";

/// Marks a content with this transaction id.
pub(super) fn set(content: &mut Value, key: &str) {
    if let Some(content) = content.as_object_mut() {
        content.insert(DELIVERY_KEY.to_owned(), key.into());
    }
}

/// The transaction id of an event of the bridge, as far as the event contains it.
pub(super) fn of(envelope: &EventFields) -> Option<&str> {
    let marked = || envelope.content.get(DELIVERY_KEY).and_then(Value::as_str);
    envelope.unsigned.transaction_id.as_deref().or_else(marked)
}
