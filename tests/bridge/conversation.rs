//! One conversation on every silo, compared with a text file: what people read in the channel at the end, and what
//! arrives in the room. `FOOTBRIDGE_GOLDEN=rewrite` writes the files anew.

use std::{fmt::Write as _, fs, path::Path};

use footbridge_core::{
    message::{Action, Message, Style},
    text::{
        Body,
        html::{Dialect, body_from_html},
        html_from_body,
    },
};
use footbridge_silo::{
    KINDS,
    capabilities::{Feature, SiloKind, Support},
};
use footbridge_simulators::channel::UserAction;
use footbridge_store::RemoteId;

use crate::silo_contract::{Network, Registered, TestBridge};

/// Formatting of every kind.
const FORMATTED: &str = "<p>a <strong>b</strong> <em>c</em> <code>d</code> <del>e</del></p>\
    <pre><code class=\"language-rust\">fn x() {}\n</code></pre><blockquote><p>quoted</p></blockquote>\
    <ul><li>one</li><li>two</li></ul><p><a href=\"https://example.org/a\">there</a></p>";
/// A display name that contains markup, a mention and control characters.
const NASTY: &str = "**Bob** @all\u{202e}\n<b>";

fn post(body: Body, style: Style, reply_to: Option<&str>, thread: Option<&str>) -> Action {
    Action::Post {
        body,
        style,
        reply_to: reply_to.map(RemoteId::from),
        thread: thread.map(RemoteId::from),
    }
}

fn plain(text: &str, style: Style) -> Action {
    post(Body::plain(text), style, None, None)
}

/// The actions in the room, in this order, each after the one before was delivered.
fn in_the_room() -> Vec<(&'static str, &'static str, Action)> {
    let formatted = body_from_html(FORMATTED, Dialect::Matrix);
    let target = |id: &str| RemoteId::from(id);
    vec![
        ("$0", "Ann", plain("good mroning", Style::Text)),
        (
            "$1",
            "Ann",
            plain("good *morning* [x](y) <b> #12", Style::Text),
        ),
        ("$2", "Ann", post(formatted, Style::Text, None, None)),
        ("$3", "Ann", plain("waves", Style::Emote)),
        ("$4", "A machine", plain("build 7 is green", Style::Notice)),
        (
            "$5",
            "Ann",
            post(Body::plain("an answer"), Style::Text, Some("$1"), None),
        ),
        (
            "$6",
            "Ann",
            post(
                Body::plain("in the thread"),
                Style::Text,
                Some("$1"),
                Some("$1"),
            ),
        ),
        (
            "$7",
            "Ann",
            plain("@all @here @channel @everyone @bob <!here>", Style::Text),
        ),
        ("$8", NASTY, plain("hello 🎉", Style::Text)),
        ("$9", "Ann", plain("to be deleted", Style::Text)),
        (
            "$10",
            "Ann",
            Action::Edit {
                target: target("$0"),
                body: Body::plain("good morning"),
                style: Style::Text,
            },
        ),
        (
            "$11",
            "Ann",
            Action::Delete {
                target: target("$9"),
            },
        ),
        (
            "$12",
            "Ann",
            Action::Unsupported {
                summary: "sent an image: cat.png (2 MB)".to_owned(),
            },
        ),
        (
            "$13",
            "",
            Action::Bridge {
                text: "The bridge has something to say.".to_owned(),
                about: None,
            },
        ),
    ]
}

/// The actions in the channel; those that the network does not have are left out, and named in the output.
async fn in_the_channel(network: &dyn Network, bridge: &TestBridge, out: &mut String) {
    let first = network.say("good **morning** `x` @ann @room <b>");
    hear(bridge, out, "says something").await;
    let second = network.say("```rust\nfn x() {}\n```");
    hear(bridge, out, "says something in code").await;
    let acts = [
        ("does something", UserAction::Emote("waves")),
        ("answers", UserAction::Reply(&first, "an answer")),
        (
            "writes in a thread",
            UserAction::Thread(&first, "in the thread"),
        ),
        ("edits", UserAction::Edit(&first, "good morning")),
        ("deletes", UserAction::Delete(&second)),
        ("sends a file", UserAction::File("cat.png", "")),
        ("joins", UserAction::Join),
    ];
    for (what, act) in acts {
        if network.act(act).is_some() {
            hear(bridge, out, what).await;
        } else {
            writeln!(out, "- {what}: not possible or not reported there").unwrap();
        }
    }
}

async fn hear(bridge: &TestBridge, out: &mut String, what: &str) {
    let received = bridge.received(1).await.remove(0);
    writeln!(out, "- {what}: {}", told(&received)).unwrap();
}

/// A message as the room gets it, without what only the room knows.
fn told(message: &Message) -> String {
    let who = &message.sender.name;
    match &message.action {
        Action::Post {
            body,
            style,
            reply_to,
            thread,
        } => {
            let reply = reply_to.as_ref().map_or("", |_| ", an answer");
            let thread = thread.as_ref().map_or("", |_| ", in a thread");
            let files = message.files.iter();
            let files = files.fold(String::new(), |files, file| {
                files + " [" + file.in_words().as_str() + "]"
            });
            format!(
                "{who} ({style:?}{reply}{thread}): {}{files}",
                html_from_body(body)
            )
        }
        Action::Edit { body, .. } => format!("{who} (an edit): {}", html_from_body(body)),
        Action::Delete { .. } => format!("{who} (a deletion)"),
        Action::React { key, .. } => format!("{who} (a reaction): {key}"),
        Action::Unreact { key, .. } => format!("{who} (no reaction any more): {key}"),
        Action::Unsupported { summary } => format!("{who} (a notice): {summary}"),
        Action::System { summary } => format!("(a system message): {summary}"),
        Action::Bridge { text, .. } => format!("(the bridge): {text}"),
        Action::Marker { key, .. } => format!("(the bridge, a sign): {key}"),
    }
}

/// The text with its times replaced.
fn timeless(text: &str) -> String {
    let is_digit = |c: char| c.is_ascii_digit();
    let mut out = String::new();
    for word in text.split_inclusive([' ', '\n']) {
        let figures = word.chars().filter(|c| is_digit(*c)).count();
        let date = figures == 8 && word.matches('-').count() == 2;
        let time = figures == 4 && word.contains(':');
        out.push_str(match (date, time) {
            (true, _) => "<date> ",
            (_, true) => "<time> ",
            _ => word,
        });
    }
    out
}

/// Runs the conversation, and compares.
async fn hold(network: &dyn Network, kind: &SiloKind) {
    let name = kind.word;
    let bridge = TestBridge::start(network).await;
    for (event, who, action) in in_the_room() {
        bridge.room_event_by(event, who, action).await;
        bridge.deliver().await;
    }
    let mut out = "In the channel people read:\n".to_owned();
    for line in network.read() {
        let indent = if line.starts_with('↳') { "  " } else { "" };
        writeln!(out, "- {indent}{}", line.replace('\n', "\n  ")).unwrap();
    }
    out.push_str("\nIn the channel somebody ..., and into the room comes:\n");
    in_the_channel(network, &bridge, &mut out).await;
    bridge.receives_nothing_more().await;
    let seen = timeless(&out);
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/bridge/golden")
        .join(format!("conversation-{name}.txt"));
    if std::env::var("FOOTBRIDGE_GOLDEN").is_ok_and(|wish| wish == "rewrite") {
        fs::write(&file, &seen).unwrap();
        return;
    }
    let golden = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(seen, golden, "{}", file.display());
}

/// One conversation with each kind of silo.
#[tokio::test]
async fn a_conversation_with_every_silo() {
    for kind in KINDS {
        hold(&Registered::open(kind.word, "").await, kind).await;
    }
}

/// Edits, deletions and threads work as the silo's capability table says.
async fn is_as_the_table_says(network: &dyn Network, kind: &SiloKind) {
    let bridge = TestBridge::start(network).await;
    for (event, words) in [("$1", "first"), ("$2", "second")] {
        bridge.room_message(event, words).await;
    }
    let target = RemoteId::from;
    let (body, style) = (Body::plain("changed"), Style::Text);
    bridge.deliver().await;
    let acts = [
        (
            Feature::Edit,
            "changed",
            Action::Edit {
                target: target("$1"),
                body,
                style,
            },
        ),
        (
            Feature::Deletion,
            "has deleted",
            Action::Delete {
                target: target("$2"),
            },
        ),
        (
            Feature::Thread,
            "below",
            post(Body::plain("below"), style, None, Some("$1")),
        ),
        (Feature::Emote, "waves", plain("waves", Style::Emote)),
        (
            Feature::File,
            "cat.png",
            Action::Unsupported {
                summary: "sent cat.png".to_owned(),
            },
        ),
    ];
    for (number, (what, sign, action)) in acts.into_iter().enumerate() {
        let before = network.read();
        bridge.room_event(&format!("$act{number}"), action).await;
        bridge.deliver().await;
        let after = network.read();
        let more = after.len().cast_signed() - before.len().cast_signed();
        let shown = after.iter().any(|line| line.contains(sign));
        let in_thread = after.last().is_some_and(|line| line.contains('↳'));
        let marked = after.last().is_some_and(|line| line.contains('↪'));
        let is_so = match (what, kind.of(what).unwrap().to_channel) {
            (Feature::Edit, Support::Full(_)) => more == 0 && shown,
            (Feature::Deletion, Support::Full(_)) => more == -1 && !shown,
            (Feature::Thread, Support::Full(_)) => in_thread,
            (Feature::Thread, Support::Fallback(_)) => marked,
            (_, Support::Full(_) | Support::Fallback(_)) => more == 1 && shown,
            (_, Support::No(_)) => more == 0,
        };
        assert!(is_so, "{what:?} to the channel: {after:?}");
    }
    comes_back_as_the_table_says(network, &bridge, kind).await;
}

async fn comes_back_as_the_table_says(network: &dyn Network, bridge: &TestBridge, kind: &SiloKind) {
    let (first, second) = (network.say("one"), network.say("two"));
    bridge.received(2).await;
    let acts = [
        (Feature::Edit, UserAction::Edit(&first, "changed")),
        (Feature::Deletion, UserAction::Delete(&second)),
        (Feature::Thread, UserAction::Thread(&first, "below")),
        (Feature::Reply, UserAction::Reply(&first, "answer")),
        (Feature::Emote, UserAction::Emote("waves")),
        (Feature::File, UserAction::File("cat.png", "")),
        (Feature::System, UserAction::Join),
    ];
    for (what, act) in acts {
        let crossing = kind.of(what).unwrap().to_room;
        if network.act(act).is_none() {
            let is_no = matches!(crossing, Support::No(_));
            assert!(is_no, "{what:?}: the network has no such thing");
            continue;
        }
        if matches!(crossing, Support::No(_)) {
            bridge.receives_nothing_more().await;
            continue;
        }
        let Message { action, files, .. } = bridge.received(1).await.remove(0);
        let whole = match (what, &action) {
            (Feature::Edit, Action::Edit { .. })
            | (Feature::Deletion, Action::Delete { .. })
            | (Feature::System, Action::System { .. }) => true,
            (Feature::Thread, Action::Post { thread, .. }) => thread.is_some(),
            (Feature::Reply, Action::Post { reply_to, .. }) => reply_to.is_some(),
            (Feature::Emote, Action::Post { style, .. }) => *style == Style::Emote,
            (Feature::File, Action::Post { .. }) => files.len() == 1,
            _ => false,
        };
        assert_eq!(
            whole,
            matches!(crossing, Support::Full(_)),
            "{what:?}: {action:?}"
        );
    }
}

#[tokio::test]
async fn messages_are_relayed_as_the_capability_tables_say() {
    for kind in KINDS {
        is_as_the_table_says(&Registered::open(kind.word, "").await, kind).await;
    }
}

/// The page of each silo shows its table between two markers.
#[test]
fn the_pages_of_the_silos_show_their_tables() {
    let rewrites = std::env::var("FOOTBRIDGE_GOLDEN").is_ok_and(|wish| wish == "rewrite");
    for kind in KINDS {
        let file = format!("src/silo/{}/README.md", kind.word);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let page = fs::read_to_string(&file).unwrap();
        let begin = format!("<!-- what crosses: {} -->\n", kind.word);
        let (before, rest) = page
            .split_once(&begin)
            .unwrap_or_else(|| panic!("no {begin}"));
        let (shown, after) = rest.split_once("<!-- end -->").unwrap();
        let table = kind.table();
        if rewrites {
            fs::write(&file, format!("{before}{begin}{table}<!-- end -->{after}")).unwrap();
        } else {
            assert_eq!(
                shown, table,
                "{}: FOOTBRIDGE_GOLDEN=rewrite writes it",
                kind.word
            );
        }
    }
}
