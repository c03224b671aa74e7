//! Mattermost shows what a person wrote, in both directions: by the rules of its apps (Mattermost's fork of marked,
//! `lib/marked.js`, `inline`), reimplemented independently of the bridge's reader and writer.

use std::{collections::HashSet, sync::LazyLock};

use footbridge_core::text::{
    Block, Body, Inline,
    html::{Dialect, body_from_html},
};
use proptest::prelude::*;

use crate::markdown::{body_from_markdown, markdown_from_body, sender_prefix};

/// What the app shows of a line without links.
fn shown(markdown: &str) -> String {
    read(markdown).replace('\u{200b}', "")
}

/// The same with the emoji that it makes of shortcodes, and of emoticons next to other characters. An emoticon that
/// stands alone is intended.
fn drawn(markdown: &str) -> String {
    faces(&named(&read(markdown))).replace('\u{200b}', "")
}

/// Placeholders for an emoji, and for the colons of other names, so that they are not converted again.
const EMOJI: char = '🙂';
const NAME: char = '\u{e000}';

/// The names of the app's list.
static LISTED: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    let list = include_str!("../mattermost/emoji.txt").lines();
    let list = list.filter(|line| !line.starts_with("# "));
    list.flat_map(|line| line.split(' ').skip(1)).collect()
});

/// The app's `EMOJI_PATTERN`, `/(:([a-zA-Z0-9_+-]+):)/g`, whose names are lower-cased before they are looked up.
fn named(text: &str) -> String {
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-');
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once(':') {
        out.push_str(before);
        let end = behind.find(|c| !in_name(c)).unwrap_or(behind.len());
        let (name, after) = behind.split_at(end);
        rest = behind;
        match after.strip_prefix(':').filter(|_| !name.is_empty()) {
            Some(after) if LISTED.contains(name.to_lowercase().as_str()) => {
                out.push(EMOJI);
                rest = after;
            }
            Some(after) => {
                out.push(NAME);
                out.push_str(name);
                out.push(NAME);
                rest = after;
            }
            None => out.push(':'),
        }
    }
    out + rest
}

/// The app's `emoticonPatterns`, of which none begins or ends next to a letter.
fn faces(text: &str) -> String {
    const FACES: [&str; 35] = [
        ":)", ":-)", ";)", ";-)", ":o", ":-o", ":]", ":-]", ":d", ":-d", "x-d", ":p", ":-p", ":[",
        ":-[", ":@", ":-@", ":(", ":-(", ":'(", ":'-(", ":`(", ":`-(", ":’(", ":’-(", ":/", ":-/",
        ":s", ":-s", ":|", ":-|", ":$", ":-$", ":-x", ":-X",
    ];
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let stands_within = out
            .chars()
            .next_back()
            .is_some_and(|c| !letter(c) && !c.is_whitespace());
        let lower = rest.to_ascii_lowercase();
        let face = FACES.iter().find(|face| {
            let behind = lower.strip_prefix(**face);
            stands_within && behind.is_some_and(|behind| !behind.starts_with(letter))
        });
        if let Some(face) = face {
            out.push(EMOJI);
            rest = &rest[face.len()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out.replace(NAME, ":")
}

/// Reads a line without links: escapes and entities become their characters, code stays code, and unpaired `**` stay
/// text.
fn read(markdown: &str) -> String {
    let mut out = String::new();
    let mut rest = markdown;
    while let Some(c) = rest.chars().next() {
        if let Some((escaped, length)) = escape(rest) {
            out.push(escaped);
            rest = &rest[length..];
            continue;
        }
        if c == '`' {
            let inner = rest.trim_start_matches('`');
            let fence = &rest[..rest.len() - inner.len()];
            if let Some(end) = closing(inner, fence) {
                out.push_str(inner[..end].trim());
                rest = &inner[end + fence.len()..];
                continue;
            }
            out.push_str(fence);
            rest = inner;
            continue;
        }
        if c == '&'
            && let Some((name, behind)) = rest[1..].split_once(';')
            && let Some(meant) = entity(name)
        {
            out.push(meant);
            rest = behind;
            continue;
        }
        if let Some(behind) = rest.strip_prefix("**") {
            rest = behind;
            continue;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// `inline.escape`: `` ^\\([`*{}\[\]()#+\-.!_>|~]|\\(?!\w)) ``
fn escape(rest: &str) -> Option<(char, usize)> {
    let mut chars = rest.strip_prefix('\\')?.chars();
    let escaped = chars.next()?;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let escapes = match escaped {
        '\\' => !chars.as_str().starts_with(word),
        c => "`*{}[]()#+-.!_>|~".contains(c),
    };
    escapes.then_some((escaped, 2))
}

/// The same by `CommonMark`, which Mattermost's mobile apps follow.
fn escape_by_commonmark(rest: &str) -> Option<(char, usize)> {
    let escaped = rest.strip_prefix('\\')?.chars().next()?;
    escaped.is_ascii_punctuation().then_some((escaped, 2))
}

/// Resolves the backslashes of a text without other markup.
fn unescaped(markdown: &str, escape: fn(&str) -> Option<(char, usize)>) -> String {
    let (mut out, mut rest) = (String::new(), markdown);
    while let Some(c) = rest.chars().next() {
        let (c, length) = escape(rest).unwrap_or((c, c.len_utf8()));
        out.push(c);
        rest = &rest[length..];
    }
    out.replace('\u{200b}', "")
}

fn closing(inner: &str, fence: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = inner[at..].find('`') {
        let start = at + found;
        let run = inner[start..].len() - inner[start..].trim_start_matches('`').len();
        if run == fence.len() {
            return Some(start);
        }
        at = start + run;
    }
    None
}

fn entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "ast" => '*',
        "vert" => '|',
        "lsqb" => '[',
        "rsqb" => ']',
        _ => return None,
    })
}

/// How many lists the app finds by its block rules (`block.list`): a list ends after an empty line if the next line
/// begins with neither a blank nor the mark of an item.
fn lists(markdown: &str) -> usize {
    let begins_item = |line: &str| {
        let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
        ["- ", "* ", "+ "].iter().any(|mark| line.starts_with(mark))
            || number.len() < line.len() && number.starts_with(". ")
    };
    let (mut found, mut inside, mut behind_empty) = (0, false, true);
    for line in markdown.lines() {
        if inside && behind_empty && !line.is_empty() {
            inside = line.starts_with(' ') || begins_item(line);
        }
        if !inside && begins_item(line) {
            (found, inside) = (found + 1, true);
        }
        behind_empty = line.is_empty();
    }
    found
}

/// Collapses runs of spaces, as HTML does.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What people write, mostly backslashes.
fn written() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\\", "\\", "\\", "\\", "a", "Users", "d", "7", " ", ":", "\"", "'", "/", "$", "@", "%",
        "^", "=", "é", "*", "_", "`", "~", "#", "+", "-", ".", "!", "(", ")", "{", "}", "[", "]",
        "<", ">", "|", "&", "&amp;", "&#92;", ";", "?", ",", ":tada:", ":Tada:", ":ID:", ":+1:",
        ":nobody:", ":", ":", ":-", "p", "D", "o", "s", "x-d", "(:", "[:",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("x{}y", pieces.concat()))
}

/// A paragraph, or a numbered or unnumbered list.
fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let line = |text: &str| vec![Inline::Text(text.to_owned())];
    let items = move || {
        vec![
            vec![Block::Paragraph(line("a"))],
            vec![Block::Paragraph(line("b"))],
        ]
    };
    let block = prop::sample::select(vec![
        Block::Paragraph(line("words")),
        Block::List {
            start: None,
            items: items(),
        },
        Block::List {
            start: Some(1),
            items: items(),
        },
        Block::List {
            start: Some(7),
            items: items(),
        },
    ]);
    prop::collection::vec(block, 1..6)
}

#[test]
fn the_app_draws_names_and_faces() {
    for (text, seen) in [
        (
            ":ID: 7 :END: :nobody: :qq:b:tada:",
            "🙂 7 🙂 :nobody: :qq:b🙂",
        ),
        (
            "Axis::P T::S ::Parser x[:] for(;;) {:d} (:-x) a:s",
            "Axis:🙂 T:🙂 ::Parser x[🙂 for(;🙂 {🙂} (🙂) a:s",
        ),
        ("é:s (x-D) max-d :) x :p", "é🙂 (🙂) max-d :) x :p"),
    ] {
        assert_eq!(drawn(text), seen, "{text}");
        let markdown = markdown_from_body(&Body::plain(text), crate::mattermost::MARKDOWN);
        assert_eq!(drawn(&markdown), text, "{markdown}");
    }
}

#[test]
fn a_list_with_numbers_behind_one_without_is_another_list() {
    let body = body_from_html("<ul><li>a</li></ul><ol><li>b</li></ol>", Dialect::Matrix);
    for rules in [crate::mattermost::MARKDOWN, crate::gitter::MARKDOWN] {
        let markdown = markdown_from_body(&body, rules);
        assert_eq!(lists(&markdown), 2, "{markdown}");
    }
    assert_eq!(lists("- a\n\n1. b"), 1);
    // Within an item as well.
    let inner = "<ul><li>x<ul><li>a</li></ul><ol><li>b</li></ol></li></ul>";
    let body = body_from_html(inner, Dialect::Matrix);
    let markdown = markdown_from_body(&body, crate::mattermost::MARKDOWN);
    let item: Vec<&str> = markdown
        .lines()
        .map(|line| line.strip_prefix("  ").unwrap_or(line))
        .skip(1)
        .collect();
    assert_eq!(lists(&item.join("\n")), 2, "{markdown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn every_list_of_matrix_is_a_list_in_mattermost(blocks in blocks()) {
        let written = blocks.iter().filter(|block| matches!(block, Block::List { .. })).count();
        let markdown = markdown_from_body(&Body(blocks), crate::mattermost::MARKDOWN);
        prop_assert_eq!(lists(&markdown), written, "{}", markdown);
    }

    #[test]
    fn what_is_written_in_matrix_is_shown_in_mattermost(text in written()) {
        let markdown = markdown_from_body(&Body::plain(&text), crate::mattermost::MARKDOWN);
        // In a possible link the bridge encodes a colon like this.
        prop_assert_eq!(drawn(&markdown).replace("%3A", ":"), text, "{}", markdown);
    }

    #[test]
    fn a_name_is_shown_as_it_is(text in "[a-zA-Z0-9é\\\\:;()]{1,8}") {
        let markdown = sender_prefix(&text, crate::mattermost::MARKDOWN);
        // The name is a text of its own.
        let name = markdown.strip_prefix("**").and_then(|name| name.strip_suffix("**: "));
        prop_assert_eq!(name.map(drawn), Some(text), "{}", markdown);
    }

    /// With only backslashes and words, the desktop and the mobile apps show the same.
    #[test]
    fn backslashes_are_the_same_in_every_app(text in r#"[ab1 :/$"\\\\\\]{0,12}"#) {
        let text = format!("x{text}");
        let markdown = markdown_from_body(&Body::plain(&text), crate::mattermost::MARKDOWN);
        for escape in [escape, escape_by_commonmark] {
            // In a possible link the bridge encodes a colon like this.
            let shown = unescaped(&markdown, escape).replace("%3A", ":");
            prop_assert_eq!(shown, text.clone(), "{}", markdown);
        }
    }

    #[test]
    fn what_is_shown_in_mattermost_is_written_to_the_room(text in r#"x[q1 :/$"'@%=é?,;.()!{}#+\\\\\\-]{0,12}"#) {
        let text = text.trim_end();
        let read = body_from_markdown(text).to_plain();
        prop_assert_eq!(squeezed(&read), squeezed(&shown(text)));
    }

    #[test]
    fn a_round_trip_changes_nothing(text in written()) {
        let markdown = markdown_from_body(&Body::plain(&text), crate::mattermost::MARKDOWN);
        let back = body_from_markdown(&markdown).to_plain().replace('\u{200b}', "");
        prop_assert_eq!(squeezed(&back), squeezed(&text), "{}", markdown);
    }
}
