//! Several messages in one event, and what becomes of each of them later. The event says all of it readably, for
//! people, and once more in parts, for us: nobody else remembers a text after it was delivered.

use footbridge_core::{
    message::{Action, Message, Sender, Style},
    names,
    outlet::{Content, Outgoing, Part, Plan, Step},
    text::{Block, Body, html_from_body},
};
use footbridge_store::{Copy, RemoteId};
use matrix_sdk::ruma::CanonicalJsonValue;
use serde_json::Value;

use super::{
    edits::{bridge_notice_steps, steps},
    write::{bridge_text, content_from, html_name, json_bytes, relations, said},
};

/// Who says a part that the bridge itself says.
const BRIDGE_NAME: &str = "Footbridge";
/// Where an event carries its parts.
pub const PARTS: &str = "org.footbridge.parts";
/// The most messages in one event: more cannot be read at a glance.
const MAX_PARTS: usize = 25;
/// The most that the parts may weigh together, in bytes of JSON, the readable form included.
const MAX_PARTS_BYTES: usize = 16_000;
/// The most that a message may weigh that goes together with others.
const MAX_PART_BYTES: usize = 4_000;
/// What a rewritten event may weigh; it says everything twice once more (C12).
const MAX_REVISED_BYTES: usize = 22_500;

/// One event for the first of these messages, and for how many; `None` where the first goes by itself. Only plain
/// short texts of one paragraph go together, and no answers: an event answers one message.
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
    // An event with several authors calls nobody.
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
        // Among what others say, it has to be told apart.
        return BRIDGE_NAME.to_owned();
    }
    names::bidi_isolate(&names::display_name(
        &message.sender.name,
        &message.sender.id,
    ))
}

/// What a part adds to an event: it stands in it readably and for itself, and its author may.
fn part_bytes(part: &Part) -> usize {
    2 * (json_bytes(&part.body) + json_bytes(&part.html)) + 8 * part.author.len() + 80
}

/// The readable form: each author once for what they say in a row. A line of a text never looks like a line that
/// names an author: in plain text it is set in, and in HTML it stays within its author's paragraph.
#[must_use]
pub fn content_of(parts: &[Part]) -> Content {
    let (mut lines, mut html) = (Vec::new(), String::new());
    let mut speaking: Option<&str> = None;
    let mut running = false;
    for part in parts.iter().filter(|part| !part.gone) {
        let goes_on = speaking == Some(part.author.as_str());
        let mut texts = part.body.lines();
        if !goes_on {
            lines.push(format!(
                "{}: {}",
                part.author,
                texts.next().unwrap_or_default()
            ));
        }
        lines.extend(texts.map(|text| format!("  {text}")));
        if !goes_on {
            close(&mut running, &mut html);
            html.push_str("<p><strong>");
            html.push_str(&html_name(&part.author));
            html.push_str("</strong>: ");
        } else if running && !part.block {
            html.push_str("<br>");
        } else if !running && !part.block {
            html.push_str("<p>");
        }
        running = !part.block;
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
        speaking = Some(&part.author);
    }
    close(&mut running, &mut html);
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

/// The content of an event with these parts; with `replaces`, as the new text of that event.
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

/// The parts that an event with this content carries.
#[must_use]
pub fn parts_in(content: &Value) -> Option<Vec<Part>> {
    serde_json::from_value(content.get(PARTS)?.clone()).ok()
}

/// What counts of such a content when it is read back: its parts, always in the same form.
#[must_use]
pub fn to_verify(content: &Value) -> Option<String> {
    canonical_json(content.get(PARTS)?.clone())
}

/// A value in the one form of canonical JSON.
#[must_use]
pub fn canonical_json(value: Value) -> Option<String> {
    let canonical = CanonicalJsonValue::try_from(value).ok()?;
    serde_json::to_string(&canonical).ok()
}

/// What an event of ours says now.
pub enum LatestContent {
    /// This.
    Content(Value),
    /// Nothing any more.
    Redacted,
    /// It is not ours, or its newest form is missing.
    UndecryptableTexts,
}

/// The newest form of an event of ours.
#[must_use]
pub fn newest(event: &Value, own: &str) -> LatestContent {
    let ours = |event: &Value| event.get("sender").and_then(Value::as_str) == Some(own);
    if !ours(event) {
        return LatestContent::UndecryptableTexts;
    }
    if event.pointer("/unsigned/redacted_because").is_some() {
        return LatestContent::Redacted;
    }
    let content = match event.pointer("/unsigned/m.relations/m.replace") {
        // Without its newest form an older one must not be taken for it.
        Some(newer) if ours(newer) => newer.pointer("/content/m.new_content"),
        Some(_) => None,
        None => event.get("content"),
    };
    content.map_or(LatestContent::UndecryptableTexts, |content| {
        LatestContent::Content(content.clone())
    })
}

/// What becomes of an event's parts.
#[derive(Debug, PartialEq, Eq)]
pub enum RevisedParts {
    /// It says this now.
    Event(Value),
    /// Nothing of it is left.
    Nothing,
    /// It has no such part, or would grow too large.
    Impossible,
}

/// Puts a part in the place of an earlier one, or takes it out.
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

/// What an edit or a deletion of one part takes.
#[must_use]
pub fn revise(outgoing: &Outgoing, slot: u32) -> Plan {
    let message = &outgoing.message;
    let Some(copy) = outgoing.copies.first() else {
        return Plan::Skip("unknown-target".to_owned());
    };
    // What once had to be said anew stands behind the message that is shared.
    let anew = outgoing.copies.get(1..).unwrap_or_default();
    if let Action::Edit { body, style, .. } = &message.action {
        if message.sender.is_bridge() && !anew.is_empty() {
            return Plan::Steps(bridge_notice_steps(anew, bridge_text(body)));
        }
        let name = &marked(&message.sender);
        let has_files = |copy: &Copy| copy.file.as_ref().is_some_and(|file| !file.is_empty());
        if !anew.is_empty() && (!message.files.is_empty() || anew.iter().any(has_files)) {
            let behind = Outgoing {
                copies: anew.to_vec(),
                ..outgoing.clone()
            };
            return Plan::Steps(steps(&behind, (body, name, *style)));
        }
        if let Some(last) = anew.last() {
            return Plan::Steps(vec![Step::Edit {
                target: last.remote.clone(),
                content: edited(body, &message.sender, *style),
                is_caption: false,
                fallback: None,
            }]);
        }
        if !message.files.is_empty() {
            // An event of several messages has no files: the message is said anew, and its part goes.
            let words = (body, name, *style);
            let mut anew = said(outgoing, words, copy.thread.as_ref(), None);
            anew.push(Step::EditPart {
                target: copy.remote.clone(),
                slot,
                part: None,
                fallback: None,
            });
            return Plan::Steps(anew);
        }
    }
    let (part, fallback) = match &message.action {
        Action::Edit { body, style, .. } => {
            let anew = Step::Post {
                content: edited(body, &message.sender, *style),
                thread: copy.thread.clone(),
                reply_to: Some(copy.remote.clone()),
            };
            (Some(part_of(message, body)), Some(Box::new(anew)))
        }
        Action::Delete { .. } => (None, None),
        _ => return Plan::Skip("unknown-target".to_owned()),
    };
    let revise = Step::EditPart {
        target: copy.remote.clone(),
        slot,
        part,
        fallback,
    };
    let removals = anew.iter().map(|copy| Step::Delete {
        target: copy.remote.clone(),
        by_edit: false,
    });
    Plan::Steps(std::iter::once(revise).chain(removals).collect())
}

/// A new text as a message of its own, where the old one cannot be changed.
fn edited(body: &Body, sender: &Sender, style: Style) -> Content {
    if sender.is_bridge() {
        return bridge_text(body);
    }
    let spoken = if style == Style::Emote {
        Style::Text
    } else {
        style
    };
    content_from(body, &marked(sender), spoken, false)
}

/// The author of a message that is said anew.
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
