//! Pure: what happened in a Mattermost channel → facts for the journal.

use footbridge_store::{Arrival, Millis, Payload, Place, RemoteId};

use super::api::{Attachment, File, Post};
use crate::{
    message::{Action, Command, Message, Sender, Style},
    names,
    silo::markdown::body_from_markdown,
    text::{Block, Body, Inline},
};

/// Shown where Mattermost does not say who.
pub const NOBODY: &str = "Someone on Mattermost";
/// Stands before what is attached.
const ATTACHED: &str = "📎 ";

/// A new post by somebody of this name.
pub fn post(place: &Place, post: &Post, name: &str) -> Arrival {
    let payload = if let Some(words) = Command::words_of(&post.message) {
        asked(post, name, words)
    } else {
        match action_of(post) {
            Some(action) => written(&Message {
                sender: sender(post, name),
                sent_at: post.sent_at(),
                action,
            }),
            None => Payload::Skipped("empty"),
        }
    };
    Arrival {
        place: place.clone(),
        fact: post.remote(),
        message: Some(post.remote()),
        thread: post.thread(),
        sent_at: post.sent_at(),
        payload,
    }
}

fn action_of(post: &Post) -> Option<Action> {
    if post.kind.starts_with("system_") {
        let summary = one_line(&body_from_markdown(&post.message).to_plain());
        return (!summary.is_empty()).then_some(Action::System { summary });
    }
    let (body, style) = content(post);
    if !body.is_empty() {
        return Some(Action::Post {
            body,
            style,
            reply_to: None,
            thread: post.thread(),
        });
    }
    let files: Vec<String> = post.metadata.files.iter().map(in_words).collect();
    (!files.is_empty()).then(|| Action::Unsupported {
        summary: format!("sent {}", files.join(", ")),
    })
}

/// A new text for a post.
pub fn edit(place: &Place, post: &Post, name: &str) -> Arrival {
    let (body, style) = content(post);
    let change = Message {
        sender: sender(post, name),
        sent_at: Millis(post.edit_at),
        action: Action::Edit {
            target: post.remote(),
            body,
            style,
        },
    };
    happened(place, edit_fact(post), change.sent_at, written(&change))
}

/// The edit whose text a post already had when we first saw it: written down, so that it is no news later.
pub fn edit_included(place: &Place, post: &Post) -> Arrival {
    let payload = Payload::Skipped("edit-included");
    happened(place, edit_fact(post), Millis(post.edit_at), payload)
}

/// A post was deleted, nobody says by whom.
pub fn deletion(place: &Place, post: &Post) -> Arrival {
    let seen_at = Millis(post.delete_at.max(post.update_at));
    let change = Message {
        sender: Sender {
            id: String::new(),
            name: NOBODY.to_owned(),
        },
        sent_at: seen_at,
        action: Action::Delete {
            target: post.remote(),
        },
    };
    happened(
        place,
        format!("{}/delete", post.id),
        seen_at,
        written(&change),
    )
}

fn happened(place: &Place, fact: String, sent_at: Millis, payload: Payload) -> Arrival {
    Arrival {
        place: place.clone(),
        fact: RemoteId(fact),
        message: None,
        thread: None,
        sent_at,
        payload,
    }
}

fn edit_fact(post: &Post) -> String {
    format!("{}/edit/{}", post.id, post.edit_at)
}

fn written(message: &Message) -> Payload {
    message
        .to_bytes()
        .map_or(Payload::Skipped("unwritable"), Payload::Ready)
}

/// Something asked of the bridge itself: about the message whose thread it stands in.
fn asked(post: &Post, name: &str, words: &str) -> Payload {
    let command = Command {
        sender: sender(post, name),
        words: words.to_owned(),
        target: post.thread(),
        thread: post.thread(),
        // Who may remove messages is not asked for every command.
        moderator: false,
        silent: false,
        encrypted: false,
    };
    command
        .to_bytes()
        .map_or(Payload::Skipped("unwritable"), Payload::Command)
}

/// One account may speak for many: each name of its own is somebody of its own.
fn sender(post: &Post, name: &str) -> Sender {
    let shown = post.props.override_username.as_deref();
    match shown.map(str::trim).filter(|shown| !shown.is_empty()) {
        Some(shown) => Sender {
            id: format!("{}/{shown}", post.user_id),
            name: shown.to_owned(),
        },
        None => Sender {
            id: post.user_id.clone(),
            name: name.to_owned(),
        },
    }
}

fn content(post: &Post) -> (Body, Style) {
    let is_action = post.kind == "me";
    let text = match &post.props.message {
        Some(text) if is_action => text.as_str(),
        _ if is_action => post.message.trim().trim_matches('*'),
        _ => post.message.as_str(),
    };
    let mut body = body_from_markdown(text);
    for attachment in &post.props.attachments {
        body.0.extend(attached(attachment));
    }
    if !body.is_empty() {
        let files = post.metadata.files.iter();
        body.0.extend(
            files.map(|file| line(format!("{ATTACHED}{} (not carried over)", in_words(file)))),
        );
    }
    let style = if is_action { Style::Emote } else { Style::Text };
    (body, style)
}

/// What an integration attached, as text.
fn attached(attachment: &Attachment) -> Vec<Block> {
    let mut blocks = body_from_markdown(&attachment.pretext).0;
    let title = attachment.title.trim();
    if !title.is_empty() {
        let label = vec![Inline::Bold(vec![Inline::Text(title.to_owned())])];
        let href = attachment.title_link.trim();
        let leads = url::Url::parse(href).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        blocks.push(Block::Paragraph(if leads {
            let href = href.to_owned();
            vec![Inline::Link { href, label }]
        } else {
            label
        }));
    }
    blocks.extend(body_from_markdown(&attachment.text).0);
    for field in &attachment.fields {
        let value = match &field.value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let title = Inline::Bold(vec![Inline::Text(field.title.trim().to_owned())]);
        let value = one_line(&body_from_markdown(&value).to_plain());
        blocks.push(Block::Paragraph(vec![
            title,
            Inline::Text(format!(": {value}")),
        ]));
    }
    if blocks.is_empty() {
        blocks = Body::plain(&attachment.fallback).0;
    }
    blocks
}

fn line(text: String) -> Block {
    Block::Paragraph(vec![Inline::Text(text)])
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A file in words.
fn in_words(file: &File) -> String {
    let what = match file.mime_type.split('/').next() {
        Some("image") => "an image",
        Some("video") => "a video",
        Some("audio") => "an audio file",
        _ => "a file",
    };
    format!(
        "{what}: {} ({})",
        names::shown(&file.name, "unnamed"),
        size(file.size)
    )
}

fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 2] = [(1_000_000, "MB"), (1_000, "kB")];
    let unit = UNITS.iter().find(|(least, _)| bytes >= *least);
    match unit {
        Some((least, name)) => format!("{} {name}", bytes.div_ceil(*least)),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::text::html_from_body;

    fn read(value: Value) -> Post {
        serde_json::from_value(value).unwrap()
    }

    fn spoken(value: Value) -> Message {
        match post(&Place::new("mm", "c"), &read(value), "Bob").payload {
            Payload::Ready(bytes) => Message::from_bytes(&bytes).unwrap(),
            _ => panic!("somebody said something"),
        }
    }

    fn html(value: Value) -> (String, Style) {
        match spoken(value).action {
            Action::Post { body, style, .. } => (html_from_body(&body), style),
            _ => panic!("a post"),
        }
    }

    #[test]
    fn an_action_loses_the_marks_around_it() {
        let with =
            json!({"id": "a", "type": "me", "message": "*waves*", "props": {"message": "waves"}});
        assert_eq!(html(with), ("waves".to_owned(), Style::Emote));
        let without = json!({"id": "a", "type": "me", "message": "*waves*"});
        assert_eq!(html(without), ("waves".to_owned(), Style::Emote));
    }

    #[test]
    fn what_the_server_tells_has_no_author() {
        let told = json!({"id": "a", "type": "system_join_channel", "message": "carol joined\nthe channel."});
        let Action::System { summary } = spoken(told).action else {
            panic!("a system message");
        };
        assert_eq!(summary, "carol joined the channel.");
    }

    #[test]
    fn attachments_of_integrations_are_read_as_text() {
        let attachment = json!({
            "pretext": "Build", "title": "#7", "title_link": "https://ci.example/7", "text": "**green**",
            "fields": [{"title": "Branch", "value": "main"}, {"title": "Tries", "value": 2}],
        });
        let post = json!({"id": "a", "message": "", "props": {"attachments": [attachment]}});
        let (html, _) = html(post);
        for part in [
            "Build",
            "<a href=\"https://ci.example/7\"><strong>#7</strong></a>",
            "<strong>green</strong>",
            "<strong>Branch</strong>: main",
            "<strong>Tries</strong>: 2",
        ] {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
    }

    #[test]
    fn a_file_is_named_with_its_text_or_alone() {
        let files =
            json!({"files": [{"name": "cat.png", "size": 2_000_000, "mime_type": "image/png"}]});
        let Action::Unsupported { summary } = spoken(json!({"id": "a", "metadata": files})).action
        else {
            panic!("a notice");
        };
        assert_eq!(summary, "sent an image: cat.png (2 MB)");
        let (html, _) = html(json!({"id": "a", "message": "look", "metadata": files}));
        assert!(
            html.contains("look")
                && html.contains("📎 an image: cat.png (2 MB) (not carried over)"),
            "{html}"
        );
    }

    #[test]
    fn a_name_of_its_own_is_somebody_of_their_own() {
        let post = json!({"id": "a", "user_id": "u", "message": "x", "props": {"override_username": "GitHub"}});
        let sender = spoken(post).sender;
        assert_eq!(
            (sender.id.as_str(), sender.name.as_str()),
            ("u/GitHub", "GitHub")
        );
    }
}
