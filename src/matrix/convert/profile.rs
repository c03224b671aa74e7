//! Whose words an event of ours is, beside the text (MSC4144), and under which name.

use footbridge_core::{message::Sender, names, outlet::Content};
use serde_json::{Value, json};

use super::write::{html_name, insert};

/// Where an event says whose words it is.
pub(super) const PROFILE: &str = "com.beeper.per_message_profile";
/// The longest id of an author, in bytes.
const MAX_ID: usize = 255;
/// What stands before a name that clients may leave out, because they show it beside the text (MSC4144).
pub(super) const FALLBACK: &str = "<strong data-mx-profile-fallback>";

/// Whose words an event of ours is (MSC4144): an id that never changes, and the name as it is shown. Where the name also
/// stands in the text, clients are told so and may leave it out there.
pub(super) fn profile(author: &Sender, content: &Content) -> Value {
    let mut id = author.id.clone();
    while id.len() > MAX_ID {
        id.pop();
    }
    let mut profile = json!({ "id": id, "displayname": author.name });
    let html = content.html.as_deref().unwrap_or_default();
    if html.starts_with(FALLBACK) {
        insert(&mut profile, "has_fallback", json!(true));
    }
    profile
}

/// Puts what is known of an author's picture beside their name, in the new text of an edit, too.
pub fn put_avatar(event: &mut Value, picture: &Value) {
    let profile = event.get_mut(PROFILE).and_then(Value::as_object_mut);
    if let (Some(profile), Some(picture)) = (profile, picture.as_object()) {
        profile.extend(picture.clone());
    }
    if let Some(new) = event.get_mut("m.new_content") {
        put_avatar(new, picture);
    }
}

/// The same content under another name: its author's cannot be told from somebody else's.
#[must_use]
pub fn renamed(content: &Content, name: &str) -> Content {
    let Some(author) = &content.author else {
        return content.clone();
    };
    let name = names::bidi_isolate(name);
    let html = content.html.as_ref();
    // Nothing stands before the name that could hold it.
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
