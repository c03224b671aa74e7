//! Bundles: several messages in one event, and later edits of each. The event contains all texts in a readable form,
//! and once more as parts for the bridge, because the bridge keeps no text after its delivery.

use footbridge_core::{
    message::{Action, Message, Sender, Style},
    names,
    outlet::{Content, Outgoing, Part, Plan, Step},
    text::{Block, Body, html_from_body},
};
use footbridge_store::{Copy, RemoteId, SkipRule};
use matrix_sdk::ruma::CanonicalJsonValue;
use serde_json::Value;

use super::{
    edits::{bridge_notice_steps, steps},
    write::{bridge_text, content_from, html_name, json_bytes, message_content, relations},
};

/// The author of a part that the bridge itself wrote.
const BRIDGE_NAME: &str = "Footbridge";
/// The key under which an event carries its parts.
pub const PARTS: &str = "org.footbridge.parts";
/// The most messages in one event: more cannot be read at a glance.
const MAX_PARTS: usize = 25;
/// The most bytes of JSON of all parts together, including the readable form.
const MAX_PARTS_BYTES: usize = 16_000;
/// The most bytes of JSON of one bundled message.
const MAX_PART_BYTES: usize = 4_000;
/// The most bytes of JSON of a rewritten event, which contains everything twice more (C12).
const MAX_REVISED_BYTES: usize = 22_500;

/// One event for the first of these messages, and the number of messages in it; `None` where the first is sent alone.
/// Only short plain texts of one paragraph are bundled, and no replies: an event replies to one message.
#[must_use]
pub fn bundle(messages: &[Outgoing]) -> Option<(Step, usize)> {
    let mut weight = 0;
    let parts: Vec<Part> = messages
        .iter()
        .take(MAX_PARTS)
        .map_while(|outgoing| {
            let part = joinable(outgoing)?;
            weight += part_bytes(&part);
            (weight <= MAX_PARTS_BYTES).then_some(part)
        })
        .collect();
    let (first, count) = (messages.first()?, parts.len());
    if count < 2 {
        return None;
    }
    let in_thread = matches!(
        first.message.action,
        Action::Post {
            thread: Some(_),
            ..
        }
    );
    let (thread, _) = relations(&first.copies, in_thread, false);
    Some((Step::Bundle { parts, thread }, count))
}

fn joinable(outgoing: &Outgoing) -> Option<Part> {
    let Action::Post {
        body,
        style: Style::Text,
        reply_to: None,
        ..
    } = &outgoing.message.action
    else {
        return None;
    };
    let part = part_of(&outgoing.message, body);
    // An event with several authors mentions nobody.
    let calls = !body.pinged().is_empty();
    let fits = !calls
        && outgoing.message.files.is_empty()
        && !outgoing.late
        && !part.block
        && part_bytes(&part) <= MAX_PART_BYTES;
    fits.then_some(part)
}

fn part_of(message: &Message, body: &Body) -> Part {
    Part {
        author: author(message),
        body: body.to_plain(),
        html: html_from_body(body),
        block: !matches!(body.0.as_slice(), [Block::Paragraph(_)]),
        gone: false,
    }
}

fn author(message: &Message) -> String {
    if message.sender.is_bridge() {
        // Among other authors' parts, the bridge's own needs a name.
        return BRIDGE_NAME.to_owned();
    }
    names::bidi_isolate(&names::display_name(
        &message.sender.name,
        &message.sender.id,
    ))
}

/// The bytes that a part adds to an event: it is in the readable form and in the parts, and its author may be in both.
fn part_bytes(part: &Part) -> usize {
    2 * (json_bytes(&part.body) + json_bytes(&part.html)) + 8 * part.author.len() + 80
}

/// The readable form: each author is named once for consecutive parts. A line of a text never looks like a line that
/// names an author: in plain text it is indented, and in HTML it stays within its author's paragraph.
#[must_use]
pub fn content_of(parts: &[Part]) -> Content {
    let (mut lines, mut html) = (Vec::new(), String::new());
    let mut current_author: Option<&str> = None;
    let mut in_paragraph = false;
    for part in parts.iter().filter(|part| !part.gone) {
        let same_author = current_author == Some(part.author.as_str());
        let mut texts = part.body.lines();
        if !same_author {
            lines.push(format!(
                "{}: {}",
                part.author,
                texts.next().unwrap_or_default()
            ));
        }
        lines.extend(texts.map(|text| format!("  {text}")));
        if !same_author {
            close(&mut in_paragraph, &mut html);
            html.push_str("<p><strong>");
            html.push_str(&html_name(&part.author));
            html.push_str("</strong>: ");
        } else if in_paragraph && !part.block {
            html.push_str("<br>");
        } else if !in_paragraph && !part.block {
            html.push_str("<p>");
        }
        in_paragraph = !part.block;
        if part.block {
            if !html.ends_with("</p>") && !html.ends_with("</blockquote>") {
                html.push_str("</p>");
            }
            html.push_str("<blockquote>");
            html.push_str(&part.html);
            html.push_str("</blockquote>");
        } else {
            html.push_str(&part.html);
        }
        current_author = Some(&part.author);
    }
    close(&mut in_paragraph, &mut html);
    Content {
        mentions: Vec::new(),
        author: None,
        text: lines.join("\n"),
        html: Some(html),
        style: Style::Text,
    }
}

fn close(running: &mut bool, html: &mut String) {
    if std::mem::take(running) {
        html.push_str("</p>");
    }
}

/// The content of an event with these parts; with `replaces`, as the new content of that event.
#[must_use]
pub fn event_of(
    parts: &[Part],
    thread: Option<&RemoteId>,
    replaces: Option<&RemoteId>,
) -> Option<Value> {
    let mut event = super::event_content(&content_of(parts), thread, None, replaces);
    let parts = serde_json::to_value(parts).ok()?;
    let carrier = match replaces {
        Some(_) => event.get_mut("m.new_content")?,
        None => &mut event,
    };
    carrier.as_object_mut()?.insert(PARTS.to_owned(), parts);
    Some(event)
}

/// The parts of an event with this content.
#[must_use]
pub fn parts_in(content: &Value) -> Option<Vec<Part>> {
    serde_json::from_value(content.get(PARTS)?.clone()).ok()
}

/// The part of such a content that is verified when it is read back: its parts, in canonical form.
#[must_use]
pub fn to_verify(content: &Value) -> Option<String> {
    canonical_json(content.get(PARTS)?.clone())
}

/// A value as canonical JSON.
#[must_use]
pub fn canonical_json(value: Value) -> Option<String> {
    let canonical = CanonicalJsonValue::try_from(value).ok()?;
    serde_json::to_string(&canonical).ok()
}

/// The latest content of an event of the bridge.
pub enum LatestContent {
    /// The content.
    Content(Value),
    /// The event was redacted.
    Redacted,
    /// The event is not the bridge's, or its latest edit is missing.
    Unreadable,
}

/// The latest content of an event of the bridge.
#[must_use]
pub fn newest(event: &Value, own: &str) -> LatestContent {
    let is_own = |event: &Value| event.get("sender").and_then(Value::as_str) == Some(own);
    if !is_own(event) {
        return LatestContent::Unreadable;
    }
    if event.pointer("/unsigned/redacted_because").is_some() {
        return LatestContent::Redacted;
    }
    let content = match event.pointer("/unsigned/m.relations/m.replace") {
        // If the latest edit is missing, an older content must not be taken for it.
        Some(newer) if is_own(newer) => newer.pointer("/content/m.new_content"),
        Some(_) => None,
        None => event.get("content"),
    };
    content.map_or(LatestContent::Unreadable, |content| {
        LatestContent::Content(content.clone())
    })
}

/// The result of changing the parts of an event.
#[derive(Debug, PartialEq, Eq)]
pub enum RevisedParts {
    /// The event has this content now.
    Event(Value),
    /// No part is left.
    Nothing,
    /// The event has no such part, or would become too large.
    Impossible,
}

/// Replaces or removes a part.
#[must_use]
pub fn revised(
    mut parts: Vec<Part>,
    slot: u32,
    part: Option<&Part>,
    target: &RemoteId,
) -> RevisedParts {
    let Some(old) = usize::try_from(slot)
        .ok()
        .and_then(|slot| parts.get_mut(slot))
    else {
        return RevisedParts::Impossible;
    };
    *old = part.cloned().unwrap_or(Part {
        gone: true,
        ..Part::default()
    });
    if parts.iter().all(|part| part.gone) {
        return RevisedParts::Nothing;
    }
    let grows = part.is_some() && parts.iter().map(part_bytes).sum::<usize>() > MAX_REVISED_BYTES;
    match event_of(&parts, None, Some(target)) {
        Some(event) if !grows => RevisedParts::Event(event),
        _ => RevisedParts::Impossible,
    }
}

/// The plan for an edit or a deletion of one part.
#[must_use]
pub fn revise(outgoing: &Outgoing, slot: u32) -> Plan {
    let message = &outgoing.message;
    let Some(copy) = outgoing.copies.first() else {
        return Plan::Skip(SkipRule::UnknownTarget);
    };
    // Copies after the first are messages that had to be sent separately.
    let separate = outgoing.copies.get(1..).unwrap_or_default();
    if let Action::Edit { body, style, .. } = &message.action {
        if message.sender.is_bridge() && !separate.is_empty() {
            return Plan::Steps(bridge_notice_steps(separate, bridge_text(body)));
        }
        let name = &marked(&message.sender);
        let has_files = |copy: &Copy| copy.file.as_ref().is_some_and(|file| !file.is_empty());
        if !separate.is_empty() && (!message.files.is_empty() || separate.iter().any(has_files)) {
            let rest = Outgoing {
                copies: separate.to_vec(),
                ..outgoing.clone()
            };
            return Plan::Steps(steps(&rest, (body, name, *style)));
        }
        if let Some(last) = separate.last() {
            return Plan::Steps(vec![Step::Edit {
                target: last.remote.clone(),
                content: edited(body, &message.sender, *style),
                is_caption: false,
                fallback: None,
            }]);
        }
        if !message.files.is_empty() {
            // An event of several messages has no files: the message is sent separately, and its part is removed.
            let text = (body, name, *style);
            let mut separate = message_content(outgoing, text, copy.thread.as_ref(), None);
            separate.push(Step::EditPart {
                target: copy.remote.clone(),
                slot,
                part: None,
                fallback: None,
            });
            return Plan::Steps(separate);
        }
    }
    let (part, fallback) = match &message.action {
        Action::Edit { body, style, .. } => {
            let separate = Step::Post {
                content: edited(body, &message.sender, *style),
                thread: copy.thread.clone(),
                reply_to: Some(copy.remote.clone()),
            };
            (Some(part_of(message, body)), Some(Box::new(separate)))
        }
        Action::Delete { .. } => (None, None),
        _ => return Plan::Skip(SkipRule::UnknownTarget),
    };
    let revise = Step::EditPart {
        target: copy.remote.clone(),
        slot,
        part,
        fallback,
    };
    let removals = separate.iter().map(|copy| Step::Delete {
        target: copy.remote.clone(),
        by_edit: false,
    });
    Plan::Steps(std::iter::once(revise).chain(removals).collect())
}

/// An edited text as a message of its own, where the bundle cannot be changed.
fn edited(body: &Body, sender: &Sender, style: Style) -> Content {
    if sender.is_bridge() {
        return bridge_text(body);
    }
    let style = if style == Style::Emote {
        Style::Text
    } else {
        style
    };
    content_from(body, &marked(sender), style, false)
}

/// The author of an edited message that is sent separately.
fn marked(sender: &Sender) -> Sender {
    let name = names::display_name(&sender.name, &sender.id);
    Sender {
        id: sender.id.clone(),
        name: format!("{name} (edited)"),
        avatar: None,
    }
}

#[cfg(test)]
#[path = "bundles_tests.rs"]
mod tests;
