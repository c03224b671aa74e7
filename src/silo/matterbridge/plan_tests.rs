//! What the planner makes of deliveries to Matterbridge, whose API only posts.

use footbridge_core::{
    file::{File, Kind},
    message::{Action, Message, Sender, Style},
    outlet::{Outgoing, Plan, Step},
    plan::plan,
    text::Body,
};
use footbridge_store::{Copy, Millis, Place, RemoteId};

use super::capabilities::{CAPABILITIES, MAX_FILE};

fn planned(action: Action, copies: usize) -> Plan {
    plan(&CAPABILITIES, &outgoing(action, copies), Millis(0))
}

fn post(text: &str) -> Action {
    Action::Post {
        body: Body::plain(text),
        style: Style::Text,
        reply_to: None,
        thread: None,
    }
}

fn outgoing(action: Action, copies: usize) -> Outgoing {
    let copy = Copy {
        remote: RemoteId::from("sent/1"),
        thread: None,
        sent_at: Millis(1_795_349_191_632),
        file: None,
    };
    Outgoing {
        key: "k".to_owned(),
        to: Place::new("mb", "gw"),
        message: Message {
            sender: Sender {
                id: "@ann:example.org".to_owned(),
                name: "Ann".to_owned(),
                avatar: None,
            },
            sent_at: Millis(1),
            files: Vec::new(),
            action,
        },
        copies: vec![copy; copies],
        permalink: None,
        late: false,
    }
}

fn post_step(plan: &Plan) -> (&str, Style) {
    match plan {
        Plan::Steps(steps) => match steps.as_slice() {
            [Step::Post { content, .. }] => {
                assert!(
                    content
                        .author
                        .as_ref()
                        .is_some_and(|author| author.name == "Ann")
                );
                (&content.text, content.style)
            }
            other => panic!("{other:?}"),
        },
        Plan::Skip(rule) => (rule.as_str(), Style::Notice),
    }
}

fn edit(text: &str) -> Action {
    Action::Edit {
        target: RemoteId::from("$1"),
        body: Body::plain(text),
        style: Style::Text,
    }
}

#[test]
fn a_message_is_one_post_with_its_author_beside_it() {
    let post = |reply_to: Option<RemoteId>| Action::Post {
        body: Body::plain("hi"),
        style: Style::Emote,
        reply_to,
        thread: None,
    };
    assert_eq!(post_step(&planned(post(None), 0)), ("hi", Style::Emote));
    let answer = planned(post(Some(RemoteId::from("$0"))), 0);
    assert_eq!(post_step(&answer).0, "↪ hi");
}

#[test]
fn a_file_goes_with_its_caption_and_is_told_where_it_cannot() {
    for (size, caption, said, instead) in [
        (
            Some(MAX_FILE),
            "look",
            "look",
            "look\n\n📎 an image: cat.png (20 MB)",
        ),
        (Some(MAX_FILE), "", "", "sent an image: cat.png (20 MB)"),
        (
            Some(MAX_FILE + 1),
            "look",
            "",
            "look\n\n📎 an image: cat.png (20 MB)",
        ),
        (None, "look", "look", "look\n\n📎 an image: cat.png"),
    ] {
        let mut outgoing = outgoing(post(caption), 0);
        outgoing.message.files = vec![File {
            name: "cat.png".to_owned(),
            kind: Kind::Image,
            size,
            ..File::default()
        }];
        let Plan::Steps(steps) = plan(&CAPABILITIES, &outgoing, Millis(0)) else {
            panic!("skipped")
        };
        let told = match &steps[..] {
            [
                Step::SendFile {
                    content,
                    fallback: Some(told),
                    ..
                },
            ] if size.is_none_or(|size| size == MAX_FILE) => {
                assert_eq!(content.text, said);
                told
            }
            [told] => told,
            _ => panic!("one step"),
        };
        assert!(matches!(told, Step::Post { content, .. } if content.text == instead));
    }
}

#[test]
fn every_file_of_a_gallery_goes() {
    let mut outgoing = outgoing(post("look"), 0);
    outgoing.message.files = ["a.png", "b.png"]
        .map(|name| File {
            name: name.to_owned(),
            kind: Kind::Image,
            ..File::default()
        })
        .to_vec();
    let Plan::Steps(steps) = plan(&CAPABILITIES, &outgoing, Millis(0)) else {
        panic!("skipped")
    };
    let sent: Vec<(&str, &str)> = steps
        .iter()
        .map(|step| match step {
            Step::SendFile { file, content, .. } => (file.name.as_str(), content.text.as_str()),
            _ => panic!("no file"),
        })
        .collect();
    assert_eq!(sent, [("a.png", "look"), ("b.png", "")]);
}

#[test]
fn edits_and_deletions_are_told() {
    assert_eq!(post_step(&planned(edit("better"), 1)).0, "better (edited)");
    let gone = "has deleted the message of 2026-11-22 12:06 UTC, which stays readable here";
    for action in [
        edit(""),
        Action::Delete {
            target: RemoteId::from("$1"),
        },
    ] {
        assert_eq!(post_step(&planned(action, 2)), (gone, Style::Emote));
    }
    assert_eq!(post_step(&planned(edit("better"), 0)).0, "unknown-target");
}
