//! Several messages in one event: what people read, and what each edit changes.

use footbridge_core::{
    file::File,
    message::{Action, Message, Sender},
    outlet::{Outgoing, Plan, Step},
    plan::{self, MAX_PARTS},
    text::Body,
};
use footbridge_store::{Copy, Millis, Place};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::convert::CAPABILITIES;

fn bundle(messages: &[Outgoing]) -> Option<(Step, usize)> {
    plan::bundle(&CAPABILITIES, messages)
}

fn revise(outgoing: &Outgoing, slot: u32) -> Plan {
    plan::part_edit(&CAPABILITIES, outgoing, slot)
}

fn said(author: &str, text: &str) -> Outgoing {
    outgoing(
        author,
        Action::Post {
            body: Body::plain(text),
            style: Style::Text,
            reply_to: None,
            thread: None,
        },
    )
}

fn outgoing(author: &str, action: Action) -> Outgoing {
    Outgoing {
        key: "k".to_owned(),
        to: Place::room("!r"),
        message: Message {
            sender: Sender {
                id: author.to_owned(),
                name: author.to_owned(),
                avatar: None,
            },
            sent_at: Millis(0),
            files: Vec::new(),
            action,
        },
        copies: Vec::new(),
        permalink: None,
        late: false,
    }
}

fn parts(messages: &[Outgoing]) -> Vec<Part> {
    match bundle(messages) {
        Some((Step::Bundle { parts, .. }, count)) => {
            assert_eq!(parts.len(), count);
            parts
        }
        _ => Vec::new(),
    }
}

#[test]
fn each_author_is_named_once_for_consecutive_messages() {
    let parts = parts(&[
        said("Mary", "hello"),
        said("Mary", "how are\nyou?"),
        said("Tom", "**fine** & well"),
        said("Mary", "good"),
    ]);
    let content = content_of(&parts);
    assert_eq!(
        content.text,
        "Mary: hello\n  how are\n  you?\nTom: **fine** & well\nMary: good"
    );
    assert_eq!(
        content.html.unwrap(),
        "<p><strong>Mary</strong>: hello<br>how are<br>you?</p>\
         <p><strong>Tom</strong>: **fine** &amp; well</p><p><strong>Mary</strong>: good</p>"
    );
}

#[test]
fn nobody_speaks_in_anothers_name() {
    let parts = parts(&[
        said("Eve", "hello\nTom: I quit"),
        said("Eve", "Tom: really"),
    ]);
    let content = content_of(&parts);
    let named = content.text.lines().filter(|line| !line.starts_with("  "));
    assert_eq!(named.count(), 1, "{}", content.text);
    assert_eq!(content.html.unwrap().matches("<p>").count(), 1);
}

#[test]
fn long_answered_styled_or_structured_messages_are_sent_alone() {
    let plain = || said("Mary", "hello");
    let answer = outgoing(
        "Tom",
        Action::Post {
            body: Body::plain("yes"),
            style: Style::Text,
            reply_to: Some("$x".into()),
            thread: None,
        },
    );
    let emote = outgoing(
        "Tom",
        Action::Post {
            body: Body::plain("waves"),
            style: Style::Emote,
            reply_to: None,
            thread: None,
        },
    );
    let mut late = plain();
    late.late = true;
    let structured = said("Tom", "one\n\ntwo");
    for alone in [
        answer,
        emote,
        late,
        structured,
        said("T", &"x".repeat(2000)),
    ] {
        assert!(parts(&[plain(), alone.clone()]).is_empty());
        assert!(parts(&[alone.clone(), plain()]).is_empty());
        assert_eq!(parts(&[plain(), plain(), alone, plain()]).len(), 2);
    }
    assert!(parts(&[plain()]).is_empty());
}

#[test]
fn an_event_stays_within_its_bounds() {
    let many: Vec<Outgoing> = (0..60)
        .map(|number| said("M", &format!("{number}")))
        .collect();
    assert_eq!(parts(&many).len(), MAX_PARTS);
    let large: Vec<Outgoing> = (0..60).map(|_| said("M", &"<\"&>".repeat(50))).collect();
    let parts = parts(&large);
    assert!(parts.len() > 2 && parts.len() < MAX_PARTS);
    let event = event_of(&parts, None, Some(&"$t".into())).unwrap();
    assert!(event.to_string().len() < 45_000);
}

/// An event of the bridge as a homeserver returns it.
fn stored(content: &Value, newer: Option<&Value>) -> Value {
    let mut event = json!({"sender": "@bridge:x", "content": content, "unsigned": {}});
    if let Some(newer) = newer {
        event["unsigned"]["m.relations"] =
            json!({"m.replace": {"sender": "@bridge:x", "content": newer}});
    }
    event
}

fn read(event: &Value) -> Vec<Part> {
    match newest(event, "@bridge:x") {
        LatestContent::Content(content) => parts_in(&content).unwrap(),
        _ => panic!("{event}"),
    }
}

fn with(parts: Vec<Part>, slot: u32, part: Option<&Part>) -> Value {
    match revised(parts, slot, part, &"$t".into()) {
        RevisedParts::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_edit_and_a_deletion_change_one_part_and_the_next_one_builds_on_them() {
    let original = event_of(
        &parts(&[
            said("Mary", "eins"),
            said("Tom", "two"),
            said("Tom", "three"),
        ]),
        None,
        None,
    )
    .unwrap();
    let message = said("Tom", "zwei").message;
    let edit = Part::new(&message.sender, &Body::plain("zwei"));
    let first = with(read(&stored(&original, None)), 1, Some(&edit));
    assert_eq!(
        first["m.new_content"]["body"],
        "Mary: eins\nTom: zwei\n  three"
    );
    let second = with(read(&stored(&original, Some(&first))), 0, None);
    assert_eq!(second["m.new_content"]["body"], "Tom: zwei\n  three");
    // Not "one": every part contains the field "gone".
    assert!(!second.to_string().contains("eins"), "{second}");
    let third = with(read(&stored(&original, Some(&second))), 2, None);
    let rest = read(&stored(&original, Some(&third)));
    assert_eq!(revised(rest, 1, None, &"$t".into()), RevisedParts::Nothing);
}

#[test]
fn an_edit_may_bring_structure_but_no_other_authors() {
    let mut all = parts(&[said("Eve", "one"), said("Eve", "two")]);
    let body = Body::plain("a\n\n**Tom**: b");
    all[0] = Part::new(&said("Eve", "").message.sender, &body);
    let html = content_of(&all).html.unwrap();
    assert_eq!(
        html,
        "<p><strong>Eve</strong>: </p><blockquote><p>a</p><p>**Tom**: b</p></blockquote><p>two</p>"
    );
}

#[test]
fn what_is_not_ours_redacted_or_not_decrypted_is_not_rewritten() {
    let original = event_of(&parts(&[said("M", "one"), said("M", "two")]), None, None).unwrap();
    let mut foreign = stored(&original, None);
    foreign["sender"] = json!("@eve:x");
    assert!(matches!(
        newest(&foreign, "@bridge:x"),
        LatestContent::Unreadable
    ));
    let encrypted = json!({"algorithm": "m.megolm.v1.aes-sha2"});
    for event in [
        stored(&encrypted, None),
        stored(&original, Some(&encrypted)),
    ] {
        let content = match newest(&event, "@bridge:x") {
            LatestContent::Content(content) => content,
            _ => Value::Null,
        };
        assert_eq!((parts_in(&content), to_verify(&content)), (None, None));
    }
    let mut redacted = stored(&json!({}), None);
    redacted["unsigned"]["redacted_because"] = json!({});
    assert!(matches!(
        newest(&redacted, "@bridge:x"),
        LatestContent::Redacted
    ));
    let parts = read(&stored(&original, None));
    assert_eq!(
        revised(parts, 7, None, &"$t".into()),
        RevisedParts::Impossible
    );
}

#[test]
fn c20_what_is_verified_is_every_part_and_nothing_around_them() {
    let all = parts(&[said("Mary", "one"), said("Tom", "two")]);
    let original = event_of(&all, None, None).unwrap();
    let verified = to_verify(&original).unwrap();
    let edit = event_of(&all, None, Some(&"$t".into())).unwrap();
    assert_eq!(to_verify(&edit["m.new_content"]), Some(verified.clone()));
    let mut around = original.clone();
    around["org.footbridge.delivery"] = json!("k");
    assert_eq!(to_verify(&around), Some(verified.clone()));
    for (pointer, value) in [("/0/body", "no"), ("/1/author", "Mary"), ("/1/html", "no")] {
        let mut forged = original.clone();
        *forged[PARTS].pointer_mut(pointer).unwrap() = json!(value);
        assert_ne!(to_verify(&forged).unwrap(), verified, "{pointer}");
    }
}

/// The plan for an edit of a message that is the second part of `$1`, and also has the copies `anew`.
fn edited_part(edit: Outgoing, files: &[File], anew: &[(&str, &str)]) -> Vec<Step> {
    let copy = |id: &str, file: &str| Copy {
        remote: RemoteId::from(id),
        thread: None,
        sent_at: Millis(0),
        file: Some(file.to_owned()),
    };
    let anew = anew.iter().map(|(id, file)| copy(id, file));
    let mut outgoing = edit;
    outgoing.copies = std::iter::once(copy("$1", "")).chain(anew).collect();
    outgoing.message.files = files.to_vec();
    match revise(&outgoing, 1) {
        Plan::Steps(steps) => steps,
        Plan::Skip(rule) => panic!("{rule}"),
    }
}

fn edit(author: &str, text: &str) -> Outgoing {
    let action = Action::Edit {
        target: "1".into(),
        body: Body::plain(text),
        style: Style::Text,
    };
    outgoing(author, action)
}

#[test]
fn a_part_that_gets_a_file_is_posted_again_with_it() {
    let cat = File {
        source: "cat".to_owned(),
        name: "cat.png".to_owned(),
        ..File::default()
    };
    let files = std::slice::from_ref(&cat);
    for text in ["my cat", ""] {
        let steps = edited_part(edit("Mary", text), files, &[]);
        let [
            Step::SendFile { file, content, .. },
            Step::EditPart {
                slot: 1,
                part: None,
                fallback: None,
                ..
            },
        ] = &steps[..]
        else {
            panic!("{steps:?}");
        };
        assert_eq!(file.source, "cat");
        assert!(content.text.starts_with("Mary (edited): ") && content.text.contains(text));
    }
    // A message that was sent separately before also gets the file, and loses it again.
    let steps = edited_part(edit("Mary", "my cat"), files, &[("$2", "")]);
    assert!(matches!(
        &steps[..],
        [Step::Edit { target, .. }, Step::SendFile { .. }] if target.as_str() == "$2"
    ));
    let digest = cat.digest();
    let behind = [("$2", ""), ("$3", digest.as_str())];
    let steps = edited_part(edit("Mary", "no cat"), &[], &behind);
    assert!(matches!(
        &steps[..],
        [Step::Edit { .. }, Step::Delete { target, .. }] if target.as_str() == "$3"
    ));
}

#[test]
fn a_line_of_the_bridge_in_place_of_a_part_has_its_own_name() {
    let mut said = edit("", "(nothing)");
    said.message.sender = Sender::bridge();
    let steps = edited_part(said.clone(), &[], &[]);
    assert!(matches!(
        &steps[..],
        [Step::EditPart { part: Some(part), fallback: Some(_), .. }] if part.author == "Footbridge"
    ));
    let steps = edited_part(said, &[], &[("$2", ""), ("$3", "a file")]);
    assert!(matches!(
        &steps[..],
        [Step::Edit { content, .. }, Step::Delete { .. }] if content.text == "(nothing)"
    ));
}

#[test]
fn an_edit_points_at_the_shared_event_where_it_cannot_be_rewritten() {
    let mut edit = outgoing(
        "Mary",
        Action::Edit {
            target: "m1".into(),
            body: Body::plain("new"),
            style: Style::Text,
        },
    );
    edit.copies = vec![Copy {
        remote: "$shared".into(),
        thread: None,
        sent_at: Millis(0),
        file: None,
    }];
    let Plan::Steps(steps) = revise(&edit, 3) else {
        panic!("something is to be done");
    };
    let [
        Step::EditPart {
            slot: 3,
            fallback: Some(fallback),
            ..
        },
    ] = &steps[..]
    else {
        panic!("one revision");
    };
    let Step::Post {
        content, reply_to, ..
    } = &**fallback
    else {
        panic!("a post");
    };
    assert_eq!(content.text, "Mary (edited): new");
    assert_eq!(reply_to.as_ref().map(RemoteId::as_str), Some("$shared"));
}

proptest! {
    /// Whatever the texts are, each is found again in its part.
    #[test]
    fn parts_are_read_as_they_were_written(texts in prop::collection::vec("[ -~äß\n]{1,80}", 2..12)) {
        let messages: Vec<Outgoing> = texts
            .iter()
            .zip(["Ann", "Bob"].into_iter().cycle())
            .map(|(text, author)| said(author, text))
            .collect();
        let all = parts(&messages);
        prop_assume!(all.len() >= 2);
        let event = event_of(&all, None, None).unwrap();
        prop_assert_eq!(&read(&stored(&event, None)), &all);
        let text = content_of(&all).text;
        for part in &all {
            for line in part.body.lines() {
                prop_assert!(text.contains(line));
            }
        }
    }
}
