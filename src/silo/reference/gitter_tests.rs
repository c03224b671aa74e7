//! Gitter shows what a person wrote, in both directions, and the text mentions nobody: by Gitter's own grammar
//! ([`super::gitter_html`]), which is independent of the bridge's writer.

use footbridge_core::text::Body;
use proptest::prelude::*;

use std::{collections::HashMap, sync::LazyLock};

use super::gitter_html::{Rendered, render, shown};
use crate::{
    gitter::body_from_html,
    markdown::{markdown_from_body, sender_prefix},
};

/// What the app shows of a line, and whom it mentions.
fn seen(markdown: &str) -> (String, Vec<String>) {
    let Rendered { html, called } = render(markdown);
    let drawn = |text: &str| emojified(text, "🖼");
    (shown(&html, drawn).replace('\u{200b}', ""), called)
}

/// The names of the app's list, with the emoji of each.
static LISTED: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    let list = include_str!("../gitter/emoji.txt").lines();
    let list = list.filter(|line| !line.starts_with("# "));
    list.flat_map(|line| {
        let mut words = line.split(' ');
        let emoji = words.next().unwrap();
        words.map(move |name| (name, emoji))
    })
    .collect()
});

/// How the app shows a text (`emojify.js` of Gitter's own source, `run` and its `validate`), with `picture` for each
/// custom picture that Unicode does not have.
fn emojified(text: &str, picture: &str) -> String {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let (mut out, mut at, mut last_end) = (String::new(), 0, None);
    while let Some((start, c)) = chars.get(at).copied() {
        // `/:([a-z0-9A-Z_-]+):/`, else `/:\+1:/`.
        let behind = &text[start + c.len_utf8()..];
        let name: String = behind
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c))
            .collect();
        let name = if name.is_empty() && behind.starts_with("+1:") {
            "+1".to_owned()
        } else {
            name
        };
        if c != ':' || name.is_empty() || !behind[name.len()..].starts_with(':') {
            out.push(c);
            at += 1;
            continue;
        }
        let end = at + name.chars().count() + 2;
        let is_blank = |at: usize| matches!(chars[at].1, ' ' | '\t' | '\r' | '\n');
        let emoji = LISTED
            .get(name.as_str())
            .filter(|_| at == 0 || end == chars.len() || last_end == Some(at) || is_blank(at - 1));
        match emoji {
            Some(emoji) => {
                last_end = Some(end);
                let named = format!(":{name}:");
                out.push_str(match (*emoji, picture) {
                    ("-", "") => &named,
                    ("-", picture) => picture,
                    (emoji, _) => emoji,
                });
            }
            None => {
                out.extend([":", &name, ":"]);
            }
        }
        at = end;
    }
    out
}

/// Without blanks: the bridge adds one after an address, and removes those at the end of a link. In an address the
/// bridge percent-encodes markup.
fn plain(text: &str) -> String {
    let mut text = text.replace(char::is_whitespace, "");
    for (percent, mark) in [
        ("%2A", "*"),
        ("%7E", "~"),
        ("%60", "`"),
        ("%7C", "|"),
        ("%40", "@"),
    ] {
        text = text.replace(percent, mark);
    }
    text
}

/// What people write, in a line that is no list or heading.
fn written() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\\",
        "\\",
        "\\",
        "a",
        "Users",
        "7",
        " ",
        " ",
        ":",
        "\"",
        "'",
        "/",
        "$",
        "$",
        "@",
        "@all",
        "@/all",
        "%",
        "^",
        "=",
        "é",
        "*",
        "*",
        "**",
        "_",
        "_",
        "__",
        "`",
        "`",
        "~",
        "~~",
        "#",
        "#12",
        "a/b#3",
        "a/b@0123abc",
        "+",
        "-",
        ".",
        "!",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "<",
        ">",
        "<b>",
        "</b>",
        "<!--",
        "-->",
        "|",
        "&",
        "&amp;",
        "&#92;",
        ";",
        "?",
        ",",
        "x@y.zz",
        "https://x.yz/a",
        "http://",
        "www.",
        ":tada:",
        ":shipit:",
        ":thinking:",
        ":+1:",
        "\n",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("x{}y", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn what_is_written_in_matrix_is_shown_in_gitter(text in written()) {
        let markdown = markdown_from_body(&Body::plain(&text), crate::gitter::MARKDOWN);
        for line in markdown.split("\n\n") {
            let (_, called) = seen(line);
            prop_assert_eq!(called, Vec::<String>::new(), "{}", markdown);
        }
        let lines: Vec<String> = markdown.split("\n\n").map(|line| seen(line).0).collect();
        prop_assert_eq!(plain(&lines.join("\n")), plain(&text), "{}", markdown);
    }

    #[test]
    fn a_name_is_shown_in_gitter_as_it_is(name in "[a-zA-Z0-9é\\\\@#:._*`~/()-]{1,8}") {
        let markdown = sender_prefix(&name, crate::gitter::MARKDOWN);
        let (shown, called) = seen(&markdown);
        prop_assert_eq!(shown, format!("{name}: "), "{}", markdown);
        prop_assert_eq!(called, Vec::<String>::new(), "{}", markdown);
    }

    #[test]
    fn what_is_shown_in_gitter_is_written_to_the_room(text in written()) {
        let Rendered { html, .. } = render(&text);
        prop_assume!(!["<link>", "<katex>", "<commit>"].iter().any(|left_out| html.contains(left_out)));
        let read = body_from_html(&html, &text).to_plain();
        let seen = shown(&html, |text| emojified(text, ""));
        prop_assert_eq!(plain(&read), plain(&seen), "{}", html);
    }

    #[test]
    fn a_round_trip_through_gitter_changes_nothing(text in written()) {
        let markdown = markdown_from_body(&Body::plain(&text), crate::gitter::MARKDOWN);
        let back: Vec<String> = markdown
            .split("\n\n")
            .map(|line| body_from_html(&render(line).html, line).to_plain())
            .collect();
        let back = back.join("\n").replace('\u{200b}', "");
        prop_assert_eq!(plain(&back), plain(&text), "{}", markdown);
    }
}
