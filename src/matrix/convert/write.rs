//! Contents → `m.room.message`. Every event lists explicitly whom it mentions, usually nobody.

use footbridge_core::{message::Style, outlet::Content};
use footbridge_store::RemoteId;
use serde_json::{Value, json};

use super::{
    json::insert,
    profile::{PROFILE, profile},
};

/// The content of an `m.room.message` event.
#[must_use]
pub fn event_content(
    content: &Content,
    thread: Option<&RemoteId>,
    reply_to: Option<&RemoteId>,
    replaces: Option<&RemoteId>,
) -> Value {
    let Some(target) = replaces else {
        let mut event = text_content(content, "");
        relate(&mut event, thread, reply_to);
        return event;
    };
    let mut event = text_content(content, "* ");
    // Whoever an edit mentions was mentioned by the original message, or is not mentioned.
    insert(&mut event, "m.mentions", json!({}));
    insert(&mut event, "m.new_content", text_content(content, ""));
    let relation = json!({ "rel_type": "m.replace", "event_id": target.as_str() });
    insert(&mut event, "m.relates_to", relation);
    event
}

/// Puts an event into a thread, or makes it a reply.
pub fn relate(event: &mut Value, thread: Option<&RemoteId>, reply_to: Option<&RemoteId>) {
    let relation = match (thread, reply_to) {
        (Some(root), answered) => Some(json!({
            "rel_type": "m.thread",
            "event_id": root.as_str(),
            "is_falling_back": answered.is_none(),
            "m.in_reply_to": { "event_id": answered.unwrap_or(root).as_str() },
        })),
        (None, Some(answered)) => {
            Some(json!({ "m.in_reply_to": { "event_id": answered.as_str() } }))
        }
        (None, None) => None,
    };
    if let Some(relation) = relation {
        insert(event, "m.relates_to", relation);
    }
}

fn text_content(content: &Content, mark: &str) -> Value {
    let kind = match content.style {
        Style::Text => "m.text",
        Style::Emote => "m.emote",
        Style::Notice => "m.notice",
    };
    let mut event = json!({
        "msgtype": kind,
        "body": format!("{mark}{}", content.text),
        // C03: without this, clients look for names in the text.
        "m.mentions": {},
    });
    if !content.mentions.is_empty() {
        insert(
            &mut event,
            "m.mentions",
            json!({ "user_ids": content.mentions }),
        );
    }
    if let Some(html) = &content.html {
        insert(&mut event, "format", json!("org.matrix.custom.html"));
        insert(&mut event, "formatted_body", json!(format!("{mark}{html}")));
    }
    if let Some(author) = &content.author {
        insert(&mut event, PROFILE, profile(author, content));
    }
    event
}
