//! Conversion of Matrix events into messages, and of messages into Matrix events.

use footbridge_core::{
    file::File,
    message::{Action, Sender, Style},
    outlet::{Outgoing, Plan, Step},
    plan,
    text::{Block, Body, Inline},
};
use footbridge_store::{Copy, Place};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(event_type: &str, content: Value) -> Converted {
    message_from_event(&Incoming {
        event_id: RemoteId::from("$e"),
        sender: "@al:b.example".to_owned(),
        sender_name: "Al".to_owned(),
        sent_at: Millis(1),
        event_type: event_type.to_owned(),
        content,
        redacts: None,
    })
}

fn action(event_type: &str, content: Value) -> Action {
    match read(event_type, content) {
        Converted::Message(message) => message.action,
        Converted::Skip(rule) => panic!("ignored by {rule}"),
    }
}

fn post(content: Value) -> (Body, Style, Option<RemoteId>, Option<RemoteId>) {
    match action("m.room.message", content) {
        Action::Post {
            body,
            style,
            reply_to,
            thread,
        } => (body, style, reply_to, thread),
        _ => panic!("no post"),
    }
}

fn summary(event_type: &str, content: Value) -> String {
    match action(event_type, content) {
        Action::Unsupported { summary } => summary,
        _ => panic!("not unsupported"),
    }
}

#[test]
fn texts_and_emotes_are_posts() {
    let (body, style, ..) = post(json!({ "msgtype": "m.text", "body": "a <b>" }));
    assert_eq!((body, style), (Body::plain("a <b>"), Style::Text));
    let (body, style, ..) = post(json!({ "msgtype": "m.emote", "body": "**x**",
        "format": "org.matrix.custom.html", "formatted_body": "<b>x</b>" }));
    assert_eq!(
        (html_from_body(&body).as_str(), style),
        ("<strong>x</strong>", Style::Emote)
    );
    let (body, ..) = post(json!({ "msgtype": "m.text", "body": "x",
        "format": "org.matrix.custom.html", "formatted_body": "<script></script>" }));
    assert_eq!(body, Body::plain("x"));
    let (body, ..) = post(json!({ "msgtype": "m.text", "body": "x",
        "format": "org.matrix.custom.html", "formatted_body": "<div>".repeat(10_000) }));
    assert_eq!(body, Body::plain("x"));
}

/// The specification, "`m.room.message` msgtypes": the body of an unknown type is shown.
#[test]
fn a_message_of_an_unknown_kind_is_relayed_as_its_body() {
    for kind in [
        "nic.custom.confetti",
        "io.element.effect.snowfall",
        "im.fluffychat.hearts",
    ] {
        let content = json!({ "msgtype": kind, "body": "**hurra** 🎉", "format": "org.matrix.custom.html",
            "formatted_body": "<b>hurra</b> 🎉", "m.relates_to": { "m.in_reply_to": { "event_id": "$a" } } });
        let (body, style, reply_to, _) = post(content.clone());
        assert_eq!(
            (html_from_body(&body).as_str(), style),
            ("<strong>hurra</strong> 🎉", Style::Text)
        );
        assert_eq!(reply_to, Some(RemoteId::from("$a")));
        let edit = json!({ "msgtype": kind, "body": "* x", "m.new_content": { "msgtype": kind, "body": "x" },
            "m.relates_to": { "rel_type": "m.replace", "event_id": "$a" } });
        let Action::Edit { body, style, .. } = action("m.room.message", edit) else {
            panic!("no edit");
        };
        assert_eq!((body, style), (Body::plain("x"), Style::Text));
    }
}

/// MSC4274.
#[test]
fn the_files_of_a_gallery_are_files() {
    let item = |kind: &str, name: &str| json!({ "itemtype": kind, "body": name, "url": format!("mxc://b.example/{}", name.len()), "info": { "size": 5 } });
    let mut titled = item("m.image", "my cat");
    titled["filename"] = json!("cat.png");
    let mut nowhere = item("m.video", "lost.mp4");
    nowhere["url"] = json!("https://b.example/x");
    let items = json!([
        item("m.image", "a.png"),
        titled,
        nowhere,
        item("m.odd", "b"),
        3
    ]);
    for kind in ["m.gallery", "dm.filament.gallery"] {
        let content = json!({ "msgtype": kind, "body": "look", "itemtypes": items });
        let edit = json!({ "msgtype": "m.text", "body": "* look", "m.new_content": content,
            "m.relates_to": { "rel_type": "m.replace", "event_id": "$a" } });
        for content in [content, edit] {
            let Converted::Message(message) = read("m.room.message", content) else {
                panic!("ignored");
            };
            let names: Vec<&str> = message
                .files
                .iter()
                .map(|file| file.name.as_str())
                .collect();
            assert_eq!(names, ["a.png", "cat.png", "b"]);
            let (Action::Post { body, .. } | Action::Edit { body, .. }) = message.action else {
                panic!("no text");
            };
            assert_eq!(
                body.to_plain(),
                "look\n\nmy cat\n\n📎 a video: lost.mp4 (5 bytes)"
            );
        }
    }
    let others = |count: usize| {
        let one = |at| json!({ "itemtype": "m.image", "body": "a.png", "url": format!("mxc://b.example/{at}") });
        (0..count).map(one).collect::<Vec<_>>()
    };
    let mut many = others(22);
    // A second copy of a file adds nothing.
    many.extend(others(20));
    let Converted::Message(message) = read(
        "m.room.message",
        json!({ "msgtype": "m.gallery", "body": "", "itemtypes": many }),
    ) else {
        panic!("ignored");
    };
    assert_eq!(message.files.len(), 20);
    assert!(matches!(message.action, Action::Post { body, .. } if body.0.len() == 2));
    let Converted::Message(message) = read(
        "m.room.message",
        json!({ "msgtype": "m.gallery", "body": "", "itemtypes": others(50) }),
    ) else {
        panic!("ignored");
    };
    assert!(
        matches!(message.action, Action::Post { body, .. } if body.to_plain().ends_with("and 10 more"))
    );
}

#[test]
fn relations_are_read() {
    let id = |id: &str| Some(RemoteId::from(id));
    let (body, _, reply_to, thread) = post(json!({ "msgtype": "m.text",
        "body": "> <@x:y> old\n> older\n\nnew", "m.relates_to": { "m.in_reply_to": { "event_id": "$1" } } }));
    assert_eq!(
        (body, reply_to, thread),
        (Body::plain("new"), id("$1"), None)
    );
    let (.., reply_to, thread) = post(json!({ "msgtype": "m.text", "body": "x", "m.relates_to": {
        "rel_type": "m.thread", "event_id": "$root", "is_falling_back": true,
        "m.in_reply_to": { "event_id": "$1" } } }));
    assert_eq!((reply_to, thread), (None, id("$root")));
    let (.., reply_to, thread) = post(json!({ "msgtype": "m.text", "body": "x", "m.relates_to": {
        "rel_type": "m.thread", "event_id": "$root", "m.in_reply_to": { "event_id": "$1" } } }));
    assert_eq!((reply_to, thread), (id("$1"), id("$root")));
    let (body, ..) = post(json!({ "msgtype": "m.text", "body": "> <@x:y> quoted on purpose" }));
    assert_eq!(body, Body::plain("> <@x:y> quoted on purpose"));
}

#[test]
fn edits_and_redactions_name_their_target() {
    let edit = action(
        "m.room.message",
        json!({ "msgtype": "m.text", "body": "* new",
        "m.new_content": { "msgtype": "m.text", "body": "new" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": "$1" } }),
    );
    assert_eq!(
        edit,
        Action::Edit {
            target: RemoteId::from("$1"),
            body: Body::plain("new"),
            style: Style::Text
        }
    );
    let delete = Action::Delete {
        target: RemoteId::from("$1"),
    };
    let event = Incoming {
        event_id: RemoteId::from("$e"),
        sender: String::new(),
        sender_name: String::new(),
        sent_at: Millis(1),
        event_type: "m.room.redaction".to_owned(),
        content: json!({}),
        redacts: Some(RemoteId::from("$1")),
    };
    assert!(
        matches!(message_from_event(&event), Converted::Message(message) if message.action == delete)
    );
    assert_eq!(
        format!("{event:?}"),
        "Incoming { event_id: RemoteId(\"$e\"), .. }"
    );
}

#[test]
fn unsupported_content_becomes_one_line() {
    let table = [
        (
            "m.room.message",
            json!({ "msgtype": "m.image", "body": "cat.png", "info": { "size": 2_123_456 } }),
            "sent an image: cat.png (2.1 MB)",
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.file", "body": "look!\nhere", "filename": "a.pdf", "info": { "size": 999 } }),
            "sent a file: a.pdf (999 bytes) — look! here",
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.video", "body": "v.mp4", "info": { "size": 123_456_789, "duration": 65_000 } }),
            "sent a video: v.mp4 (1:05, 123 MB)",
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.audio", "body": "x.ogg", "org.matrix.msc3245.voice": {}, "info": { "duration": 9_000 } }),
            "sent a voice message (0:09)",
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.audio", "body": "x.ogg", "info": { "size": 1000 } }),
            "sent an audio file: x.ogg (1.0 kB)",
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.location", "body": "Home", "geo_uri": "geo:1,2" }),
            "shared a location: Home, 1,2",
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.odd", "body": " " }),
            "sent something that cannot be shown here: m.odd",
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.gallery", "itemtypes": [] }),
            "sent something that cannot be shown here: m.gallery",
        ),
        (
            "m.room.message",
            json!({ "body": "x" }),
            "sent a message without a type: x",
        ),
        (
            "m.sticker",
            json!({ "body": "wave" }),
            "sent a sticker: wave",
        ),
        (
            "org.matrix.msc3381.poll.start",
            json!({ "org.matrix.msc3381.poll.start": {
            "question": { "org.matrix.msc1767.text": "Tea?" },
            "answers": [{ "org.matrix.msc1767.text": "Yes" }, { "org.matrix.msc1767.text": "No" }] } }),
            "started a poll: Tea? (Yes / No)",
        ),
        (
            "m.poll.start",
            json!({ "m.poll": { "question": { "m.text": [{ "body": "Tea?" }] }, "answers": 3 } }),
            "started a poll: Tea?",
        ),
        (
            "m.poll.end",
            json!({ "m.poll.end": {}, "m.text": [{ "body": "The poll has ended. Top answer: Yes" }] }),
            "closed a poll: The poll has ended. Top answer: Yes",
        ),
        ("m.call.invite", json!({ "call_id": "1" }), "started a call"),
        (
            "org.example.thing\u{202e}",
            json!({ "a": 1 }),
            "sent something that cannot be shown here: org.example.thing",
        ),
    ];
    for (event_type, content, expected) in table {
        assert_eq!(summary(event_type, content), expected);
    }
}

#[test]
fn content_that_is_never_relayed_is_skipped_by_a_named_rule() {
    // P17, C18
    let table = [
        (
            "m.room.message",
            json!({ "msgtype": "m.server_notice", "body": "x" }),
            "notice",
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.key.verification.request", "body": "x" }),
            "verification",
        ),
        ("m.room.message", json!({}), "redacted"),
        ("m.room.message", json!("x"), "redacted"),
        (
            "m.room.message",
            json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$1" } }),
            "edit-without-content",
        ),
        (
            "m.room.message",
            json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": 1 } }),
            "edit-without-target",
        ),
        ("m.room.redaction", json!({}), "redaction-without-target"),
        ("m.room.encrypted", json!({ "a": 1 }), "undecrypted"),
        ("m.room.member", json!({ "membership": "join" }), "state"),
        ("m.space.child", json!({ "via": [] }), "state"),
        (
            "m.key.verification.start",
            json!({ "a": 1 }),
            "verification",
        ),
        ("m.call.candidates", json!({ "a": 1 }), "call-signalling"),
        ("m.poll.response", json!({ "a": 1 }), "poll-votes"),
        ("m.beacon", json!({ "a": 1 }), "live-location"),
        ("m.receipt", json!({ "a": 1 }), "receipts"),
        ("m.sticker", json!({}), "redacted"),
    ];
    for (event_type, content, rule) in table {
        assert_eq!(
            read(event_type, content),
            Converted::Skip(rule),
            "{event_type}"
        );
    }
}

fn outgoing(action: Action, copies: &[&str]) -> Outgoing {
    Outgoing {
        key: "k".to_owned(),
        to: Place::room("!r:b.example"),
        message: Message {
            sender: Sender {
                id: "5f1e".to_owned(),
                name: "Bo*b*<i>".to_owned(),
                avatar: None,
            },
            sent_at: Millis(1),
            files: Vec::new(),
            action,
        },
        copies: copies
            .iter()
            .map(|id| Copy {
                remote: RemoteId::from(*id),
                thread: None,
                sent_at: Millis(1),
                file: None,
            })
            .collect(),
        permalink: None,
        late: false,
    }
}

fn plan(outgoing: &Outgoing) -> Plan {
    plan::plan(&CAPABILITIES, outgoing, Millis(1))
}

fn steps(outgoing: &Outgoing) -> Vec<Step> {
    match plan(outgoing) {
        Plan::Steps(steps) => steps,
        Plan::Skip(rule) => panic!("skipped by {rule}"),
    }
}

fn said(text: &str, style: Style) -> Action {
    Action::Post {
        body: Body::plain(text),
        style,
        reply_to: None,
        thread: None,
    }
}

fn event_of(step: &Step) -> Value {
    match step {
        Step::Post {
            content,
            thread,
            reply_to,
        } => event_content(content, thread.as_ref(), reply_to.as_ref(), None),
        Step::Edit {
            content, target, ..
        } => event_content(content, None, None, Some(target)),
        _ => panic!("nothing to say"),
    }
}

#[test]
fn c03_every_event_states_that_it_mentions_nobody() {
    // C03
    let all = [
        (said("@room hi\n\nBob", Style::Text), vec![]),
        (said("waves", Style::Emote), vec![]),
        (
            Action::Edit {
                target: RemoteId::from("1"),
                body: Body::plain("@room"),
                style: Style::Text,
            },
            vec!["$1"],
        ),
        (
            Action::Unsupported {
                summary: "sent @room".to_owned(),
            },
            vec![],
        ),
        (
            Action::Bridge {
                text: "@room".to_owned(),
                about: None,
            },
            vec![],
        ),
    ];
    for (action, copies) in all {
        for step in steps(&outgoing(action, &copies)) {
            let event = event_of(&step);
            assert_eq!(event["m.mentions"], json!({}));
            if let Some(new) = event.get("m.new_content") {
                assert_eq!(new["m.mentions"], json!({}));
            }
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn messages_become_events() {
    let event = |action, copies: &[&str]| {
        let steps = steps(&outgoing(action, copies));
        assert_eq!(steps.len(), 1);
        serde_json::to_string_pretty(&event_of(&steps[0])).unwrap()
    };
    insta::assert_snapshot!(event(said("hi & bye", Style::Text), &[]), @r##"
    {
      "body": "Bo*b*<i>: hi & bye",
      "com.beeper.per_message_profile": {
        "displayname": "Bo*b*<i>",
        "has_fallback": true,
        "id": "5f1e"
      },
      "format": "org.matrix.custom.html",
      "formatted_body": "<strong data-mx-profile-fallback>Bo*b*&lt;i&gt;: </strong>hi &amp; bye",
      "m.mentions": {},
      "msgtype": "m.text"
    }
    "##);
    insta::assert_snapshot!(event(said("waves", Style::Emote), &[]), @r##"
    {
      "body": "* Bo*b*<i> waves",
      "com.beeper.per_message_profile": {
        "displayname": "Bo*b*<i>",
        "id": "5f1e"
      },
      "format": "org.matrix.custom.html",
      "formatted_body": "* <strong>Bo*b*&lt;i&gt;</strong> waves",
      "m.mentions": {},
      "msgtype": "m.text"
    }
    "##);
    insta::assert_snapshot!(event(Action::Unsupported { summary: "sent an image: a.png".to_owned() }, &[]), @r##"
    {
      "body": "Bo*b*<i> sent an image: a.png",
      "com.beeper.per_message_profile": {
        "displayname": "Bo*b*<i>",
        "id": "5f1e"
      },
      "format": "org.matrix.custom.html",
      "formatted_body": "<strong>Bo*b*&lt;i&gt;</strong> sent an image: a.png",
      "m.mentions": {},
      "msgtype": "m.notice"
    }
    "##);
    insta::assert_snapshot!(event(Action::System { summary: "Bob <joined>.".to_owned() }, &[]), @r##"
    {
      "body": "Bob <joined>.",
      "m.mentions": {},
      "msgtype": "m.notice"
    }
    "##);
    insta::assert_snapshot!(event(Action::Bridge { text: "Hello.".to_owned(), about: None }, &[]), @r##"
    {
      "body": "Hello.",
      "m.mentions": {},
      "msgtype": "m.notice"
    }
    "##);
    insta::assert_snapshot!(event(Action::Edit { target: RemoteId::from("1"), body: Body::plain("new"), style: Style::Text }, &["$1"]), @r##"
    {
      "body": "* Bo*b*<i>: new",
      "com.beeper.per_message_profile": {
        "displayname": "Bo*b*<i>",
        "has_fallback": true,
        "id": "5f1e"
      },
      "format": "org.matrix.custom.html",
      "formatted_body": "* <strong data-mx-profile-fallback>Bo*b*&lt;i&gt;: </strong>new",
      "m.mentions": {},
      "m.new_content": {
        "body": "Bo*b*<i>: new",
        "com.beeper.per_message_profile": {
          "displayname": "Bo*b*<i>",
          "has_fallback": true,
          "id": "5f1e"
        },
        "format": "org.matrix.custom.html",
        "formatted_body": "<strong data-mx-profile-fallback>Bo*b*&lt;i&gt;: </strong>new",
        "m.mentions": {},
        "msgtype": "m.text"
      },
      "m.relates_to": {
        "event_id": "$1",
        "rel_type": "m.replace"
      },
      "msgtype": "m.text"
    }
    "##);
    insta::assert_snapshot!(event(Action::Post { body: Body::plain("x"), style: Style::Text, reply_to: None, thread: Some(RemoteId::from("1")) }, &["$root"]), @r##"
    {
      "body": "Bo*b*<i>: x",
      "com.beeper.per_message_profile": {
        "displayname": "Bo*b*<i>",
        "has_fallback": true,
        "id": "5f1e"
      },
      "format": "org.matrix.custom.html",
      "formatted_body": "<strong data-mx-profile-fallback>Bo*b*&lt;i&gt;: </strong>x",
      "m.mentions": {},
      "m.relates_to": {
        "event_id": "$root",
        "is_falling_back": true,
        "m.in_reply_to": {
          "event_id": "$root"
        },
        "rel_type": "m.thread"
      },
      "msgtype": "m.text"
    }
    "##);
    insta::assert_snapshot!(event(Action::Post { body: Body::plain("x"), style: Style::Text, reply_to: Some(RemoteId::from("1")), thread: None }, &["$1", "$2"]), @r##"
    {
      "body": "Bo*b*<i>: x",
      "com.beeper.per_message_profile": {
        "displayname": "Bo*b*<i>",
        "has_fallback": true,
        "id": "5f1e"
      },
      "format": "org.matrix.custom.html",
      "formatted_body": "<strong data-mx-profile-fallback>Bo*b*&lt;i&gt;: </strong>x",
      "m.mentions": {},
      "m.relates_to": {
        "m.in_reply_to": {
          "event_id": "$2"
        }
      },
      "msgtype": "m.text"
    }
    "##);
}

#[test]
fn a_reaction_has_its_target_and_its_emoji() {
    let reacted = |key: &str| {
        action(
            "m.reaction",
            json!({ "shortcode": "party", "m.relates_to": {
                "rel_type": "m.annotation", "event_id": "$1", "key": key } }),
        )
    };
    for (key, said) in [
        ("👍\u{fe0f}", "👍"),
        ("well done", "well done"),
        ("mxc://a/b", "party"),
    ] {
        let expected = Action::React {
            target: RemoteId::from("$1"),
            key: said.to_owned(),
        };
        assert_eq!(reacted(key), expected, "{key}");
    }
}

#[test]
fn c09_a_reply_to_an_undelivered_message_quotes_nothing_and_points_nowhere() {
    for (reply_to, thread) in [(Some("$secret:x"), None), (None, Some("$secret:x"))] {
        let answer = outgoing(
            Action::Post {
                body: Body::plain("indeed"),
                style: Style::Text,
                reply_to: reply_to.map(RemoteId::from),
                thread: thread.map(RemoteId::from),
            },
            &[],
        );
        let event = event_of(&steps(&answer)[0]);
        assert_eq!(event.get("m.relates_to"), None);
        assert!(!event.to_string().contains("secret"), "{event}");
    }
}

#[test]
fn a_reply_to_a_threaded_copy_joins_its_thread() {
    let mut reply = outgoing(
        Action::Post {
            body: Body::plain("x"),
            style: Style::Text,
            reply_to: Some(RemoteId::from("1")),
            thread: None,
        },
        &["$1"],
    );
    reply.copies[0].thread = Some(RemoteId::from("$root"));
    let event = event_of(&steps(&reply)[0]);
    assert_eq!(
        event["m.relates_to"],
        json!({ "rel_type": "m.thread", "event_id": "$root",
        "is_falling_back": false, "m.in_reply_to": { "event_id": "$1" } })
    );
}

#[test]
fn edits_and_deletions_touch_every_copy() {
    let target = RemoteId::from("1");
    let edit = Action::Edit {
        target: target.clone(),
        body: Body::plain("new"),
        style: Style::Text,
    };
    let delete = Action::Delete { target };
    let shape = |action: &Action, copies: &[&str]| match plan(&outgoing(action.clone(), copies)) {
        Plan::Skip(rule) => rule.to_string(),
        Plan::Steps(steps) => steps
            .iter()
            .map(|step| match step {
                Step::Post { .. } => "post".to_owned(),
                Step::Edit { target, .. } => format!("replace {target}"),
                Step::Delete { target, .. } => format!("remove {target}"),
                Step::SendFile { .. } => "file".to_owned(),
                Step::React { .. } | Step::Unreact { .. } => "reaction".to_owned(),
                Step::Bundle { .. } | Step::EditPart { .. } => "shared".to_owned(),
            })
            .collect::<Vec<_>>()
            .join(", "),
    };
    assert_eq!(shape(&edit, &[]), "unknown-target");
    assert_eq!(shape(&edit, &["$1", "$2"]), "replace $1, remove $2");
    assert_eq!(shape(&delete, &[]), "unknown-target");
    assert_eq!(shape(&delete, &["$1", "$2"]), "remove $1, remove $2");
    let long = Action::Edit {
        target: RemoteId::from("1"),
        body: Body::plain(&"word \n\n".repeat(4000)),
        style: Style::Text,
    };
    assert!(shape(&long, &["$1"]).starts_with("replace $1, post"));
}

#[test]
fn a_late_message_is_marked() {
    let mut late = outgoing(said("hi", Style::Text), &[]);
    late.late = true;
    assert_eq!(event_of(&steps(&late)[0])["body"], "Bo*b*<i> (delayed): hi");
}

#[test]
fn c12_no_event_is_too_large() {
    // C12
    for text in [
        "word ".repeat(40_000),
        "\"\\<&\u{e9}".repeat(20_000),
        "\n\nline".repeat(20_000),
        "x".repeat(200_000),
        "😀".repeat(30_000),
    ] {
        for action in [
            said(&text, Style::Text),
            Action::Edit {
                target: RemoteId::from("1"),
                body: Body::plain(&text),
                style: Style::Text,
            },
        ] {
            let steps = steps(&outgoing(action, &["$1"]));
            assert!(steps.len() > 1);
            let mut all = String::new();
            for step in &steps {
                let event = event_of(step);
                let size = serde_json::to_vec(&event).unwrap().len();
                assert!(size <= 45_000, "{size}");
                let body = event.get("m.new_content").unwrap_or(&event)["body"]
                    .as_str()
                    .unwrap();
                all.push_str(body.strip_prefix("Bo*b*<i>: ").unwrap());
            }
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeezed(&all), squeezed(&text));
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "m.text",
            "m.image",
            "m.audio",
            "m.replace",
            "m.thread",
            "org.matrix.custom.html",
            "$1"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key = prop::sample::select(vec![
            "msgtype",
            "body",
            "format",
            "formatted_body",
            "m.relates_to",
            "rel_type",
            "event_id",
            "m.in_reply_to",
            "m.new_content",
            "info",
            "size",
            "duration",
            "filename",
            "question",
            "answers",
            "m.poll",
            "m.text",
            "key",
            "redacts",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6).prop_map(|pairs| pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn c24_no_event_is_too_strange(content in any_json(), event_type in prop::sample::select(vec![
        "m.room.message", "m.sticker", "m.reaction", "m.poll.start", "m.room.redaction", "x"])) {
        if let Converted::Message(message) = read(event_type, content) {
            let mut strange = outgoing(message.action, &["$1"]);
            strange.message.sender = message.sender;
            if let Plan::Steps(steps) = plan(&strange) {
                for step in steps.iter().filter(|step| !matches!(step, Step::Delete { .. })) {
                    prop_assert_eq!(&event_of(step)["m.mentions"], &json!({}));
                }
            }
        }
    }
}

#[test]
fn c03_a_mention_names_the_user_and_an_edit_mentions_nobody() {
    let ping = Inline::Ping {
        id: "@ann:example.org".to_owned(),
        name: "Ann".to_owned(),
    };
    let body = Body(vec![Block::Paragraph(vec![ping])]);
    let bob = Sender {
        id: "u1".to_owned(),
        name: "Bob".to_owned(),
        avatar: None,
    };
    let content = said_by(&bob, &body, Style::Text);
    let event = event_content(&content, None, None, None);
    let called = json!({ "user_ids": ["@ann:example.org"] });
    assert_eq!(event["m.mentions"], called);
    assert_eq!(event["body"], "Bob: Ann");
    let html = event["formatted_body"].as_str().unwrap();
    assert!(html.ends_with("<a href=\"https://matrix.to/#/@ann:example.org\">Ann</a>"));
    let edit = event_content(&content, None, None, Some(&RemoteId::from("$1")));
    assert_eq!(edit["m.mentions"], json!({}));
    assert_eq!(edit["m.new_content"]["m.mentions"], called);
}

#[test]
fn the_author_is_beside_the_text_and_in_it_for_older_clients() {
    let bob = Sender {
        id: "u1".to_owned(),
        name: "Bob".to_owned(),
        avatar: None,
    };
    let event = |style| {
        let content = said_by(&bob, &Body::plain("hi"), style);
        event_content(&content, None, None, None)
    };
    let profile = "com.beeper.per_message_profile";
    assert_eq!(
        event(Style::Text)[profile],
        json!({ "id": "u1", "displayname": "Bob", "has_fallback": true })
    );
    assert_eq!(
        event(Style::Text)["formatted_body"],
        "<strong data-mx-profile-fallback>Bob: </strong>hi"
    );
    // Without the name an emote would not say who acts.
    assert_eq!(
        event(Style::Emote)[profile],
        json!({ "id": "u1", "displayname": "Bob" })
    );
    let content = said_by(&bob, &Body::plain("Bob: hi"), Style::Text);
    let marked = event_content(&renamed(&content, "Bob (bridged)"), None, None, None);
    assert_eq!(marked["body"], "Bob (bridged): Bob: hi");
    assert_eq!(marked[profile]["displayname"], "Bob (bridged)");
    assert_eq!(
        marked["formatted_body"],
        "<strong data-mx-profile-fallback>Bob (bridged): </strong>Bob: hi"
    );
}

#[test]
fn files_are_read_with_their_captions() {
    let at = "mxc://example.org/abc";
    let file = json!({ "msgtype": "m.image", "body": "cat.png", "url": at, "info": { "size": 7, "w": 3, "h": 2 } });
    let read_file = |content: Value| match read("m.room.message", content) {
        Converted::Message(message) => message,
        Converted::Skip(rule) => panic!("ignored: {rule}"),
    };
    let bare = read_file(file.clone());
    assert_eq!(bare.files[0].in_words(), "an image: cat.png (7 bytes)");
    assert_eq!(
        (bare.files[0].source.as_str(), bare.files[0].dimensions),
        (at, Some((3, 2)))
    );
    assert!(matches!(&bare.action, Action::Post { body, .. } if body.is_empty()));
    let mut captioned = file.clone();
    captioned["filename"] = "cat.png".into();
    captioned["body"] = "!nobridge look".into();
    let captioned = read_file(captioned);
    assert!(captioned.is_nobridge() && captioned.files[0].name == "cat.png");
    let edit = json!({ "body": "* x", "m.new_content": file,
        "m.relates_to": { "rel_type": "m.replace", "event_id": "$1" } });
    let edit = read_file(edit);
    assert!(matches!(&edit.action, Action::Edit { .. }) && edit.files.len() == 1);
    // C26: a file without a valid source is named in words.
    let nowhere =
        json!({ "msgtype": "m.image", "body": "cat.png", "url": "https://example.org/cat.png" });
    let nowhere = read_file(nowhere);
    assert!(matches!(nowhere.action, Action::Unsupported { .. }) && nowhere.files.is_empty());
    let sticker = read("m.sticker", json!({ "body": "wink", "url": at }));
    assert!(
        matches!(sticker, Converted::Message(message) if message.files[0].in_words() == "a sticker: wink")
    );
}

#[test]
fn an_edit_sends_added_files_and_deletes_removed_ones() {
    let file = |source: &str| File {
        source: source.to_owned(),
        name: format!("{source}.png"),
        ..File::default()
    };
    let edited = |body: &str, copies: &[(&str, &str)], files: &[&str]| {
        let edit = Action::Edit {
            target: RemoteId::from("1"),
            body: Body::plain(body),
            style: Style::Text,
        };
        let mut outgoing = outgoing(edit, &[]);
        outgoing.message.files = files.iter().map(|source| file(source)).collect();
        outgoing.copies = copies
            .iter()
            .map(|(id, source)| Copy {
                remote: RemoteId::from(*id),
                thread: None,
                sent_at: Millis(1),
                file: Some(match source.strip_prefix('~') {
                    Some(source) => format!("~{}", file(source).digest()),
                    None if source.is_empty() => String::new(),
                    None => file(source).digest(),
                }),
            })
            .collect();
        let told = steps(&outgoing).into_iter().map(|step| match step {
            Step::Edit {
                target, is_caption, ..
            } => format!("change {target}{}", if is_caption { " below" } else { "" }),
            Step::Delete { target, .. } => format!("remove {target}"),
            Step::SendFile { file, .. } => format!("send {}", file.source),
            Step::Post { .. } => "post".to_owned(),
            step => panic!("{step:?}"),
        });
        told.collect::<Vec<_>>()
    };
    let both = [("$words", ""), ("$a", "a")];
    assert_eq!(edited("new", &both, &["a"]), ["change $words"]);
    assert_eq!(
        edited("new", &both, &["a", "b"]),
        ["change $words", "send b"]
    );
    assert_eq!(edited("new", &both, &[]), ["change $words", "remove $a"]);
    assert_eq!(
        edited("", &both, &["b"]),
        ["remove $words", "remove $a", "send b"]
    );
    // A caption is sent with its file.
    let captioned = [("$a", "a")];
    assert_eq!(edited("new", &captioned, &["a"]), ["change $a below"]);
    assert_eq!(
        edited("new", &captioned, &["a", "b"]),
        ["change $a below", "send b"]
    );
    assert_eq!(edited("new", &captioned, &[]), ["post", "remove $a"]);
    assert_eq!(
        edited("new", &captioned, &["b"]),
        ["post", "remove $a", "send b"]
    );
    // A line names what could not be sent, whatever else the text says.
    assert_eq!(edited("new", &[("$a", "~a")], &["a"]), ["change $a"]);
    assert_eq!(edited("", &[("$a", "~a")], &["a"]), ["change $a"]);
    let long = "word ".repeat(3_200);
    assert_eq!(
        edited(&long, &captioned, &["a"]),
        ["change $a below", "post", "post"]
    );
}

#[test]
fn text_that_an_edit_adds_is_beside_the_line_that_names_a_file_also_among_several() {
    let file = |source: &str| File {
        source: source.to_owned(),
        name: format!("{source}.png"),
        ..File::default()
    };
    let (cat, dog) = (file("cat"), file("dog"));
    let copy = |id: &str, file: String| Copy {
        remote: RemoteId::from(id),
        thread: None,
        sent_at: Millis(1),
        file: Some(file),
    };
    let edit = Action::Edit {
        target: RemoteId::from("1"),
        body: Body::plain("new words"),
        style: Style::Text,
    };
    let mut outgoing = outgoing(edit, &[]);
    outgoing.message.files = vec![cat.clone(), dog.clone()];
    let named = copy("$cat", format!("~{}", cat.digest()));
    // The other file was sent, or is added by the edit.
    for (copies, count) in [
        (vec![named.clone(), copy("$dog", dog.digest())], 1),
        (vec![named], 2),
    ] {
        outgoing.copies = copies;
        let steps = steps(&outgoing);
        assert_eq!(steps.len(), count);
        let Step::Edit {
            target, content, ..
        } = &steps[0]
        else {
            panic!("the line is changed");
        };
        assert_eq!(target.as_str(), "$cat");
        assert!(content.text.contains("new words") && content.text.contains("cat.png"));
    }
}

#[test]
fn an_edit_changes_the_text_and_keeps_the_files() {
    let edit = Action::Edit {
        target: RemoteId::from("1"),
        body: Body::plain("new"),
        style: Style::Text,
    };
    let mut outgoing = outgoing(edit, &["$words", "$file"]);
    outgoing.message.files = vec![File::default()];
    let Plan::Steps(steps) = plan(&outgoing) else {
        panic!("steps");
    };
    assert!(matches!(&steps[..], [Step::Edit { target, .. }] if target.as_str() == "$words"));
    // A file without a caption gets one.
    outgoing.copies.remove(0);
    let Plan::Steps(steps) = plan(&outgoing) else {
        panic!("steps");
    };
    assert!(matches!(
        &steps[..],
        [Step::Edit { target, is_caption: true, fallback: Some(_), .. }] if target.as_str() == "$file"
    ));
}

#[test]
fn text_and_one_file_are_one_event_and_several_files_follow_the_text() {
    let said = Action::Post {
        body: Body::plain("my cat"),
        style: Style::Text,
        reply_to: None,
        thread: None,
    };
    let steps = |files: usize, action: &Action| {
        let mut outgoing = outgoing(action.clone(), &[]);
        outgoing.message.files = vec![File::default(); files];
        match plan(&outgoing) {
            Plan::Steps(steps) => steps,
            Plan::Skip(rule) => panic!("{rule}"),
        }
    };
    let one = steps(1, &said);
    let [
        Step::SendFile {
            content,
            fallback: Some(instead),
            ..
        },
    ] = one.as_slice()
    else {
        panic!("one event");
    };
    assert!(content.text.ends_with(": my cat"));
    // If the file is refused, one line says both.
    let Step::Post { content, .. } = &**instead else {
        panic!("words");
    };
    assert!(content.text.contains("my cat") && content.text.contains("📎 a file"));
    assert!(matches!(
        steps(2, &said).as_slice(),
        [
            Step::Post { .. },
            Step::SendFile { .. },
            Step::SendFile { .. }
        ]
    ));
    let long = Action::Post {
        body: Body(vec![
            Block::Paragraph(vec![Inline::Text("x".repeat(200))]);
            200
        ]),
        style: Style::Text,
        reply_to: None,
        thread: None,
    };
    assert!(steps(1, &long).len() > 1, "too long for a caption");
}

#[test]
fn the_line_that_replaces_a_file_is_the_same_reply() {
    for words in ["", "my cat"] {
        let said = Action::Post {
            body: Body::plain(words),
            style: Style::Text,
            reply_to: Some(RemoteId::from("m")),
            thread: None,
        };
        let mut outgoing = outgoing(said, &["$copy"]);
        outgoing.message.files = vec![File::default()];
        let Plan::Steps(steps) = plan(&outgoing) else {
            panic!("steps");
        };
        let [
            Step::SendFile {
                reply_to,
                fallback: Some(instead),
                ..
            },
        ] = steps.as_slice()
        else {
            panic!("{steps:?}");
        };
        let Step::Post { reply_to: also, .. } = &**instead else {
            panic!("{instead:?}");
        };
        assert_eq!((reply_to, also), (&Some(RemoteId::from("$copy")), reply_to));
    }
}
