//! Summaries of messages that cannot be relayed in full, in one readable line: `sent an image: cat.png (2.1 MB)`.

use footbridge_core::names;
use serde_json::Value;

use super::files;

/// The summary of a message that is no text.
pub(super) fn of_message(content: &Value) -> String {
    let text = |key: &str| content.get(key).and_then(Value::as_str).unwrap_or("");
    if let Some(file) = files::described(content) {
        let mut line = format!("sent {}", file.in_words());
        let caption = text("body");
        if !text("filename").is_empty() && caption != text("filename") {
            line.push_str(" — ");
            line.push_str(&one_line(caption));
        }
        return line;
    }
    match text("msgtype") {
        "m.location" => {
            let place = text("geo_uri").strip_prefix("geo:").unwrap_or("");
            with(
                "shared a location",
                &[text("body"), place]
                    .iter()
                    .filter(|part| !part.is_empty())
                    .map(|part| one_line(part))
                    .collect::<Vec<_>>()
                    .join(", "),
            )
        }
        "" => with("sent a message without a type", text("body")),
        other => with("sent something that cannot be shown here", other),
    }
}

/// The summary of an event that is no message.
pub(super) fn of_event(event_type: &str, content: &Value) -> String {
    let text = |pointer: &str| {
        content
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("")
    };
    match event_type {
        "m.sticker" => with("sent a sticker", text("/body")),
        "m.poll.start" | "org.matrix.msc3381.poll.start" => poll(content),
        "m.poll.end" | "org.matrix.msc3381.poll.end" => {
            with("closed a poll", &text_field(content).unwrap_or_default())
        }
        "m.call.invite"
        | "m.call.notify"
        | "m.rtc.notification"
        | "org.matrix.msc4075.rtc.notification"
        | "org.matrix.msc4075.call.notify" => "started a call".to_owned(),
        other => with("sent something that cannot be shown here", other),
    }
}

fn poll(content: &Value) -> String {
    let start = content
        .get("m.poll")
        .or_else(|| content.get("org.matrix.msc3381.poll.start"));
    let question = start
        .and_then(|start| start.get("question"))
        .and_then(text_field)
        .unwrap_or_default();
    let answers: Vec<String> = start
        .and_then(|start| start.get("answers"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .take(20)
        .filter_map(text_field)
        .collect();
    let line = with("started a poll", &question);
    if answers.is_empty() {
        line
    } else {
        format!("{line} ({})", answers.join(" / "))
    }
}

/// The text of an extensible event, or of a part of one (MSC1767).
fn text_field(value: &Value) -> Option<String> {
    let text = value.get("m.text").map_or_else(
        || {
            value
                .get("org.matrix.msc1767.text")
                .or_else(|| value.get("body"))
        },
        |text| text.pointer("/0/body").or(Some(text)),
    );
    text?.as_str().map(one_line)
}

fn with(what: &str, detail: &str) -> String {
    if detail.trim().is_empty() {
        what.to_owned()
    } else {
        format!("{what}: {}", one_line(detail))
    }
}

/// Untrusted text on one line, harmless and short.
fn one_line(text: &str) -> String {
    names::display_name(text, "…")
}
