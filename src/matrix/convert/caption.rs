//! Captions: a text in one event with a file (client-server API, "Media captions"). For an edit the event is read back,
//! because the bridge does not keep the file's URL and keys.

use footbridge_core::{
    file::File,
    message::{Sender, Style},
    outlet::{Content, Outgoing, Step},
    text::{Block, Body, Inline},
};
use footbridge_store::{Copy, RemoteId};
use serde_json::Value;

use super::{
    CAPABILITIES,
    bundles::canonical_json,
    write::{content_from, contents, event_content, insert},
};

/// The fields of a content that describe its file.
const FILE_KEYS: [&str; 6] = [
    "msgtype",
    "filename",
    "info",
    "file",
    "url",
    "org.matrix.msc3245.voice",
];

/// A text with its author and style.
type AuthoredText<'a> = (&'a Body, &'a Sender, Style);

/// A file with its caption, if the message has one of each.
pub(super) fn sent(
    outgoing: &Outgoing,
    text: AuthoredText<'_>,
    thread: Option<&RemoteId>,
    reply_to: Option<&RemoteId>,
) -> Option<Step> {
    let [file] = outgoing.message.files.as_slice() else {
        return None;
    };
    let content = caption(outgoing, text)?;
    let named = named(outgoing, text, file)?;
    Some(Step::SendFile {
        file: file.clone(),
        content,
        thread: thread.cloned(),
        reply_to: reply_to.cloned(),
        fallback: Some(Box::new(Step::Post {
            content: named,
            thread: thread.cloned(),
            reply_to: reply_to.cloned(),
        })),
    })
}

/// The caption and a line that names this file; `None` where there is no caption, or it is too large.
pub(super) fn named(outgoing: &Outgoing, text: AuthoredText<'_>, file: &File) -> Option<Content> {
    caption(outgoing, text)?;
    let (body, sender, style) = text;
    let mut named = body.clone();
    let line = format!("📎 {}", file.in_words());
    named.0.push(Block::Paragraph(vec![Inline::Text(line)]));
    Some(content_from(&named, sender, style, outgoing.late))
}

/// A new caption below a file, or the file's name where there is no caption any more.
pub(super) fn caption_edit_step(
    copy: &Copy,
    file: &File,
    sender: &Sender,
    (caption, late): (Option<Content>, bool),
) -> Step {
    let fallback = caption.as_ref().map(|content| {
        Box::new(Step::Post {
            content: content.clone(),
            thread: copy.thread.clone(),
            reply_to: None,
        })
    });
    let name = Body::plain(&file.safe_name());
    Step::Edit {
        target: copy.remote.clone(),
        content: caption.unwrap_or_else(|| content_from(&name, sender, Style::Text, late)),
        is_caption: true,
        fallback,
    }
}

/// The text as a caption; `None` where there is none, or it is too large.
pub(super) fn caption(
    outgoing: &Outgoing,
    (body, sender, style): AuthoredText<'_>,
) -> Option<Content> {
    if body.is_empty() || style != Style::Text {
        return None;
    }
    let mut contents = contents(
        body,
        sender,
        style,
        outgoing.late,
        CAPABILITIES.limits.caption.max,
    );
    let content = contents.pop()?;
    contents.is_empty().then_some(content)
}

/// The part of a file event's content that is verified when it is read back: the file's fields, in canonical form.
#[must_use]
pub fn to_verify(content: &Value) -> Option<String> {
    content.get("file").or_else(|| content.get("url"))?;
    let carried = FILE_KEYS
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), content.get(*key)?.clone())));
    canonical_json(Value::Object(carried.collect()))
}

/// The event that replaces the caption of an event with this content; `None` where that has no file.
#[must_use]
pub fn edited_caption_event(old: &Value, content: &Content, target: &RemoteId) -> Option<Value> {
    let kind = old.get("msgtype")?.as_str()?;
    let source = old.get("file").or_else(|| old.get("url"));
    if !matches!(kind, "m.image" | "m.video" | "m.audio" | "m.file") || source.is_none() {
        return None;
    }
    let mut event = event_content(content, None, None, Some(target));
    for key in FILE_KEYS {
        if let Some(value) = old.get(key) {
            insert(&mut event, key, value.clone());
            insert(event.get_mut("m.new_content")?, key, value.clone());
        }
    }
    Some(event)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_caption_keeps_the_file_and_what_opens_it() {
        let bob = Sender {
            id: "u1".to_owned(),
            name: "Bob".to_owned(),
            avatar: None,
        };
        let content = content_from(&Body::plain("my cat"), &bob, Style::Text, false);
        let file = json!({"url": "mxc://x/y", "key": {"k": "…"}});
        let old = json!({"msgtype": "m.image", "body": "Bob: my dog", "filename": "cat.png", "file": file,
            "info": {"w": 3}, "m.relates_to": {"rel_type": "m.thread", "event_id": "$r"}});
        let event = edited_caption_event(&old, &content, &RemoteId::from("$1")).unwrap();
        for content in [&event, &event["m.new_content"]] {
            assert_eq!(
                (&content["msgtype"], &content["filename"]),
                (&old["msgtype"], &old["filename"])
            );
            assert_eq!((&content["file"], &content["info"]), (&file, &old["info"]));
            assert!(to_verify(content).is_some());
            assert_eq!(to_verify(content), to_verify(&old), "what the digest is of");
        }
        assert_eq!(event["m.new_content"]["body"], "Bob: my cat");
        assert_eq!(
            event["m.relates_to"],
            json!({"rel_type": "m.replace", "event_id": "$1"})
        );
        for (key, value) in [
            ("file", json!({"url": "mxc://eve/y", "key": {"k": "…"}})),
            ("filename", json!("invoice.exe")),
            ("info", json!({"w": 4})),
        ] {
            let mut forged = old.clone();
            forged[key] = value;
            assert_ne!(to_verify(&forged), to_verify(&old), "{key}");
        }
        for other in [
            json!({"msgtype": "m.text", "body": "x"}),
            json!({"msgtype": "m.image"}),
            json!({}),
        ] {
            assert_eq!(
                edited_caption_event(&other, &content, &RemoteId::from("$1")),
                None
            );
        }
    }
}
