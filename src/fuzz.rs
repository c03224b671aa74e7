//! What strangers can send, taken as bytes: one function for each reader of them. None may panic, and each says what must
//! hold whatever comes. The fuzz targets of `tests/fuzz` call these; the corpus there is replayed by `cargo test`.

pub mod mattermost_calls;

use std::path::Path;

use footbridge_store::{Millis, Payload, Place};
use unicode_segmentation::UnicodeSegmentation as _;

use crate::{
    config::Config,
    control::order::{Order, order},
    facts,
    file::File,
    matrix::convert,
    message::{Command, Message, Style},
    names,
    outlet::{Outgoing, Plan, Step},
    silo::{
        framing::{Line, Lines},
        gitter, markdown,
        markdown::{Flavour, body_from_markdown, markdown_from_body, split, units},
        matterbridge, mattermost,
    },
    text::{
        Body,
        html::{Dialect, body_from_html},
        html_from_body,
    },
};

/// A target: what takes the bytes.
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

/// The longest text of each silo, in UTF-16 units.
const LONGEST: [(Flavour, usize); 2] = [(Flavour::Gitter, 4096), (Flavour::Mattermost, 16_383)];

/// However a stream is cut into pieces, it says the same lines, and none is longer than was allowed (C15). The first byte
/// says how it is cut.
///
/// # Panics
/// Where that does not hold, as all targets do.
pub fn framer(data: &[u8]) {
    const LONGEST_LINE: usize = 64;
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let whole = Lines::of_at_most(LONGEST_LINE).take(stream);
    let mut lines = Lines::of_at_most(LONGEST_LINE);
    let pieces = stream.chunks(usize::from(cut).max(1));
    let pieced: Vec<Line> = pieces.flat_map(|piece| lines.take(piece)).collect();
    assert_eq!(whole, pieced);
    for line in whole {
        if let Line::Text(line) = line {
            assert!(line.len() <= LONGEST_LINE && !line.is_empty());
            assert!(!line.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
        }
    }
}

/// Whatever a silo says becomes a fact that can be written down, read back and told in a room (C15, C24).
///
/// # Panics
/// Where that does not hold.
pub fn silo_json(data: &[u8]) {
    let place = Place::new("silo", "channel");
    if let Ok(said) = serde_json::from_slice::<gitter::api::ChatMessage>(data) {
        told(gitter::arrival::post(&place, &said).payload);
        told(gitter::arrival::edit(&place, &said).payload);
    }
    if let Ok(said) = serde_json::from_slice::<mattermost::api::Post>(data) {
        told(mattermost::arrival::post(&place, &said, "Ann").payload);
        told(mattermost::arrival::edit(&place, &said, "Ann").payload);
        told(mattermost::arrival::deletion(&place, &said).payload);
    }
    if let Some(said) = matterbridge::api::read(data)
        && let Some(arrival) = matterbridge::arrival::arrival(&place, &said, Millis(0), |_| true)
    {
        told(arrival.payload);
    }
}

/// A fact goes into the journal and on into a room.
fn told(payload: Payload) {
    match payload {
        Payload::Ready(letter) => {
            let message = Message::from_bytes(&letter);
            assert!(message.is_ok(), "what was written cannot be read");
            if let Ok(message) = message {
                into_room(message);
            }
        }
        Payload::Command(letter) => assert!(Command::from_bytes(&letter).is_ok()),
        Payload::Skipped(_) | Payload::Waiting { .. } => {}
    }
}

/// Every event of a plan fits into an event of Matrix, encrypted (C12), and calls nobody (C03).
fn into_room(message: Message) {
    let outgoing = Outgoing {
        key: "key".to_owned(),
        to: Place::room("!room:x"),
        message,
        copies: Vec::new(),
        late: false,
    };
    let Plan::Steps(steps) = convert::plan(&outgoing) else {
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

/// Whatever Markdown a silo shows becomes HTML of the specification's tags alone (C07), which reads the same again.
///
/// # Panics
/// Where that does not hold.
pub fn markdown_to_html(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let body = body_from_markdown(&text);
    let html = html_from_body(&body);
    assert_only_known_tags(&html);
    let again = html_from_body(&body_from_html(&html, Dialect::Matrix));
    assert_only_known_tags(&again);
}

/// Whatever HTML a client writes calls nobody in a silo (C01, C02, C27).
///
/// # Panics
/// Where that does not hold.
pub fn html_to_silo(data: &[u8]) {
    let html = String::from_utf8_lossy(data);
    for dialect in [Dialect::Matrix, Dialect::Gitter] {
        let body = body_from_html(&html, dialect);
        assert_only_known_tags(&html_from_body(&body));
        calls_nobody(&body, "Ann");
    }
}

/// Whatever is written plainly, by whoever it is, calls nobody in a silo (C01, C02). The name stands in the first line.
///
/// # Panics
/// Where that does not hold.
pub fn mentions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (name, text) = text.split_once('\n').unwrap_or(("Ann", &text));
    calls_nobody(&Body::plain(text), name);
}

fn calls_nobody(body: &Body, name: &str) {
    for (flavour, longest) in LONGEST {
        for style in [Style::Text, Style::Emote] {
            let said = markdown::attributed(name, body, style, flavour);
            let prefix = markdown::prefix(name, style, flavour);
            for part in split(&said, &prefix, longest) {
                assert!(!pings(&part), "somebody is called");
                assert!(!mattermost_calls::calls(&part), "Mattermost calls somebody");
            }
        }
        let alone = markdown_from_body(body, flavour);
        assert!(!alone.starts_with('/'), "a command of the silo (C27)");
        // Where the name stands beside the text, and what the bridge says in front of it.
        for front in ["", "(delayed) ", "Edit of https://x.example/pl/a\n"] {
            for part in split(&alone, front, longest) {
                assert!(!pings(&part), "somebody is called");
                assert!(!mattermost_calls::calls(&part), "Mattermost calls somebody");
            }
        }
    }
}

/// Parts fit, and together say everything that was said, up to eight of them (C13).
///
/// # Panics
/// Where that does not hold.
pub fn splitter(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let prefix = markdown::sender_prefix("Ann", Flavour::Gitter);
    for (_, longest) in LONGEST.into_iter().chain([(Flavour::Gitter, 400)]) {
        let parts = split(&text, &prefix, longest);
        assert!(parts.len() <= 8);
        for part in &parts {
            assert!(units(part) <= longest, "a part is too long");
        }
        // Marks are added where code or a call is cut in two; letters are neither added nor lost.
        let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count();
        let plain = !text.contains('`');
        if plain && parts.len() < 8 && !text.starts_with(prefix.trim_end()) {
            let said: usize = parts
                .iter()
                .map(|part| letters(part.strip_prefix(prefix.trim_end()).unwrap_or(part)))
                .sum();
            assert_eq!(said, letters(&text));
        }
    }
}

/// Every name becomes one line without anything that hides or turns the text behind it (C08, C10, C11).
///
/// # Panics
/// Where that does not hold.
pub fn display_names(data: &[u8]) {
    let name = String::from_utf8_lossy(data);
    let shown = names::shown(&name, "id");
    assert!(!shown.trim().is_empty());
    assert!(shown.graphemes(true).count() <= 101, "a name is too long");
    for c in shown.chars() {
        assert!(!c.is_control(), "a control character");
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!turns, "a name turns the text behind it");
    }
    let head = facts::harmless(&name, 64);
    assert!(head.chars().count() <= 64, "a topic is too long");
    assert!(
        !head.chars().any(char::is_control),
        "a topic has more than a line"
    );
    let _likeness = names::likeness(&name);
    for (flavour, _) in LONGEST {
        let prefix = markdown::sender_prefix(&name, flavour);
        assert!(!prefix.contains('\n') && !pings(&prefix));
    }
}

/// A text is a command or not; one with a line break or a control character never does anything (C08).
///
/// # Panics
/// Where that does not hold.
pub fn commands(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words = Command::words_of(&text).unwrap_or(&text);
    let understood = order(words);
    if words.chars().any(char::is_control) {
        assert_eq!(understood, Order::Unknown(None));
    }
}

/// A configuration is understood, or each fault of it named; no secret of it is shown.
///
/// # Panics
/// Where that does not hold.
pub fn config(data: &[u8]) {
    // A fuzzer has no business in the files of whoever runs it.
    if data.contains(&b'/')
        && data
            .windows(6)
            .any(|word| word == b"_file\"" || word == b"_file ")
    {
        return;
    }
    if let Err(report) = Config::parse(Path::new("config.toml"), data.to_vec()) {
        let shown = report.render(crate::config::Style::Plain);
        assert!(!shown.trim().is_empty(), "a fault without words");
    }
}

/// A name that is handed on leads nowhere and is good everywhere (C17). The first line is the media type.
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

/// The tags of the specification that we write ("m.room.message msgtypes", v1.17).
const TAGS: [&str; 32] = [
    "a",
    "b",
    "blockquote",
    "br",
    "caption",
    "code",
    "del",
    "details",
    "div",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "span",
    "strong",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
];

fn assert_only_known_tags(html: &str) {
    for (at, _) in html.match_indices('<') {
        let tag = html.get(at + 1..).unwrap_or_default();
        let tag = tag.strip_prefix('/').unwrap_or(tag);
        let end = tag
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(tag.len());
        let name = tag.get(..end).unwrap_or_default();
        assert!(TAGS.contains(&name), "a foreign tag: {name:?}");
    }
    for scheme in ["javascript:", "data:", "vbscript:"] {
        let href = format!("href=\"{scheme}");
        assert!(!html.to_ascii_lowercase().contains(&href), "{scheme}");
    }
}

/// Gitter's mention grammar: `@` and a name, or `@/` and a group, outside of code. Also inside of URLs: what Gitter takes
/// for one is not known to the character.
#[must_use]
pub fn pings(markdown: &str) -> bool {
    let mut at = 0;
    while let Some(rest) = markdown.get(at..).filter(|rest| !rest.is_empty()) {
        let step = |rest: &str| rest.chars().next().map_or(1, char::len_utf8);
        if rest.starts_with('\\') && !rest.starts_with("\\@") {
            at += 1 + rest.get(1..).map_or(0, step);
            continue;
        }
        let bare = rest.trim_start_matches('`');
        let fence = rest.len() - bare.len();
        if fence > 0
            && let Some(end) = bare.find(&"`".repeat(fence))
        {
            at += end + 2 * fence;
            continue;
        }
        let before = markdown.get(..at).and_then(|text| text.chars().next_back());
        let mail = before.is_some_and(|c| c.is_ascii_alphanumeric());
        let begins = |c: char| c.is_ascii_alphanumeric() || "_-.:[]/".contains(c);
        if !mail
            && rest
                .strip_prefix('@')
                .is_some_and(|name| name.starts_with(begins))
        {
            return true;
        }
        at += step(rest);
    }
    false
}

#[cfg(test)]
mod calls_tests;
#[cfg(test)]
mod gitter_html;
#[cfg(test)]
mod gitter_tests;
#[cfg(test)]
mod matterbridge_tests;
#[cfg(test)]
mod shown_tests;

#[cfg(test)]
mod tests {
    use footbridge_store::RemoteId;

    use super::*;
    use crate::message::Action;

    /// Everything that a fuzzer found worth keeping, and everything that once was a fault.
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
}
