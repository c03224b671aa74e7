//! What a person wrote is what another sees in Mattermost, and the other way round: by the rules of its apps (Mattermost's
//! fork of marked, `lib/marked.js`, `inline`), written anew, apart from what we write and read by.

use proptest::prelude::*;

use crate::{
    silo::markdown::{Flavour, body_from_markdown, markdown_from_body, sender_prefix},
    text::Body,
};

/// What the app shows of a line without links: escapes and entities are the characters that they stand for, code is code,
/// and what is left of `**` are marks.
fn shown(markdown: &str) -> String {
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
    out.replace('\u{200b}', "")
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

/// The backslashes of a text that has no other markup.
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

/// Spaces in a row are one, as in HTML.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What people write, backslashes foremost.
fn written() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\\", "\\", "\\", "\\", "a", "Users", "d", "7", " ", ":", "\"", "'", "/", "$", "@", "%",
        "^", "=", "é", "*", "_", "`", "~", "#", "+", "-", ".", "!", "(", ")", "{", "}", "[", "]",
        "<", ">", "|", "&", "&amp;", "&#92;", ";", "?", ",",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("x{}y", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn what_is_written_in_matrix_is_shown_in_mattermost(text in written()) {
        let markdown = markdown_from_body(&Body::plain(&text), Flavour::Mattermost);
        prop_assert_eq!(shown(&markdown), text, "{}", markdown);
    }

    #[test]
    fn a_name_is_shown_as_it_is(text in "[a-zA-Z0-9é\\\\]{1,8}") {
        let markdown = sender_prefix(&text, Flavour::Mattermost);
        prop_assert_eq!(shown(&markdown), format!("{text}: "), "{}", markdown);
    }

    /// Where nothing but backslashes and words stands, the desktop and the mobile apps show the same.
    #[test]
    fn backslashes_are_the_same_in_every_app(text in r#"[ab1 :/$"\\\\\\]{0,12}"#) {
        let text = format!("x{text}");
        let markdown = markdown_from_body(&Body::plain(&text), Flavour::Mattermost);
        for escape in [escape, escape_by_commonmark] {
            prop_assert_eq!(unescaped(&markdown, escape), text.clone(), "{}", markdown);
        }
    }

    #[test]
    fn what_is_shown_in_mattermost_is_written_to_the_room(text in r#"x[q1 :/$"'@%=é?,;.()!{}#+\\\\\\-]{0,12}"#) {
        let text = text.trim_end();
        let read = body_from_markdown(text).to_plain();
        prop_assert_eq!(squeezed(&read), squeezed(&shown(text)));
    }

    #[test]
    fn what_goes_there_and_back_is_the_same(text in written()) {
        let markdown = markdown_from_body(&Body::plain(&text), Flavour::Mattermost);
        let back = body_from_markdown(&markdown).to_plain().replace('\u{200b}', "");
        prop_assert_eq!(squeezed(&back), squeezed(&text), "{}", markdown);
    }
}
