//! No text mentions anybody in Mattermost or Gitter, however the bridge sends it: by the silos' own grammars (see
//! [`super::mattermost`] and [`super::gitter`]), which are independent of the bridge's writer.

use std::time::Duration;

use footbridge_core::{
    capabilities::{Attribution, Capabilities, Edits, LengthUnit, Limits, TextLimit},
    message::{Action, Message, Sender, Style},
    outlet::{Outgoing, Plan, Step},
    plan::plan,
    text::{
        Block, Body, Inline,
        html::{Dialect, body_from_html},
    },
};
use footbridge_store::{Copy, Millis, Place, RemoteId};

use crate::markdown::{Rules, markdown_from_body};
use proptest::prelude::*;

use super::{gitter, mattermost::calls};

/// All texts of a body: as a message on time and delayed, as an edit in time and too late, with a name inside and
/// outside of the text, from the bridge itself, and split into parts.
fn texts(rules: Rules, body: &Body, longest: usize) -> Vec<String> {
    let post = |style| Action::Post {
        body: body.clone(),
        style,
        reply_to: None,
        thread: None,
    };
    let edit = Action::Edit {
        target: RemoteId::from("$event"),
        body: body.clone(),
        style: Style::Text,
    };
    let ann = Sender {
        id: "@ann:example.org".to_owned(),
        name: "Ann".to_owned(),
        avatar: None,
    };
    let copy = Copy {
        remote: RemoteId::from("abc"),
        thread: None,
        sent_at: Millis(0),
        file: None,
    };
    let mut all = Vec::new();
    let is_gitter = rules.dollar_maths;
    let names = [Attribution::Inline, Attribution::Override];
    for names in names.into_iter().take(if is_gitter { 1 } else { 2 }) {
        let limit = TextLimit {
            max: longest,
            unit: LengthUnit::Utf16,
        };
        let can = Capabilities {
            limits: Limits::all(limit),
            edits: Edits::Limited {
                within: Some(Duration::from_secs(1)),
            },
            attribution: names,
            ..if is_gitter {
                crate::gitter::CAPABILITIES
            } else {
                crate::mattermost::CAPABILITIES
            }
        };
        for sender in [ann.clone(), Sender::bridge()] {
            for action in [post(Style::Text), post(Style::Emote), edit.clone()] {
                for late in [false, true] {
                    let outgoing = Outgoing {
                        key: "key".to_owned(),
                        to: Place::new("mattermost", "channel"),
                        message: Message {
                            sender: sender.clone(),
                            sent_at: Millis(0),
                            action: action.clone(),
                            files: Vec::new(),
                        },
                        copies: vec![copy.clone()],
                        permalink: Some("https://chat.example/_redirect/pl/abc".to_owned()),
                        late,
                    };
                    for now in [0, 10_000] {
                        let planned = plan(&can, &outgoing, Millis(now));
                        if let Plan::Steps(steps) = planned {
                            for step in steps {
                                said(step, &mut all);
                            }
                        }
                    }
                }
            }
        }
    }
    all.sort();
    all.dedup();
    all
}

fn said(step: Step, all: &mut Vec<String>) {
    match step {
        Step::Post { content, .. } => all.push(content.text),
        Step::Edit {
            content, fallback, ..
        } => {
            all.push(content.text);
            if let Some(step) = fallback {
                said(*step, all);
            }
        }
        _ => {}
    }
}

/// The first text that mentions somebody.
fn call(body: &Body, longest: usize) -> Option<String> {
    let mut all = texts(crate::mattermost::MARKDOWN, body, longest).into_iter();
    all.find(|text| calls(text))
}

/// The same in Gitter.
fn call_in_gitter(body: &Body, longest: usize) -> Option<String> {
    let mut all = texts(crate::gitter::MARKDOWN, body, longest).into_iter();
    all.find(|text| gitter::calls(text))
}

fn text(text: &str) -> Inline {
    Inline::Text(text.to_owned())
}

fn code(code: &str) -> Inline {
    Inline::Code(code.to_owned())
}

/// Inline text with problematic combinations of everything.
fn inlines() -> impl Strategy<Value = Vec<Inline>> {
    let word = prop::sample::select(vec![
        "@all",
        "www.a",
        "www2.a/",
        "x",
        " ",
        "\u{3000}",
        "http://a.b",
        "ftp://a",
        "gemini://a",
        "HTTP://a.b/c",
        "://",
        "(",
        ")",
        "<",
        ">",
        "*",
        "_",
        "~",
        "`",
        "[",
        "]",
        "\\",
        "!",
        "|",
        "&commat;",
        "&",
        ";",
        ":",
        "1.",
        "-",
        "ww",
    ]);
    let words = prop::collection::vec(word, 1..4).prop_map(|words| text(&words.concat()));
    let codes = prop::sample::select(vec![
        "x @all y",
        "@all",
        "`@all",
        "a``b @all `",
        "www.a @all",
    ]);
    let leaf = prop_oneof![4 => words, 3 => codes.prop_map(code), 1 => Just(Inline::Break)];
    let piece = leaf.prop_recursive(2, 8, 3, |inner| {
        let inner = prop::collection::vec(inner, 1..3);
        prop_oneof![
            inner.clone().prop_map(Inline::Bold),
            inner.clone().prop_map(Inline::Italic),
            inner.clone().prop_map(Inline::Strike),
            inner.clone().prop_map(Inline::Spoiler),
            inner.prop_map(|label| Inline::Link {
                href: "https://h.example/".to_owned(),
                label,
            }),
        ]
    });
    prop::collection::vec(piece, 1..5)
}

fn bodies() -> impl Strategy<Value = Vec<Block>> {
    let fenced = prop::sample::select(vec![
        "a\n\n@all",
        "@all",
        "```\n@all",
        "    ```\n@all\n\n    @all",
        "~~~\n\n@all",
    ]);
    let leaf = prop_oneof![
        3 => inlines().prop_map(Block::Paragraph),
        1 => inlines().prop_map(|line| Block::Heading(2, line)),
        3 => fenced.prop_map(|code| Block::Code { language: None, text: code.to_owned() }),
        1 => Just(Block::Code { language: None, text: "say @all\n\n".repeat(60) }),
        1 => Just(Block::Paragraph(vec![code(&"say @all `` ".repeat(60))])),
        1 => inlines().prop_map(|cell| Block::Table(vec![vec![cell.clone()], vec![cell]])),
        1 => Just(Block::Maths("@all".to_owned())),
        1 => Just(Block::Rule),
    ];
    let block = leaf.prop_recursive(4, 16, 3, |inner| {
        let inner = prop::collection::vec(inner, 1..3);
        let start = prop::sample::select(vec![None, Some(1), Some(5), Some(10), Some(u32::MAX)]);
        prop_oneof![
            inner.clone().prop_map(Block::Quote),
            (start, prop::collection::vec(inner, 1..3))
                .prop_map(|(start, items)| Block::List { start, items }),
        ]
    });
    prop::collection::vec(block, 1..4)
}

/// Texts that once mentioned somebody.
#[test]
fn c02_no_text_that_once_mentioned_somebody_still_does() {
    let deep = |start: &str, last: &str, levels: usize| {
        format!(
            "{}x</li>{last}{}",
            start.repeat(levels),
            "</ul></li>".repeat(levels)
        )
    };
    let code = "<pre><code>a\n\n@all</code></pre>";
    let long = format!("<pre><code>{}</code></pre>", "say @all\n".repeat(1_900));
    for html in [
        "www.a<code>x @all y</code>".to_owned(),
        "www12.a<b><code>x @all y</code></b>".to_owned(),
        "WWW.a<i><del><code>x @all y</code></del></i>".to_owned(),
        "<table><tr><td>a</td></tr><tr><td>www.a<code>x @all y</code></td></tr></table>".to_owned(),
        "www.a<a href='https://h'><code>x @all</code></a>".to_owned(),
        "ftp://a\u{3000}<code>x @all y</code>".to_owned(),
        "gemini://a\u{3000}<a href='https://h'><code>x @all y</code></a>".to_owned(),
        "HTTP://a\u{2003}<b><code>x @all y</code></b>".to_owned(),
        format!("<ul><li>text<ol start='5'><li>{code}</li></ol></li></ul>"),
        format!(
            "<ul><li><blockquote>a</blockquote><blockquote><ol start='5'><li>{code}</li></ol></blockquote></li></ul>"
        ),
        format!("<ol start='4294967295'><li>{code}</li></ol>"),
        format!("<ol start='5'><li>{code}</li></ol>"),
        code.to_owned(),
        format!("<blockquote>{code}</blockquote>"),
        format!("<p><del>~x</del></p>{code}"),
        format!(
            "<ul><li><del>~x</del>{}</li></ul>",
            code.replace("a\n", "~~~\n")
        ),
        deep("<ul><li>", &format!("<li>{code}</li>"), 20),
        deep(
            "<ul><li>",
            &format!("<li><blockquote>{code}</blockquote></li>"),
            16,
        ),
        format!("<ul><li><ul><li>{long}</li></ul></li></ul>{code}"),
        format!(
            "<ul><li>{}<ul><li>{code}</li></ul></li></ul>{code}",
            "many words ".repeat(1_600)
        ),
        format!(
            "<ol start='6'><li>{}</li><li>{code}</li></ol>",
            "many words ".repeat(1_600)
        ),
        format!("<code>``{}</code>", "a`b``c @all".repeat(1_600)),
    ] {
        let body = body_from_html(&html, Dialect::Matrix);
        for longest in [600, 16_383] {
            assert_eq!(call(&body, longest), None, "{html:.100}");
        }
        for longest in [600, 4_096] {
            assert_eq!(call_in_gitter(&body, longest), None, "{html:.100}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn c02_no_body_mentions_anybody_in_mattermost(blocks in bodies(), longest in prop::sample::select(vec![600, 16_383])) {
        let body = Body(blocks);
        let call = call(&body, longest);
        prop_assert!(call.is_none(), "{:?} became {call:?}", markdown_from_body(&body, crate::mattermost::MARKDOWN));
    }

    #[test]
    fn c02_no_body_mentions_anybody_in_gitter(blocks in bodies(), longest in prop::sample::select(vec![600, 4_096])) {
        let body = Body(blocks);
        let call = call_in_gitter(&body, longest);
        prop_assert!(call.is_none(), "{:?} became {call:?}", markdown_from_body(&body, crate::gitter::MARKDOWN));
    }
}
