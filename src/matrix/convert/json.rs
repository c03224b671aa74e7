//! Fields of an event's content.

use footbridge_store::RemoteId;
use serde_json::Value;

/// The text under a JSON pointer.
pub(super) fn text_at<'a>(content: &'a Value, pointer: &str) -> Option<&'a str> {
    content.pointer(pointer)?.as_str()
}

/// The event id under a JSON pointer.
pub(super) fn id_at(content: &Value, pointer: &str) -> Option<RemoteId> {
    let id = text_at(content, pointer)?;
    (id.starts_with('$') && id.len() <= 255).then(|| RemoteId::from(id))
}

/// Sets a field of an object.
pub(super) fn insert(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}
