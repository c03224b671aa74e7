//! The networks behind a Matterbridge show what a person wrote, in both directions, and the text mentions nobody: by
//! what Matterbridge does to a text, and by the grammars of the networks that it links (see [`networks`]).

mod networks;

use footbridge_core::{
    file::File,
    inbox,
    message::{Action, Message, Sender, Style},
    outlet::{Content, Outgoing, Plan, Step},
    plan::plan,
    text::{Body, html_from_body},
};
use footbridge_store::{Copy, Millis, Place, RemoteId};
use proptest::prelude::*;
use serde_json::json;

use self::networks::{PEOPLE, caller, emojized, handed_on, names};
use crate::matterbridge::{
    CAPABILITIES, api,
    arrival::arrival,
    convert::{escape_mentions, name_of},
};

/// Ends a word invisibly.
const UNSEEN: char = '\u{200b}';

/// All messages of a body: on time and delayed, as a reply, an emote and an edit, with a file and without.
fn sent(name: &str, body: &Body) -> Vec<Content> {
    let post = |style, reply_to: Option<RemoteId>| Action::Post {
        body: body.clone(),
        style,
        reply_to,
        thread: None,
    };
    let target = RemoteId::from("$event");
    let actions = [
        post(Style::Text, None),
        post(Style::Emote, None),
        post(Style::Text, Some(target.clone())),
        Action::Edit {
            target: target.clone(),
            body: body.clone(),
            style: Style::Text,
        },
        Action::Delete { target },
        Action::Unsupported {
            summary: body.to_plain(),
        },
    ];
    let file = file_called(&body.to_plain());
    let mut all = Vec::new();
    for action in actions {
        for (late, files) in [(false, Vec::new()), (true, vec![file.clone()])] {
            let planned = plan(
                &CAPABILITIES,
                &Outgoing {
                    key: "key".to_owned(),
                    to: Place::new("mb", "gateway"),
                    message: Message {
                        sender: Sender {
                            id: "@ann:example.org".to_owned(),
                            name: name.to_owned(),
                            avatar: None,
                        },
                        sent_at: Millis(0),
                        action: action.clone(),
                        files,
                    },
                    copies: vec![Copy {
                        remote: RemoteId::from("sent/1"),
                        thread: None,
                        sent_at: Millis(0),
                        file: None,
                    }],
                    permalink: None,
                    late,
                },
                Millis(0),
            );
            if let Plan::Steps(steps) = planned {
                for step in steps {
                    said(step, &mut all);
                }
            }
        }
    }
    all
}

fn said(step: Step, all: &mut Vec<Content>) {
    match step {
        Step::Post { content, .. } => all.push(content),
        Step::SendFile {
            content, fallback, ..
        } => {
            all.push(content);
            if let Some(step) = fallback {
                said(*step, all);
            }
        }
        _ => {}
    }
}

/// All texts that Matterbridge forwards for a name and a text.
fn everything(name: &str, text: &str) -> Vec<String> {
    let all = sent(name, &Body::plain(text)).into_iter();
    let shown = name_of(name, "@ann:example.org");
    let mut all: Vec<String> = all
        .flat_map(|content| handed_on(&shown, &content.text))
        .collect();
    // Networks show the caption of a file; of its name Matterbridge itself keeps only letters and digits.
    let comment = escape_mentions(&file_called(text).in_words());
    all.extend(handed_on(&shown, &comment));
    all.sort();
    all.dedup();
    all
}

fn file_called(name: &str) -> File {
    File {
        name: name.to_owned(),
        ..File::default()
    }
}

/// What mentions somebody on any network, and what may surround it.
const PIECES: &[&str] = &[
    "@",
    "@",
    "@all",
    "@here",
    "@channel",
    "@everyone",
    "@room",
    "@bob",
    "@Ann B",
    "@ann",
    "<@U123>",
    "<@!12>",
    "<@&12>",
    "<#C1>",
    "<!here>",
    "<!channel>",
    "<!subteam^S1>",
    "@**Ann B**",
    "@_**ann**",
    "@*team*",
    "@\"ann b\"",
    "[id1|Ann]",
    "*id1",
    "@id1",
    "*all",
    "[x](tg://user?id=1)",
    "tg:",
    "TG:",
    "tg:user",
    "tg:user?id=1",
    "//user?id=1",
    "//",
    "user",
    "/?",
    "?a=b&id=1",
    "?id=1",
    "&#58;",
    "&#x75;ser",
    "@carl:example.org",
    "https://matrix.to/#/@carl:example.org",
    "https://x.example/@bob",
    "http://",
    "www.a/",
    "a@b.example",
    "ann@all.example",
    "x-@bob.example",
    "&commat;bob",
    "&#64;all",
    "&#x40;here",
    "#channel",
    ":tada:",
    ":x:",
    "<",
    ">",
    "(",
    ")",
    "[",
    "]",
    "*",
    "**",
    "_",
    "`",
    "```",
    "~~",
    "\\",
    "|",
    "!",
    "&",
    ";",
    ":",
    ".",
    "-",
    "/",
    " ",
    " ",
    "\n",
    "\n\n",
    "1. ",
    "> ",
    "    ",
    "x",
    "é",
    "\u{200b}",
];

fn calling() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(PIECES);
    prop::collection::vec(piece, 1..7).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn c02_no_text_mentions_anybody_behind_a_matterbridge(text in calling()) {
        for handed in everything("Ann", &text) {
            prop_assert_eq!(caller(&handed), None, "{:?}", handed);
        }
    }

    #[test]
    fn c02_no_name_mentions_anybody_behind_a_matterbridge(name in calling()) {
        for handed in everything(&name, "hi") {
            prop_assert_eq!(caller(&handed), None, "{:?}", handed);
        }
    }

    /// A marked mention does not notify by the bare name either.
    #[test]
    fn c02_a_name_behind_a_mark_is_parted(
        mark in prop::sample::select(vec!["@", "@**", "@_**", "@*", "@\"", "<@", "@@", "@(", "x@", "\\@"]),
        name in prop::sample::select(vec!["bob", "ann", "carl", "все", "Bob"]),
        behind in prop::sample::select(vec!["", " hi", "!", "**", ", x"]),
    ) {
        for handed in everything("Dora", &format!("{mark}{name}{behind}")) {
            prop_assert!(!names(&handed, name), "{handed:?}");
        }
    }

    #[test]
    fn what_is_written_in_matrix_is_handed_on(text in "x[a-z1:;.,*_~`#<>&@!?\\\\()/\\[\\] \n|-]{0,16}y") {
        let sent = sent("Ann", &Body::plain(&text));
        let shown = emojized(&sent[0].text).replace(UNSEEN, "");
        prop_assert_eq!(squeezed(&shown), squeezed(&text));
        for content in sent {
            prop_assert!(!emojized(&content.text).contains('🙂'), "{:?}", content.text);
        }
    }

    #[test]
    fn matterbridge_system_messages_are_shown_in_the_room(text in "x([a-z1;.,*_~`#<>&@!?\\\\()\\[\\]\"' \n|:-]|:(x|o|tada):){0,16}y") {
        let message = heard(&text);
        let Action::Post { body, .. } = &message.action else {
            panic!("a message");
        };
        let shown = squeezed(&body.to_plain());
        prop_assert_eq!(&seen(&html_from_body(body)), &shown);
        prop_assert!(draws(&shown, &squeezed(&text)), "{shown:?} of {text:?}");
    }
}

/// Whether a line shows another one with emoji for the names between colons, except for names next to a letter or after
/// another colon: in `10:100:30` and `std::x::y` no emoji is meant.
fn draws(shown: &str, said: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut shown, mut at) = (shown, 0);
    while let Some(c) = shown.chars().next() {
        let behind = &said[at..];
        if behind.starts_with(c) {
            (shown, at) = (&shown[c.len_utf8()..], at + c.len_utf8());
            continue;
        }
        let name = behind
            .strip_prefix(':')
            .and_then(|name| name.split_once(':'));
        let emoji = name.and_then(|(name, _)| emojis::get_by_shortcode(name));
        let (Some((name, behind)), Some(emoji)) = (name, emoji) else {
            return false;
        };
        let Some(rest) = shown.strip_prefix(emoji.as_str()) else {
            return false;
        };
        if said[..at].ends_with(letter) || behind.starts_with(letter) {
            return false;
        }
        (shown, at) = (rest, at + name.len() + 2);
    }
    at == said.len()
}

#[test]
fn names_of_emoji_become_emoji_as_separate_words() {
    for (said, shown) in [
        ("hi :x: (:tada:), :nobody:", "hi ❌ (🎉), :nobody:"),
        ("10:100:30 std::x::y a:x:b", "10:100:30 std::x::y a:x:b"),
    ] {
        let message = heard(said);
        let Action::Post { body, .. } = &message.action else {
            panic!("a message");
        };
        assert_eq!(body.to_plain(), shown);
        assert!(draws(shown, said));
    }
    assert!(!draws("a❌b", "a:x:b") && !draws("❌", ":o:") && !draws("", ":x:"));
}

/// The message of an event of Matterbridge.
fn heard(text: &str) -> Message {
    let object = json!({"text": text, "username": "bob", "account": "irc.a", "timestamp": "2026-11-22T12:06:31.6Z"});
    let event = api::read(object.to_string().as_bytes()).unwrap();
    let event_id = arrival(&Place::new("mb", "gw"), &event, Millis(0), |_| false).unwrap();
    match event_id.payload {
        inbox::ArrivalContent::Message(message) => *message,
        other => panic!("{other:?}"),
    }
}

/// What a client shows of the HTML of a text without markup: words and lines.
fn seen(html: &str) -> String {
    let lines = html.replace("<br>", "\n").replace("<p>", "\n");
    let text = lines.replace("</p>", "\n");
    assert!(!text.contains(['<', '>']), "{html}");
    let plain = text.replace("&lt;", "<").replace("&gt;", ">");
    let plain = plain.replace("&quot;", "\"").replace("&#39;", "'");
    squeezed(&plain.replace("&amp;", "&"))
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Texts that once mentioned somebody, or would without the separator.
#[test]
fn c02_the_grammars_find_mentions() {
    for (text, network) in [
        ("@bob", "Mattermost"),
        ("<!here>", "Slack"),
        ("a@bob hi", "Discord"),
        ("[x](tg://user?id=1)", "Telegram"),
        ("[x](TG:user?id=1)", "Telegram"),
        ("[x](tg://user/?a=b&id=1#x)", "Telegram"),
        ("[x](t\\g:u\\ser?id=1)", "Telegram"),
        ("[x](tg&#58;us&#x65;r?id=1)", "Telegram"),
        ("x@**Ann B**", "Zulip"),
        ("*id1", "VK"),
    ] {
        assert_eq!(caller(text), Some(network), "{text}");
    }
    for text in [
        "tg:///user?id=1",
        "tg:user?id=x&id=1",
        "tg:user?a#id=1",
        "tg:users?id=1",
        "tg:user?id=0",
    ] {
        assert_eq!(caller(text), None, "{text}");
    }
    assert!(
        PEOPLE
            .iter()
            .all(|name| names(&format!("@\u{200b}{name}"), name) || name.contains(' '))
    );
    assert_eq!(emojized("10:100:30 ::x: :no: :x"), "10🙂30 :🙂 :no: :x");
}
