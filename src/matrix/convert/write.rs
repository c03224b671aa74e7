//! Neutral messages → `m.room.message`. Every event lists explicitly whom it mentions, usually nobody.

use footbridge_core::{
    file::File,
    message::{Action, Sender, Style},
    names,
    outlet::{Content, Outgoing, Plan, Step},
    text::{Block, Body, html_from_body, split_body},
};
use footbridge_store::{Copy, RemoteId, SkipRule};
use serde_json::{Value, json};

use super::{
    CAPABILITIES, caption, edits,
    profile::{FALLBACK, PROFILE, profile},
};

/// The bytes of a content besides its text.
const FRAME_BYTES: usize = 1_500;

/// A message with its sender's name in front. `late` marks one that may come after later messages.
#[must_use]
pub fn content_from(body: &Body, sender: &Sender, style: Style, late: bool) -> Content {
    let name = names::bidi_isolate(&names::display_name(&sender.name, &sender.id));
    let late = if late { " (delayed)" } else { "" };
    let name = format!("{name}{late}");
    let name_html = html_name(&name);
    let (text, html) = match style {
        Style::Text | Style::Notice => (
            format!("{name}: "),
            format!("{FALLBACK}{name_html}: </strong>"),
        ),
        Style::Emote => (
            format!("* {name} "),
            format!("* <strong>{name_html}</strong> "),
        ),
    };
    // Blocks start below the name; a paragraph follows it on the same line.
    let starts_inline = matches!(body.0.first(), Some(Block::Paragraph(_)));
    let plain = body.to_plain();
    let gap = if starts_inline { "" } else { "\n" };
    Content {
        mentions: body.pinged(),
        author: Some(Sender {
            id: sender.id.clone(),
            name,
            avatar: sender.avatar.clone(),
        }),
        text: format!("{text}{gap}{plain}"),
        html: Some(format!("{html}{}", inline_html(body))),
        // An emote would read as an action of the bridge's account instead of its author.
        style: if style == Style::Notice {
            Style::Notice
        } else {
            Style::Text
        },
    }
}

/// A name as HTML.
pub(super) fn html_name(name: &str) -> String {
    let name = footbridge_core::text::Inline::Text(name.to_owned());
    html_from_body(&Body(vec![Block::Paragraph(vec![name])]))
}

/// The body's HTML for use after a name: the first paragraph gets no line of its own.
pub(super) fn inline_html(body: &Body) -> String {
    match body.0.split_first() {
        Some((first @ Block::Paragraph(_), rest)) if !rest.is_empty() => format!(
            "{}{}",
            html_from_body(&Body(vec![first.clone()])),
            if let [Block::Paragraph(_)] = rest {
                format!("<p>{}</p>", html_from_body(&Body(rest.to_vec())))
            } else {
                html_from_body(&Body(rest.to_vec()))
            }
        ),
        _ => html_from_body(body),
    }
}

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

pub(super) fn insert(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

/// The plan for a delivery to Matrix.
#[must_use]
pub fn plan(outgoing: &Outgoing) -> Plan {
    let message = &outgoing.message;
    let name = &Sender {
        id: message.sender.id.clone(),
        name: names::display_name(&message.sender.name, &message.sender.id),
        avatar: message.sender.avatar.clone(),
    };
    match &message.action {
        Action::Post {
            body,
            style,
            reply_to,
            thread,
        } => {
            let (thread, reply_to) =
                relations(&outgoing.copies, thread.is_some(), reply_to.is_some());
            if message.sender.is_bridge() {
                let content = bridge_text(body);
                return Plan::Steps(vec![Step::Post {
                    content,
                    thread,
                    reply_to,
                }]);
            }
            Plan::Steps(message_content(
                outgoing,
                (body, name, *style),
                thread.as_ref(),
                reply_to,
            ))
        }
        Action::Edit { body, .. } if message.sender.is_bridge() && !outgoing.copies.is_empty() => {
            Plan::Steps(edits::bridge_notice_steps(
                &outgoing.copies,
                bridge_text(body),
            ))
        }
        Action::Edit { body, style, .. } if !outgoing.copies.is_empty() => {
            Plan::Steps(edits::steps(outgoing, (body, name, *style)))
        }
        Action::Delete { .. } if !outgoing.copies.is_empty() => Plan::Steps(
            outgoing
                .copies
                .iter()
                .map(|copy| Step::Delete {
                    target: copy.remote.clone(),
                    by_edit: false,
                })
                .collect(),
        ),
        Action::Edit { .. } | Action::Delete { .. } => Plan::Skip(SkipRule::UnknownTarget),
        // Reactions are no messages (see `Outlet::plan_reactions`).
        Action::React { .. } | Action::Unreact { .. } => Plan::Skip(SkipRule::NoReactions),
        Action::Marker { target, key } => Plan::Steps(vec![Step::React {
            target: target.clone(),
            key: key.clone(),
            unencrypted: true,
            is_marker: true,
        }]),
        Action::Unsupported { summary } => {
            Plan::Steps(vec![posted(summary_content(summary, name, outgoing.late))])
        }
        Action::System { summary } => Plan::Steps(vec![posted(bridge_text(&Body::plain(summary)))]),
        Action::Bridge { text, about } => {
            let content = bridge_text(&Body::plain(text));
            Plan::Steps(vec![Step::Post {
                content,
                thread: about.as_ref().and_then(|about| about.thread.clone()),
                reply_to: about.as_ref().map(|about| about.message.clone()),
            }])
        }
    }
}

/// The steps of a new message: the text, followed by the files. The first of them is the reply.
pub(super) fn message_content(
    outgoing: &Outgoing,
    (body, sender, style): (&Body, &Sender, Style),
    thread: Option<&RemoteId>,
    reply_to: Option<RemoteId>,
) -> Vec<Step> {
    let text = (body, sender, style);
    if let Some(step) = caption::sent(outgoing, text, thread, reply_to.as_ref()) {
        return vec![step];
    }
    let (files, late) = (&outgoing.message.files, outgoing.late);
    let contents = if body.is_empty() && !files.is_empty() {
        Vec::new()
    } else {
        contents(body, sender, style, late, CAPABILITIES.limits.text.max)
    };
    let post = |content| Step::Post {
        content,
        thread: thread.cloned(),
        reply_to: None,
    };
    let files = files
        .iter()
        .map(|file| sent_file(file, sender, late, thread));
    let mut steps: Vec<Step> = contents.into_iter().map(post).chain(files).collect();
    match steps.first_mut() {
        Some(Step::Post { reply_to: to, .. }) => *to = reply_to,
        Some(Step::SendFile {
            reply_to: to,
            fallback,
            ..
        }) => {
            // So does the line that stands in for the file.
            if let Some(Step::Post { reply_to: to, .. }) = fallback.as_deref_mut() {
                to.clone_from(&reply_to);
            }
            *to = reply_to;
        }
        _ => {}
    }
    steps
}

/// A file without text. Where it cannot be sent, a line names it.
pub(super) fn sent_file(
    file: &File,
    sender: &Sender,
    late: bool,
    thread: Option<&RemoteId>,
) -> Step {
    let name = Body::plain(&file.safe_name());
    Step::SendFile {
        file: file.clone(),
        content: content_from(&name, sender, Style::Text, late),
        thread: thread.cloned(),
        reply_to: None,
        fallback: Some(Box::new(Step::Post {
            content: summary_content(&format!("sent {}", file.in_words()), sender, late),
            thread: thread.cloned(),
            reply_to: None,
        })),
    }
}

/// An action of the sender that cannot be shown as what it is.
pub(super) fn summary_content(summary: &str, sender: &Sender, late: bool) -> Content {
    let content = content_from(&Body::plain(summary), sender, Style::Emote, late);
    Content {
        mentions: Vec::new(),
        author: content.author,
        text: content.text.trim_start_matches("* ").to_owned(),
        html: content
            .html
            .map(|html| html.trim_start_matches("* ").to_owned()),
        style: Style::Notice,
    }
}

/// A text of the bridge itself.
pub(super) fn bridge_text(body: &Body) -> Content {
    Content {
        mentions: Vec::new(),
        author: None,
        text: body.to_plain(),
        html: None,
        style: Style::Notice,
    }
}

fn posted(content: Content) -> Step {
    Step::Post {
        content,
        thread: None,
        reply_to: None,
    }
}

/// The thread and the replied-to message on this side, from the copies of the message that the delivery refers to.
pub(super) fn relations(
    copies: &[Copy],
    in_thread: bool,
    is_reply: bool,
) -> (Option<RemoteId>, Option<RemoteId>) {
    let Some(first) = copies.first() else {
        return (None, None);
    };
    if in_thread {
        let root = first.thread.as_ref().unwrap_or(&first.remote);
        return (Some(root.clone()), None);
    }
    let answered = copies.last().filter(|_| is_reply);
    (
        answered.and_then(|copy| copy.thread.clone()),
        answered.map(|copy| copy.remote.clone()),
    )
}

/// A body as one content or, where it is too large, as several.
pub(super) fn contents(
    body: &Body,
    sender: &Sender,
    style: Style,
    late: bool,
    limit: usize,
) -> Vec<Content> {
    let frame = FRAME_BYTES + 12 * sender.name.len();
    let size = |block: &Block| {
        let alone = Body(vec![block.clone()]);
        json_bytes(&alone.to_plain()) + json_bytes(&html_from_body(&alone)) + 16
    };
    split_body(body, limit.saturating_sub(frame), &size)
        .iter()
        .map(|part| content_from(part, sender, style, late))
        .collect()
}

/// The length of a string in JSON.
pub(super) fn json_bytes(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum::<usize>()
        + 2
}
