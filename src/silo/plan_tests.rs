//! What the planner makes of deliveries to a silo whose messages are Markdown and can be edited.

use footbridge_core::{
    capabilities::{Capabilities, FileText, Files},
    file::{File, Kind},
    message::{Action, Message, Sender, Style},
    outlet::{Outgoing, Plan, Step},
    plan::plan,
    text::Body,
};
use footbridge_store::{Copy, Millis, Place, RemoteId, SkipRule};

use crate::{gitter, markdown::units};

const MAX_UNITS: usize = 4096;
const RULES: Capabilities = gitter::CAPABILITIES;
/// The same where files are taken.
const WITH_FILES: Capabilities = Capabilities {
    files: Files::Upload {
        max: None,
        text: FileText::WithFirst { bare: false },
    },
    ..RULES
};

fn outgoing(action: Action, copies: Vec<Copy>) -> Outgoing {
    Outgoing {
        key: "k".to_owned(),
        to: Place::new("gitter", "room"),
        message: Message {
            sender: Sender {
                id: "@ann:example.org".to_owned(),
                name: "Ann".to_owned(),
                avatar: None,
            },
            sent_at: Millis(0),
            action,
            files: Vec::new(),
        },
        permalink: copies.first().map(|copy| {
            let id = &copy.remote;
            format!("https://gitter.example/org/room?at={id}")
        }),
        copies,
        late: false,
    }
}

fn copy(id: &str, thread: Option<&str>, sent_at: i64) -> Copy {
    Copy {
        remote: RemoteId::from(id),
        thread: thread.map(RemoteId::from),
        sent_at: Millis(sent_at),
        file: None,
    }
}

fn steps(outgoing: &Outgoing, now: i64) -> Vec<Step> {
    match plan(&RULES, outgoing, Millis(now)) {
        Plan::Steps(steps) => steps,
        Plan::Skip(rule) => panic!("skipped: {rule}"),
    }
}

fn said(body: &str) -> Action {
    Action::Post {
        body: Body::plain(body),
        style: Style::Text,
        reply_to: Some(RemoteId::from("$event")),
        thread: None,
    }
}

fn edited(body: &str) -> Action {
    Action::Edit {
        target: RemoteId::from("$event"),
        body: Body::plain(body),
        style: Style::Text,
    }
}

fn text(step: &Step) -> &str {
    match step {
        Step::Post { content, .. } | Step::Edit { content, .. } => &content.text,
        _ => panic!("a removal has no text"),
    }
}

fn with_file(action: Action, copies: Vec<Copy>, takes_files: bool) -> Vec<Step> {
    let mut outgoing = outgoing(action, copies);
    outgoing.message.files = vec![File {
        name: "cat.png".to_owned(),
        kind: Kind::Image,
        size: Some(2_100),
        ..File::default()
    }];
    let rules = if takes_files { &WITH_FILES } else { &RULES };
    match plan(rules, &outgoing, Millis(0)) {
        Plan::Steps(steps) => steps,
        Plan::Skip(rule) => panic!("skipped: {rule}"),
    }
}

#[test]
fn a_file_is_carried_with_its_caption_and_named_where_it_cannot_be() {
    for (caption, said, instead) in [
        (
            "look",
            "**Ann**: look",
            "**Ann**: look\n\n📎 an image: cat.png (2.1 kB)",
        ),
        (
            "",
            "\\* **Ann** sent an image",
            "\\* **Ann** sent an image: cat.png (2.1 kB)",
        ),
    ] {
        let all = with_file(said_by_ann(caption), vec![], true);
        let [
            Step::SendFile {
                content,
                fallback: Some(fallback),
                ..
            },
        ] = &all[..]
        else {
            panic!("one file");
        };
        assert_eq!((content.text.as_str(), text(fallback)), (said, instead));
        let all = with_file(said_by_ann(caption), vec![], false);
        assert_eq!((all.len(), text(&all[0])), (1, instead));
    }
}

#[test]
fn a_long_caption_follows_its_file_whatever_becomes_of_the_file() {
    // The second one fits, but not with the line that names the file.
    for (words, posts) in [("many words ".repeat(900), 3), ("x".repeat(4_080), 1)] {
        let all = with_file(said_by_ann(&words), vec![], true);
        let [
            Step::SendFile {
                content,
                fallback: Some(fallback),
                ..
            },
            told @ ..,
        ] = &all[..]
        else {
            panic!("a file and its text");
        };
        assert_eq!(content.text, "\\* **Ann** sent an image");
        let instead = "\\* **Ann** sent an image: cat.png (2.1 kB)";
        assert_eq!(text(fallback), instead);
        assert_eq!(told.len(), posts);
        let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count();
        let told: usize = told.iter().map(|post| letters(text(post)) - 3).sum();
        assert_eq!(told, letters(&words));
    }
}

#[test]
fn no_edit_takes_a_file_away() {
    for takes_files in [true, false] {
        let all = with_file(edited(""), vec![copy("a", None, 0)], takes_files);
        assert!(matches!(&all[..], [Step::Edit { .. }]), "{all:?}");
        assert!(text(&all[0]).contains("sent an image"));
    }
}

#[test]
fn every_file_of_a_gallery_is_carried_and_no_edit_takes_one_away() {
    let all = |action, copies, takes_files| {
        let mut outgoing = outgoing(action, copies);
        outgoing.message.files = ["a.png", "b.png", "c.png"]
            .map(|name| File {
                name: name.to_owned(),
                kind: Kind::Image,
                ..File::default()
            })
            .to_vec();
        let rules = if takes_files { &WITH_FILES } else { &RULES };
        match plan(rules, &outgoing, Millis(0)) {
            Plan::Steps(steps) => steps,
            Plan::Skip(rule) => panic!("skipped: {rule}"),
        }
    };
    let sent: Vec<(String, String, String)> = all(said_by_ann("look"), vec![], true)
        .iter()
        .map(|step| match step {
            Step::SendFile {
                file,
                content,
                fallback: Some(fallback),
                ..
            } => (
                file.name.clone(),
                content.text.clone(),
                text(fallback).to_owned(),
            ),
            _ => panic!("no file"),
        })
        .collect();
    let expected = [
        (
            "a.png",
            "**Ann**: look",
            "**Ann**: look\n\n📎 an image: a.png",
        ),
        (
            "b.png",
            "\\* **Ann** sent an image",
            "\\* **Ann** sent an image: b.png",
        ),
        (
            "c.png",
            "\\* **Ann** sent an image",
            "\\* **Ann** sent an image: c.png",
        ),
    ];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(sent, expected);
    let copies = || ["a", "b", "c"].map(|id| copy(id, None, 0)).to_vec();
    let changed = all(edited("better"), copies(), true);
    assert!(
        matches!(&changed[..], [Step::Edit { target, .. }] if target.as_str() == "a"),
        "{changed:?}"
    );
    let named = all(said_by_ann("look"), vec![], false);
    assert_eq!(named.len(), 1);
    assert!(text(&named[0]).contains("a.png") && text(&named[0]).contains("c.png"));
}

fn said_by_ann(body: &str) -> Action {
    Action::Post {
        body: Body::plain(body),
        style: Style::Text,
        reply_to: None,
        thread: None,
    }
}

#[test]
fn an_answer_goes_into_the_thread_of_the_root() {
    for (copies, thread) in [
        (vec![copy("reply", Some("root"), 0)], Some("root")),
        (vec![copy("root", None, 0)], Some("root")),
        (vec![], None),
    ] {
        let all = steps(&outgoing(said("hello"), copies), 0);
        let [Step::Post { thread: found, .. }] = &all[..] else {
            panic!("one post");
        };
        assert_eq!(found.as_ref().map(RemoteId::as_str), thread);
    }
}

#[test]
fn a_long_message_becomes_parts_that_fit() {
    let all = steps(&outgoing(said(&"many words ".repeat(900)), vec![]), 0);
    assert!(all.len() > 2);
    assert!(
        all.iter()
            .all(|step| units(text(step)) <= MAX_UNITS && text(step).contains("Ann"))
    );
}

#[test]
fn a_recent_copy_is_replaced_and_knows_what_to_do_when_it_is_too_late() {
    let all = steps(
        &outgoing(edited("new"), vec![copy("a", Some("root"), 1000)]),
        590_999,
    );
    let [
        Step::Edit {
            target,
            content,
            fallback: Some(fallback),
            ..
        },
    ] = &all[..]
    else {
        panic!("one replacement");
    };
    assert_eq!(target.as_str(), "a");
    assert!(content.text.contains("new") && !content.text.contains("Edit of"));
    let Step::Post {
        content, thread, ..
    } = &**fallback
    else {
        panic!("a post");
    };
    assert!(
        content
            .text
            .starts_with("Edit of https://gitter.example/org/room?at=a\n")
    );
    assert_eq!(thread.as_ref().map(RemoteId::as_str), Some("root"));
}

#[test]
fn an_old_copy_stays_and_the_new_text_points_to_it() {
    let all = steps(
        &outgoing(edited("new"), vec![copy("a", None, 0), copy("b", None, 0)]),
        590_000,
    );
    assert_eq!(all.len(), 1);
    assert!(matches!(&all[0], Step::Post { thread: None, .. }));
    assert!(text(&all[0]).starts_with("Edit of "));
}

#[test]
fn parts_too_many_are_removed_and_parts_too_few_are_posted() {
    let all = steps(
        &outgoing(edited("new"), vec![copy("a", None, 0), copy("b", None, 0)]),
        0,
    );
    assert!(
        matches!(&all[..], [Step::Edit { .. }, Step::Delete { target, by_edit: true }] if target.as_str() == "b")
    );
    let all = steps(
        &outgoing(edited(&"many words ".repeat(500)), vec![copy("a", None, 0)]),
        0,
    );
    assert!(matches!(
        &all[..],
        [Step::Edit { .. }, Step::Post { .. }, ..]
    ));
    for step in &all {
        assert!(units(text(step)) <= MAX_UNITS);
        assert!(!text(step).contains("Edit of"));
    }
}

#[test]
fn a_changed_notice_of_the_bridge_has_no_sender_either() {
    let mut notice = outgoing(edited("all came"), vec![copy("a", None, 0)]);
    notice.message.sender = Sender::bridge();
    assert_eq!(text(&steps(&notice, 0)[0]), "all came");
}

#[test]
fn what_was_never_copied_is_skipped_by_name() {
    let deletion = Action::Delete {
        target: RemoteId::from("$event"),
    };
    for action in [edited("new"), deletion] {
        let skipped = plan(&RULES, &outgoing(action, vec![]), Millis(0));
        assert_eq!(skipped, Plan::Skip(SkipRule::UnknownTarget));
    }
}

#[test]
fn late_messages_say_so_and_notices_of_the_bridge_have_no_sender() {
    let mut late = outgoing(said("hello"), vec![]);
    late.late = true;
    assert!(text(&steps(&late, 0)[0]).starts_with("(delayed) "));
    let notice = outgoing(
        Action::Bridge {
            text: "Something".to_owned(),
            about: None,
        },
        vec![],
    );
    assert_eq!(text(&steps(&notice, 0)[0]), "Something");
    let system = Action::System {
        summary: "Bob joined".to_owned(),
    };
    assert_eq!(text(&steps(&outgoing(system, vec![]), 0)[0]), "Bob joined");
    let picture = outgoing(
        Action::Unsupported {
            summary: "sent an image".to_owned(),
        },
        vec![],
    );
    let all = steps(&picture, 0);
    assert!(text(&all[0]).contains("Ann") && text(&all[0]).contains("sent an image"));
}

#[test]
fn a_message_that_got_another_file_is_said_anew_where_files_are_carried() {
    let file = |source: &str| File {
        source: source.to_owned(),
        name: source.to_owned(),
        ..File::default()
    };
    let planned = |files: &[&str], had: &str, rules: &Capabilities| {
        let edit = Action::Edit {
            target: RemoteId::from("$1"),
            body: Body::plain("new"),
            style: Style::Text,
        };
        let copies = had.split(' ').zip(["a", "b", "c"]).map(|(had, id)| Copy {
            file: Some(match had.strip_prefix('~') {
                Some(had) => format!("~{}", file(had).digest()),
                None if had.is_empty() || had == "-" => String::new(),
                None => file(had).digest(),
            }),
            ..copy(id, None, 0)
        });
        let mut outgoing = outgoing(edit, copies.collect());
        outgoing.message.files = files.iter().map(|source| file(source)).collect();
        let Plan::Steps(steps) = plan(rules, &outgoing, Millis(0)) else {
            panic!("steps");
        };
        let described = steps.into_iter().map(|step| match step {
            Step::SendFile { file, .. } => format!("send {}", file.source),
            Step::Post { .. } => "post".to_owned(),
            Step::Edit { content, .. } if content.text.contains("📎") => {
                let (_, name) = content.text.rsplit_once(' ').unwrap();
                format!("change and name {name}")
            }
            Step::Edit { .. } => "change".to_owned(),
            Step::Delete {
                target,
                by_edit: true,
            } => format!("remove {target}"),
            step => panic!("{step:?}"),
        });
        described.collect::<Vec<_>>()
    };
    assert_eq!(planned(&["f"], "f", &WITH_FILES), ["change"]);
    assert_eq!(planned(&[], "", &WITH_FILES), ["change"]);
    assert_eq!(planned(&["g"], "f", &WITH_FILES), ["send g", "remove a"]);
    assert_eq!(planned(&["g"], "", &WITH_FILES), ["send g", "remove a"]);
    assert_eq!(planned(&[], "f", &WITH_FILES), ["post", "remove a"]);
    assert_eq!(planned(&["g", "f"], "f g", &WITH_FILES), ["change"]);
    // Text that an earlier edit posted after the files is deleted, and the files stay.
    assert_eq!(
        planned(&["f", "g"], "f g -", &WITH_FILES),
        ["change", "remove c"]
    );
    // The new text names a file that could not be sent as well.
    assert_eq!(planned(&["f"], "~f", &WITH_FILES), ["change and name f"]);
    // The text belongs to the first file, also where the files have another order now.
    assert_eq!(
        planned(&["g", "f"], "~f g", &WITH_FILES),
        ["change and name f"]
    );
    // Where files are named in the text, the text changes.
    assert_eq!(planned(&["g"], "", &RULES), ["change and name g"]);
}
