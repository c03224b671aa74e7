//! Captions: a text in one event with a file (client-server API, "Media captions"). For an edit the event is read back,
//! because the bridge does not keep the file's URL and keys.

use footbridge_core::outlet::Content;
use footbridge_store::RemoteId;
use serde_json::Value;

use super::{bundles::canonical_json, json::insert, write::event_content};

/// The fields of a content that describe its file.
const FILE_KEYS: [&str; 6] = [
    "msgtype",
    "filename",
    "info",
    "file",
    "url",
    "org.matrix.msc3245.voice",
];

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
    use footbridge_core::{
        message::{Sender, Style},
        text::Body,
    };
    use serde_json::json;

    use super::*;
    use crate::convert::said_by;

    #[test]
    fn a_new_caption_keeps_the_file_and_what_opens_it() {
        let bob = Sender {
            id: "u1".to_owned(),
            name: "Bob".to_owned(),
            avatar: None,
        };
        let content = said_by(&bob, &Body::plain("my cat"), Style::Text);
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
