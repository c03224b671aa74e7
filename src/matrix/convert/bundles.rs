//! Bundles: several messages in one event, and later edits of each. The event contains all texts in a readable form,
//! and once more as parts for the bridge, because the bridge keeps no text after its delivery.

use footbridge_core::{
    message::Style,
    outlet::{Content, Part},
    render::html_name,
};
use footbridge_store::RemoteId;
use matrix_sdk::ruma::CanonicalJsonValue;
use serde_json::Value;

/// The key under which an event carries its parts.
pub const PARTS: &str = "org.footbridge.parts";
/// The most bytes of JSON of a rewritten event, which contains everything twice more (C12).
const MAX_REVISED_BYTES: usize = 22_500;

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
    let grows = part.is_some() && parts.iter().map(Part::weight).sum::<usize>() > MAX_REVISED_BYTES;
    match event_of(&parts, None, Some(target)) {
        Some(event) if !grows => RevisedParts::Event(event),
        _ => RevisedParts::Impossible,
    }
}

#[cfg(test)]
#[path = "bundles_tests.rs"]
mod tests;
