//! The deliveries of the table.

use footbridge_store::{Copy, Millis, RemoteId};

use super::builders::{
    by, copy, edit, file_copy, files_of, in_thread, late, long, old, outgoing, post, reply, sent,
    styled, text_copy, threaded, with,
};
use crate::{
    file::File,
    message::{Action, Message, ReplyTarget, Style},
    outlet::Outgoing,
    text::{Block, Body, Inline},
};

/// The deliveries.
#[must_use]
pub fn cases() -> Vec<(&'static str, Outgoing)> {
    let mut all = posts();
    all.extend(files());
    all.extend(edits());
    all.extend(edits_below_files());
    all.extend(edits_of_files());
    all.extend(others());
    all
}

fn posts() -> Vec<(&'static str, Outgoing)> {
    let mut called = post("");
    if let Action::Post { body, .. } = &mut called.message.action {
        let (id, name) = ("@bob:example.org".to_owned(), "Bob".to_owned());
        *body = Body(vec![Block::Paragraph(vec![
            Inline::Ping { id, name },
            Inline::Text(" come".to_owned()),
        ])]);
    }
    let mut blocks = post("above\n\nbelow");
    if let Action::Post { body, .. } = &mut blocks.message.action {
        let text = "a = 1".to_owned();
        body.0.insert(
            0,
            Block::Code {
                language: None,
                text,
            },
        );
    }
    vec![
        ("a text", post("hello *you*")),
        ("several paragraphs", post("one\ntwo\n\nthree\n\nfour")),
        ("code first", blocks),
        ("an emote", styled(post("waves"), Style::Emote)),
        ("a notice", styled(post("beep"), Style::Notice)),
        ("nothing", post("")),
        ("a late text", late(post("hello"))),
        ("a late emote", late(styled(post("waves"), Style::Emote))),
        ("a late reply", late(reply(with(post("hi"), [copy("a")])))),
        ("a mention", called),
        ("a name of markup", by("u1", "*B_b* <b>", post("hi"))),
        ("no name", by("u1", "", post("hi"))),
        ("the bridge", by("", "", post("hi"))),
        ("a reply", reply(with(post("hi"), [copy("a")]))),
        (
            "a reply to parts",
            reply(with(post("hi"), [copy("a"), copy("b")])),
        ),
        (
            "a reply within a thread",
            reply(with(post("hi"), [threaded("a", "root")])),
        ),
        ("a reply to what has no copy", reply(post("hi"))),
        (
            "an emote in reply",
            reply(with(styled(post("nods"), Style::Emote), [copy("a")])),
        ),
        (
            "in a thread",
            in_thread(with(post("hi"), [copy("a"), copy("b")])),
        ),
        (
            "a reply in a thread",
            reply(in_thread(with(post("hi"), [threaded("a", "root")]))),
        ),
        ("in a thread without a copy", in_thread(post("hi"))),
        ("a long text", reply(with(post(&long(1_500)), [copy("a")]))),
        ("a very long text", late(post(&long(9_000)))),
    ]
}

fn files() -> Vec<(&'static str, Outgoing)> {
    let cat = || sent("cat.png", 2_100);
    let linked = File {
        link: Some("https://media.example.org/x".to_owned()),
        ..sent("report.pdf", 1_000)
    };
    let unnamed = File {
        name: "../".to_owned(),
        mime: "image/png".to_owned(),
        ..cat()
    };
    vec![
        ("a file", files_of(post(""), [cat()])),
        ("a file and words", files_of(post("look"), [cat()])),
        (
            "a file and an emote",
            files_of(styled(post("looks"), Style::Emote), [cat()]),
        ),
        ("a late file", late(files_of(post(""), [cat()]))),
        (
            "a late file and words",
            late(files_of(post("look"), [cat()])),
        ),
        (
            "a file with a link",
            files_of(post("read"), [linked.clone()]),
        ),
        ("a file with a link alone", files_of(post(""), [linked])),
        ("a file without a name", files_of(post(""), [unnamed])),
        (
            "a file that is too large",
            files_of(post("watch"), [sent("film.mkv", 30 << 20)]),
        ),
        (
            "a file and long words",
            files_of(post(&long(2_500)), [cat()]),
        ),
        (
            "a gallery",
            files_of(post(""), [cat(), sent("dog.png", 3_000)]),
        ),
        (
            "a gallery and words",
            files_of(post("look"), [cat(), sent("dog.png", 3_000)]),
        ),
        (
            "a file in reply",
            reply(with(files_of(post(""), [cat()]), [copy("a")])),
        ),
        (
            "a file and words in reply",
            reply(with(files_of(post("look"), [cat()]), [copy("a")])),
        ),
        (
            "a gallery in a thread",
            in_thread(with(
                files_of(post("look"), [cat(), sent("dog.png", 3_000)]),
                [copy("a")],
            )),
        ),
    ]
}

fn edits() -> Vec<(&'static str, Outgoing)> {
    vec![
        ("an edit without a copy", edit("new")),
        ("an edit", with(edit("new"), [copy("a")])),
        ("a late edit", late(with(edit("new"), [copy("a")]))),
        (
            "an edit to an emote",
            with(styled(edit("waves"), Style::Emote), [copy("a")]),
        ),
        (
            "an edit in a thread",
            with(edit("new"), [threaded("a", "root")]),
        ),
        (
            "an edit of what is old",
            with(edit("new"), [old("a"), old("b")]),
        ),
        (
            "an edit of what is old in part",
            with(edit(&long(1_500)), [copy("a"), old("b")]),
        ),
        (
            "an edit that shortens",
            with(edit("new"), [copy("a"), copy("b"), copy("c")]),
        ),
        (
            "an edit that lengthens",
            with(edit(&long(1_500)), [threaded("a", "root")]),
        ),
        (
            "an edit that lengthens much",
            with(edit(&long(9_000)), [copy("a")]),
        ),
        (
            "an edit as long as the limit",
            with(edit(&"x".repeat(4_070)), [copy("a")]),
        ),
        (
            "an edit that leaves nothing",
            with(edit(""), [copy("a"), copy("b")]),
        ),
        (
            "an edit by the bridge",
            with(by("", "", edit("all came")), [copy("a")]),
        ),
        (
            "an edit by the bridge of parts and a file",
            with(
                by("", "", edit("held back")),
                [text_copy("a"), text_copy("b"), file_copy("c", "cat.png")],
            ),
        ),
        (
            "an edit by the bridge that leaves nothing",
            with(by("", "", edit("")), [copy("a")]),
        ),
    ]
}

fn edits_below_files() -> Vec<(&'static str, Outgoing)> {
    let cat = || sent("cat.png", 2_100);
    let one = |text: &str| files_of(edit(text), [cat()]);
    let lost = |id, name| Copy {
        file: Some(format!("~{}", sent(name, 0).digest())),
        ..copy(id)
    };
    let below = || file_copy("a", "cat.png");
    vec![
        ("an edit below a file", with(one("new"), [below()])),
        (
            "a late edit below a file",
            late(with(one("new"), [below()])),
        ),
        (
            "an emote below a file",
            with(styled(one("nods"), Style::Emote), [below()]),
        ),
        ("no words below a file", with(one(""), [below()])),
        (
            "long words below a file",
            with(one(&long(2_500)), [below()]),
        ),
        (
            "an edit of what is not known to be a file",
            with(one("new"), [copy("a")]),
        ),
        (
            "an edit of unknown words and a file",
            with(one("new"), [copy("a"), copy("b")]),
        ),
        (
            "no words and an unknown file",
            with(one(""), [copy("a"), copy("b")]),
        ),
        (
            "an edit of a file that was named",
            with(one("new"), [lost("a", "cat.png")]),
        ),
        (
            "no words where a file was named",
            with(one(""), [lost("a", "cat.png")]),
        ),
        (
            "an edit of words beside a file",
            with(one("new"), [text_copy("a"), file_copy("b", "cat.png")]),
        ),
        (
            "words behind a file that go",
            with(one("new"), [below(), text_copy("b"), text_copy("c")]),
        ),
    ]
}

fn edits_of_files() -> Vec<(&'static str, Outgoing)> {
    let cat = || sent("cat.png", 2_100);
    let dog = || sent("dog.png", 3_000);
    let one = |text: &str| files_of(edit(text), [cat()]);
    let two = |text: &str| files_of(edit(text), [cat(), dog()]);
    let below = || file_copy("a", "cat.png");
    vec![
        (
            "another file",
            with(files_of(edit("new"), [dog()]), [below()]),
        ),
        (
            "another file without words",
            with(files_of(edit(""), [dog()]), [below()]),
        ),
        (
            "another file in a thread",
            with(
                files_of(edit("new"), [dog()]),
                [Copy {
                    file: Some(cat().digest()),
                    ..threaded("a", "root")
                }],
            ),
        ),
        ("a file less", with(edit("new"), [below()])),
        (
            "a file less of two",
            with(one("new"), [below(), file_copy("b", "dog.png")]),
        ),
        ("a file more", with(two("new"), [below()])),
        ("a file more than none", with(one("new"), [text_copy("a")])),
        (
            "files in another order",
            with(
                two("new"),
                [file_copy("a", "dog.png"), file_copy("b", "cat.png")],
            ),
        ),
        (
            "a gallery of unknown copies",
            with(two("new"), [copy("a"), copy("b")]),
        ),
        (
            "an old gallery",
            with(
                two("new"),
                [file_copy("a", "cat.png"), file_copy("b", "dog.png")].map(|copy| Copy {
                    sent_at: Millis(0),
                    ..copy
                }),
            ),
        ),
    ]
}

fn others() -> Vec<(&'static str, Outgoing)> {
    let target = || RemoteId::from("$event");
    let key = || "👍".to_owned();
    let delete = || outgoing(Action::Delete { target: target() });
    let unsupported = || {
        outgoing(Action::Unsupported {
            summary: "sent a poll: *tea*?".to_owned(),
        })
    };
    let system = |summary: &str| {
        outgoing(Action::System {
            summary: summary.to_owned(),
        })
    };
    let notice = |about: Option<ReplyTarget>| Outgoing {
        message: Message::notice_about("2 messages are *lost*", about, Millis(1)),
        ..delete()
    };
    let about = |thread: Option<&str>| ReplyTarget {
        message: RemoteId::from("m"),
        thread: thread.map(RemoteId::from),
    };
    let marker = Outgoing {
        message: Message::marker(target(), "🔒", Millis(1)),
        ..delete()
    };
    let (reacted, unreacted) = (
        Action::React {
            target: target(),
            key: key(),
        },
        Action::Unreact {
            target: target(),
            key: key(),
        },
    );
    vec![
        ("a deletion without a copy", delete()),
        ("a deletion", with(delete(), [copy("a")])),
        (
            "a deletion of what is old",
            with(delete(), [old("a"), old("b")]),
        ),
        ("a reaction", with(outgoing(reacted), [copy("a")])),
        ("a reaction removed", with(outgoing(unreacted), [copy("a")])),
        ("a marker", marker),
        ("something unsupported", unsupported()),
        ("something unsupported and late", late(unsupported())),
        ("a system message", system("Bob *joined*")),
        ("a long system message", system(&long(1_500))),
        ("a notice of the bridge", notice(None)),
        ("a notice about a message", notice(Some(about(None)))),
        (
            "a notice about a message in a thread",
            notice(Some(about(Some("root")))),
        ),
    ]
}
