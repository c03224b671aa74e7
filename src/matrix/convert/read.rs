//! Matrix events → neutral messages (client-server API, "Instant messaging", "Event relationships").

use footbridge_core::{
    file::File,
    message::{Action, Message, Sender, Style},
    reactions,
    text::{
        Block, Body, Inline,
        html::{Dialect, parsed},
    },
};
use footbridge_store::RemoteId;
use serde_json::Value;

use super::{
    Converted, Incoming, files,
    json::{id_at, text_at},
    summary,
};

/// Converts an event. The caller checks whether an edit or a redaction comes from the author, and whether the sender's
/// device is trusted.
#[must_use]
pub fn message_from_event(event: &Incoming) -> Converted {
    match action_from(event) {
        Ok(action) => Converted::Message(Message {
            sender: Sender {
                id: event.sender.clone(),
                name: event.sender_name.clone(),
                avatar: None,
            },
            sent_at: event.sent_at,
            files: files_of(event, &action),
            action,
        }),
        Err(rule) => Converted::Skip(rule),
    }
}

/// The files of a message, or of the new content of an edit.
fn files_of(event: &Incoming, action: &Action) -> Vec<File> {
    let content = match (action, event.event_type.as_str()) {
        (Action::Post { .. }, "m.sticker") => {
            return files::sticker_of(&event.content).into_iter().collect();
        }
        (Action::Post { .. }, _) => Some(&event.content),
        (Action::Edit { .. }, _) => event.content.get("m.new_content"),
        _ => None,
    };
    let Some(content) = content else {
        return Vec::new();
    };
    match files::gallery_of(content) {
        Some(gallery) => gallery.files,
        None => files::file_of(content).into_iter().collect(),
    }
}

fn action_from(event: &Incoming) -> Result<Action, &'static str> {
    let content = &event.content;
    match event.event_type.as_str() {
        "m.room.message" => message(content),
        "m.room.redaction" => event
            .redacts
            .clone()
            .map(|target| Action::Delete { target })
            .ok_or("redaction-without-target"),
        "m.room.encrypted" => Err("undecrypted"),
        "m.reaction" => reaction(content),
        "m.sticker" if files::sticker_of(content).is_some() => {
            Ok(posted(content, Body::default(), Style::Text))
        }
        other => match rule(other) {
            Some(rule) => Err(rule),
            None if content.as_object().is_none_or(serde_json::Map::is_empty) => Err("redacted"),
            None => Ok(Action::Unsupported {
                summary: summary::of_event(other, content),
            }),
        },
    }
}

/// A reaction. A custom image is replaced by its shortcode.
fn reaction(content: &Value) -> Result<Action, &'static str> {
    let target = id_at(content, "/m.relates_to/event_id").ok_or("reaction-without-target")?;
    let key = text_at(content, "/m.relates_to/key").ok_or("reaction-without-key")?;
    let named = ["/shortcode", "/com.beeper.reaction.shortcode"];
    let key = if key.starts_with("mxc://") {
        named.iter().find_map(|pointer| text_at(content, pointer))
    } else {
        Some(key)
    };
    let key = key.and_then(reactions::key);
    key.map(|key| Action::React { target, key })
        .ok_or("reaction-without-key")
}

/// Whether events of this type are state events.
#[must_use]
pub fn is_state(event_type: &str) -> bool {
    rule(event_type) == Some("state")
}

/// The rule by which events of this type are never relayed (P17).
fn rule(event_type: &str) -> Option<&'static str> {
    Some(match event_type {
        "m.room.member"
        | "m.room.name"
        | "m.room.topic"
        | "m.room.avatar"
        | "m.room.create"
        | "m.room.power_levels"
        | "m.room.join_rules"
        | "m.room.history_visibility"
        | "m.room.guest_access"
        | "m.room.canonical_alias"
        | "m.room.aliases"
        | "m.room.pinned_events"
        | "m.room.encryption"
        | "m.room.server_acl"
        | "m.room.tombstone"
        | "m.room.third_party_invite"
        | "m.room.retention"
        | "m.widget"
        | "m.bridge"
        | "im.vector.modular.widgets"
        | "uk.half-shot.bridge"
        | "m.beacon_info" => "state",
        "m.receipt" | "m.fully_read" => "receipts",
        "m.typing" => "typing",
        "m.presence" => "presence",
        "m.beacon" | "org.matrix.msc3672.beacon" => "live-location",
        "m.poll.response" | "org.matrix.msc3381.poll.response" => "poll-votes",
        "m.dummy" | "m.room_key" | "m.forwarded_room_key" | "m.room_key_request" => "keys",
        _ if event_type.starts_with("m.space.") || event_type.starts_with("m.policy.") => "state",
        _ if event_type.starts_with("m.key.verification.") => "verification",
        "m.call.invite"
        | "m.call.notify"
        | "m.rtc.notification"
        | "org.matrix.msc4075.rtc.notification"
        | "org.matrix.msc4075.call.notify" => return None,
        _ if event_type.starts_with("m.call.")
            || event_type.starts_with("org.matrix.msc3401.call.")
            || event_type.starts_with("m.rtc.") =>
        {
            "call-signalling"
        }
        _ => return None,
    })
}

fn message(content: &Value) -> Result<Action, &'static str> {
    if content.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err("redacted");
    }
    let relation = text_at(content, "/m.relates_to/rel_type");
    if relation == Some("m.replace") {
        let target = id_at(content, "/m.relates_to/event_id").ok_or("edit-without-target")?;
        let new = content.get("m.new_content").ok_or("edit-without-content")?;
        return edit(target, new);
    }
    let (style, kind) = spoken(content)?;
    let body = match kind {
        Kind::Text => body_from(content, is_answer(content)),
        Kind::Other if files::file_of(content).is_some() => caption(content),
        Kind::Unknown if has_words(content) => words(content, is_answer(content)),
        Kind::Other | Kind::Unknown => {
            return Ok(Action::Unsupported {
                summary: summary::of_message(content),
            });
        }
    };
    Ok(posted(content, body, style))
}

fn is_answer(content: &Value) -> bool {
    content
        .pointer("/m.relates_to/m.in_reply_to/event_id")
        .is_some()
}

/// The caption of a file: its body, where that is not its name (spec section "Media captions").
fn caption(content: &Value) -> Body {
    let (body, name) = (text_at(content, "/body"), text_at(content, "/filename"));
    if name.is_some() && body != name {
        body_from(content, is_answer(content))
    } else {
        Body::default()
    }
}

fn posted(content: &Value, body: Body, style: Style) -> Action {
    let answers = id_at(content, "/m.relates_to/m.in_reply_to/event_id");
    let relation = text_at(content, "/m.relates_to/rel_type");
    let thread = (relation == Some("m.thread"))
        .then(|| id_at(content, "/m.relates_to/event_id"))
        .flatten();
    // In a thread the reply is usually a fallback for clients without threads.
    let falls_back = content
        .pointer("/m.relates_to/is_falling_back")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    Action::Post {
        body,
        style,
        reply_to: answers.filter(|_| thread.is_none() || !falls_back),
        thread,
    }
}

fn edit(target: RemoteId, new: &Value) -> Result<Action, &'static str> {
    let (style, kind) = spoken(new)?;
    Ok(match kind {
        Kind::Text => Action::Edit {
            target,
            body: body_from(new, true),
            style,
        },
        // A caption was changed.
        Kind::Other if files::file_of(new).is_some() => Action::Edit {
            target,
            body: caption(new),
            style,
        },
        Kind::Unknown if has_words(new) => Action::Edit {
            target,
            body: words(new, true),
            style,
        },
        Kind::Other | Kind::Unknown => Action::Edit {
            target,
            body: Body::plain(&summary::of_message(new)),
            style: Style::Emote,
        },
    })
}

enum Kind {
    Text,
    /// A type of the specification that is no text.
    Other,
    /// A type unknown to the specification: its body is shown (spec section "`m.room.message` msgtypes").
    Unknown,
}

/// Whether a message of an unknown type contains text that can be shown.
fn has_words(content: &Value) -> bool {
    files::gallery_of(content).is_some_and(|gallery| !gallery.files.is_empty())
        || !words(content, false).is_empty()
}

/// The text of a message of an unknown type: its body, and the captions of a gallery.
fn words(content: &Value, may_quote: bool) -> Body {
    let mut body = body_from(content, may_quote);
    let Some(gallery) = files::gallery_of(content) else {
        return body;
    };
    for caption in &gallery.captions {
        body.0.extend(Body::plain(caption).0);
    }
    for file in &gallery.left {
        let line = Inline::Text(format!("📎 {}", file.in_words()));
        body.0.push(Block::Paragraph(vec![line]));
    }
    if gallery.more > 0 {
        let line = Inline::Text(format!("📎 and {} more", gallery.more));
        body.0.push(Block::Paragraph(vec![line]));
    }
    body
}

fn spoken(content: &Value) -> Result<(Style, Kind), &'static str> {
    match text_at(content, "/msgtype") {
        Some("m.text") => Ok((Style::Text, Kind::Text)),
        Some("m.emote") => Ok((Style::Emote, Kind::Text)),
        Some("m.notice") => Ok((Style::Notice, Kind::Text)),
        Some("m.server_notice") => Err("notice"),
        Some("m.key.verification.request") => Err("verification"),
        None | Some("m.image" | "m.video" | "m.audio" | "m.file" | "m.location") => {
            Ok((Style::Text, Kind::Other))
        }
        Some(_) => Ok((Style::Text, Kind::Unknown)),
    }
}

/// The text of a message: the HTML if there is any that can be parsed, otherwise the body.
fn body_from(content: &Value, may_quote: bool) -> Body {
    let plain = text_at(content, "/body").unwrap_or("");
    let html = (text_at(content, "/format") == Some("org.matrix.custom.html"))
        .then(|| text_at(content, "/formatted_body"))
        .flatten()
        .and_then(|html| parsed(html, Dialect::Matrix))
        .filter(|body| !body.is_empty());
    html.unwrap_or_else(|| {
        Body::plain(if may_quote {
            without_quote(plain)
        } else {
            plain
        })
    })
}

/// A plain body without the quote fallback that older clients put before a reply.
pub(super) fn without_quote(body: &str) -> &str {
    if !body.starts_with("> <@") && !body.starts_with("> * <@") {
        return body;
    }
    let mut rest = body;
    while rest.starts_with("> ") || rest == ">" || rest.starts_with(">\n") {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    let rest = rest.trim_start_matches('\n');
    if rest.is_empty() { body } else { rest }
}
