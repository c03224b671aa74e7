//! The author of an event of the bridge, as a per-message profile (MSC4144), and the name in it.

use footbridge_core::{
    message::Sender,
    names,
    outlet::Content,
    render::{PROFILE_FALLBACK, html_name},
};
use serde_json::{Value, json};

use super::json::insert;

/// The field of a content that holds its author.
pub(super) const PROFILE: &str = "com.beeper.per_message_profile";
/// The longest id of an author, in bytes.
const MAX_ID: usize = 255;

/// The author of an event of the bridge (MSC4144): a stable id, and the name as it is shown. If the text also contains
/// the name, the event says so, and clients may omit it there.
pub(super) fn profile(author: &Sender, content: &Content) -> Value {
    let mut id = author.id.clone();
    while id.len() > MAX_ID {
        id.pop();
    }
    let mut profile = json!({ "id": id, "displayname": author.name });
    let html = content.html.as_deref().unwrap_or_default();
    if html.starts_with(PROFILE_FALLBACK) {
        insert(&mut profile, "has_fallback", json!(true));
    }
    profile
}

/// Adds an author's avatar to their profile, in the new content of an edit as well.
pub fn put_avatar(event: &mut Value, picture: &Value) {
    let profile = event.get_mut(PROFILE).and_then(Value::as_object_mut);
    if let (Some(profile), Some(picture)) = (profile, picture.as_object()) {
        profile.extend(picture.clone());
    }
    if let Some(new) = event.get_mut("m.new_content") {
        put_avatar(new, picture);
    }
}

/// The same content with another name for its author, whose own name could be taken for somebody else's.
#[must_use]
pub fn renamed(content: &Content, name: &str) -> Content {
    let Some(author) = &content.author else {
        return content.clone();
    };
    let name = names::bidi_isolate(name);
    let html = content.html.as_ref();
    // No text before the name could contain it.
    Content {
        mentions: content.mentions.clone(),
        text: content.text.replacen(&author.name, &name, 1),
        html: html.map(|html| html.replacen(&html_name(&author.name), &html_name(&name), 1)),
        style: content.style,
        author: Some(Sender {
            id: author.id.clone(),
            name,
            avatar: author.avatar.clone(),
        }),
    }
}
