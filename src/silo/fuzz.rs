//! What strangers can send to a silo's readers and writers, as bytes: one function for each. None may panic, and each
//! asserts what must hold for every input.

use footbridge_core::{
    inbox::ArrivalContent,
    message::Style,
    text::{
        Body,
        html::{Dialect, body_from_html},
        html_from_body,
    },
};
use footbridge_store::{Millis, Place};

use crate::{
    framing::{Line, LineFramer},
    gitter, markdown,
    markdown::{Rules, body_from_markdown, markdown_from_body, split, units},
    matterbridge, mattermost, reference,
};

/// The longest text of each silo, in UTF-16 units.
const MAX_UNITS: [(Rules, usize); 2] = [(gitter::MARKDOWN, 4096), (mattermost::MARKDOWN, 16_383)];

/// A stream yields the same lines however it is split into chunks, and none is longer than allowed (C15). The first
/// byte is the size of the chunks.
///
/// # Panics
/// Where that does not hold, as all targets do.
pub fn framer(data: &[u8]) {
    const MAX_LINE: usize = 64;
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let whole = LineFramer::with_limit(MAX_LINE).take(stream);
    let mut lines = LineFramer::with_limit(MAX_LINE);
    let pieces = stream.chunks(usize::from(cut).max(1));
    let pieced: Vec<Line> = pieces.flat_map(|piece| lines.take(piece)).collect();
    assert_eq!(whole, pieced);
    for line in whole {
        if let Line::Text(line) = line {
            assert!(line.len() <= MAX_LINE && !line.is_empty());
            assert!(!line.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
        }
    }
}

/// The contents of any JSON of a silo (C15, C24).
#[must_use]
pub fn arrivals(data: &[u8]) -> Vec<ArrivalContent> {
    let place = Place::new("silo", "channel");
    let mut arrivals = Vec::new();
    if let Ok(received) = serde_json::from_slice::<gitter::api::ChatMessage>(data) {
        arrivals.push(gitter::arrival::post(&place, &received));
        arrivals.push(gitter::arrival::edit(&place, &received));
    }
    if let Ok(received) = serde_json::from_slice::<mattermost::api::Post>(data) {
        arrivals.push(mattermost::arrival::post(&place, &received, "Ann"));
        arrivals.push(mattermost::arrival::edit(&place, &received, "Ann"));
        arrivals.push(mattermost::arrival::deletion(&place, &received));
    }
    if let Some(received) = matterbridge::api::read(data) {
        arrivals.extend(matterbridge::arrival::arrival(
            &place,
            &received,
            Millis(0),
            |_| true,
        ));
    }
    arrivals
        .into_iter()
        .map(|arrival| arrival.payload)
        .collect()
}

/// Any Markdown of a silo becomes HTML with the specification's tags only (C07), also after it is read again.
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

/// No HTML of a client mentions anybody in a silo (C01, C02, C27).
///
/// # Panics
/// Where that does not hold.
pub fn html_to_silo(data: &[u8]) {
    let html = String::from_utf8_lossy(data);
    for dialect in [Dialect::Matrix, Dialect::Gitter] {
        let body = body_from_html(&html, dialect);
        assert_only_known_tags(&html_from_body(&body));
        assert_no_mentions(&body, "Ann");
    }
}

/// No plain text of any author mentions anybody in a silo (C01, C02). The first line of the input is the name.
///
/// # Panics
/// Where that does not hold.
pub fn mentions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (name, text) = text.split_once('\n').unwrap_or(("Ann", &text));
    assert_no_mentions(&Body::plain(text), name);
}

fn assert_no_mentions(body: &Body, name: &str) {
    for (rules, longest) in MAX_UNITS {
        for style in [Style::Text, Style::Emote] {
            let text = markdown::attributed(name, body, style, rules);
            let prefix = markdown::prefix(name, style, rules);
            for part in split(&text, &prefix, longest) {
                assert!(!reference::gitter::calls(&part), "somebody is called");
                assert!(
                    !reference::mattermost::calls(&part),
                    "Mattermost calls somebody"
                );
            }
        }
        let alone = markdown_from_body(body, rules);
        assert!(!alone.starts_with('/'), "a command of the silo (C27)");
        // Where the name is a separate field, and with the prefixes that the bridge writes.
        for front in ["", "(delayed) ", "Edit of https://x.example/pl/a\n"] {
            for part in split(&alone, front, longest) {
                assert!(!reference::gitter::calls(&part), "somebody is called");
                assert!(
                    !reference::mattermost::calls(&part),
                    "Mattermost calls somebody"
                );
            }
        }
    }
}

/// The parts fit, and together contain the whole text, up to eight parts (C13).
///
/// # Panics
/// Where that does not hold.
pub fn splitter(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let prefix = markdown::sender_prefix("Ann", gitter::MARKDOWN);
    for (_, longest) in MAX_UNITS.into_iter().chain([(gitter::MARKDOWN, 400)]) {
        let parts = split(&text, &prefix, longest);
        assert!(parts.len() <= 8);
        for part in &parts {
            assert!(units(part) <= longest, "a part is too long");
        }
        // Marks are added where code or a mention is cut; letters are neither added nor lost.
        let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count();
        let plain = !text.contains('`');
        if plain && parts.len() < 8 && !text.starts_with(prefix.trim_end()) {
            let total: usize = parts
                .iter()
                .map(|part| letters(part.strip_prefix(prefix.trim_end()).unwrap_or(part)))
                .sum();
            assert_eq!(total, letters(&text));
        }
    }
}

/// The tags of the specification that the bridge writes ("m.room.message msgtypes", v1.17).
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
