//! Fuzz targets: one function for each parser of what strangers can send. None may panic, and each checks what must
//! hold for any input. The fuzz targets of `tests/fuzz` call these; `cargo test` replays the corpus there.

use std::path::Path;

use footbridge_core::{
    file::File,
    inbox::ArrivalContent,
    message::{Command, Message},
    names,
    outlet::{Outgoing, Plan, Step},
    plan::plan,
    room_profile,
};
use footbridge_matrix::convert;
use footbridge_silo::{fuzz::arrivals, gitter, markdown, mattermost, reference};
use footbridge_store::{Millis, Place};
use unicode_segmentation::UnicodeSegmentation as _;

use crate::{
    config::Config,
    control::parse::{ParsedCommand, parse},
};

pub use footbridge_silo::fuzz::{framer, html_to_silo, markdown_to_html, mentions, splitter};

/// A target: it takes the bytes.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: [(&str, Target); 10] = [
    ("framer", framer),
    ("silo_json", silo_json),
    ("markdown_to_html", markdown_to_html),
    ("html_to_silo", html_to_silo),
    ("mentions", mentions),
    ("splitter", splitter),
    ("names", display_names),
    ("commands", commands),
    ("config", config),
    ("file_names", file_names),
];

/// Whatever a silo sends becomes events that can be stored, read back and shown in a room (C15, C24).
///
/// # Panics
/// Where that does not hold.
pub fn silo_json(data: &[u8]) {
    for content in arrivals(data) {
        check_content(content);
    }
}

/// Stores the content of an arrival, reads it back and plans it into a room.
fn check_content(content: ArrivalContent) {
    match content {
        ArrivalContent::Message(message) => {
            let stored = message
                .to_bytes()
                .map(|bytes| Message::from_bytes(&bytes).is_ok());
            assert!(
                stored.is_ok_and(|is_read| is_read),
                "what was written cannot be read"
            );
            into_room(*message);
        }
        ArrivalContent::Command(command) => {
            let stored = command
                .to_bytes()
                .map(|bytes| Command::from_bytes(&bytes).is_ok());
            assert!(
                stored.is_ok_and(|is_read| is_read),
                "what was written cannot be read"
            );
        }
        ArrivalContent::Skipped(_) | ArrivalContent::Undecryptable { .. } => {}
    }
}

/// Every step of a plan fits into a Matrix event, also encrypted (C12), and mentions nobody (C03).
fn into_room(message: Message) {
    let outgoing = Outgoing {
        key: "key".to_owned(),
        to: Place::room("!room:x"),
        message,
        copies: Vec::new(),
        permalink: None,
        late: false,
    };
    let Plan::Steps(steps) = plan(&convert::CAPABILITIES, &outgoing, Millis(0)) else {
        return;
    };
    for step in steps {
        if let Step::Post { content, .. } = step {
            let event = convert::event_content(&content, None, None, None);
            assert!(event.to_string().len() <= 45_000, "an event is too large");
            assert_eq!(event.pointer("/m.mentions/room"), None);
            assert_eq!(event.pointer("/m.mentions/user_ids"), None);
        }
    }
}

/// Every name becomes one line without characters that hide or reverse the text after them (C08, C10, C11).
///
/// # Panics
/// Where that does not hold.
pub fn display_names(data: &[u8]) {
    let name = String::from_utf8_lossy(data);
    let shown = names::display_name(&name, "id");
    assert!(!shown.trim().is_empty());
    assert!(shown.graphemes(true).count() <= 101, "a name is too long");
    for c in shown.chars() {
        assert!(!c.is_control(), "a control character");
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!turns, "a name turns the text behind it");
    }
    let head = room_profile::sanitize_line(&name, 64);
    assert!(head.chars().count() <= 64, "a topic is too long");
    assert!(
        !head.chars().any(char::is_control),
        "a topic has more than a line"
    );
    let _skeleton = names::confusable_skeleton(&name);
    for rules in [gitter::MARKDOWN, mattermost::MARKDOWN] {
        let prefix = markdown::sender_prefix(&name, rules);
        assert!(!prefix.contains('\n') && !reference::gitter::calls(&prefix));
    }
}

/// A text is a command or not; a text with a line break or a control character never is one (C08).
///
/// # Panics
/// Where that does not hold.
pub fn commands(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words = Command::parse_call(&text).unwrap_or(&text);
    let parsed = parse(words);
    if words.chars().any(char::is_control) {
        assert_eq!(parsed, ParsedCommand::Unknown(None));
    }
}

/// A configuration is read, or each error in it is reported; no secret of it is shown.
///
/// # Panics
/// Where that does not hold.
pub fn config(data: &[u8]) {
    // A fuzzer must not read files of the user that runs it.
    if data.contains(&b'/')
        && data
            .windows(6)
            .any(|word| word == b"_file\"" || word == b"_file ")
    {
        return;
    }
    if let Err(report) = Config::parse(Path::new("config.toml"), data.to_vec()) {
        let shown = report.render(crate::config::ColorChoice::Never);
        assert!(!shown.trim().is_empty(), "a fault without words");
    }
}

/// A file name that is relayed points nowhere and is valid everywhere (C17). The first line is the media type.
///
/// # Panics
/// Where that does not hold.
pub fn file_names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mime, name) = text.split_once('\n').unwrap_or(("", &text));
    let file = File {
        name: name.to_owned(),
        mime: mime.to_owned(),
        ..File::default()
    };
    let safe = file.safe_name();
    assert!(!safe.is_empty() && safe.len() <= 150, "a bad length");
    assert!(!safe.starts_with('.') && safe != "..");
    assert!(!safe.contains(|c: char| c.is_control() || "/\\:*?\"<>|%".contains(c)));
    let mime = file.safe_type();
    assert!(mime.is_ascii() && mime.contains('/') && mime.len() <= 100);
    assert!(!file.in_words().contains(char::is_control));
}

#[cfg(test)]
mod tests {
    use footbridge_core::{
        message::{Action, Style},
        text::Body,
    };
    use footbridge_store::{Millis, RemoteId};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Every input that a fuzzer found worth keeping, and every input that once failed.
    #[test]
    fn the_corpus_of_every_target_passes() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let folder = corpus.join(name);
            let mut replayed = 0;
            for entry in std::fs::read_dir(&folder).unwrap() {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                replayed += 1;
            }
            assert!(replayed >= 5, "{name} has a corpus of {replayed}");
        }
    }

    #[test]
    fn c24_no_number_at_the_edge_is_too_much() {
        let edges = [
            i64::MIN.to_string(),
            i64::MAX.to_string(),
            u64::MAX.to_string(),
            "1e308".to_owned(),
            "-0.0".to_owned(),
            "1.5".to_owned(),
        ];
        for edge in edges {
            for key in ["create_at", "update_at", "edit_at", "delete_at", "v"] {
                let post = format!(r#"{{"id":"a","message":"hi","text":"hi","{key}":{edge}}}"#);
                silo_json(post.as_bytes());
            }
        }
        let event = RemoteId::from("$event");
        for sent_at in [i64::MIN, -1, 0, 1 << 53, i64::MAX] {
            let mut message = Message::notice("hi", Millis(sent_at));
            message.action = Action::Edit {
                target: event.clone(),
                body: Body::plain("hi"),
                style: Style::Text,
            };
            into_room(message);
        }
    }

    proptest! {
        #[test]
        fn a_matterbridge_message_fits_into_an_event_that_mentions_nobody(text in "x[a-z1;.,*_~`#<>&@!?\\\\()\\[\\]\"' \n|-]{0,16}y") {
            let message = json!({"text": text, "username": "bob", "account": "irc.a", "timestamp": "2026-11-22T12:06:31.6Z"});
            let bytes = message.to_string().into_bytes();
            prop_assert!(!arrivals(&bytes).is_empty());
            silo_json(&bytes);
        }
    }
}
