//! A pure function from a delivery to its steps on a silo whose messages are Markdown and can be edited.

mod edits;
#[cfg(test)]
mod plans_tests;

use std::{borrow::Cow, time::Duration};

use footbridge_core::{
    capabilities::{Attribution, Capabilities, Edits, Files},
    file::File,
    message::{Action, Sender, Style},
    names,
    outlet::{Content, Outgoing, Plan, Step},
    reactions::{self, ReactionState},
    text::{Block, Body, Inline},
};
use footbridge_store::{Copy, Millis, RemoteId, SkipRule};

use edits::{and_then, carried_by, copies_with_text, edits, has_other_files};

use super::markdown::{Flavour, joined, markdown_from_body, prefix, split, units};

/// What posts a silo accepts.
#[derive(Clone, Copy, Debug)]
pub struct PostRules {
    /// The flavour of its Markdown.
    pub flavour: Flavour,
    /// The longest text, in UTF-16 units.
    pub longest: usize,
    /// How long a message may be edited, where a limit is known beforehand.
    pub editable: Option<Duration>,
    /// Where the name of the author goes.
    pub names: Attribution,
    /// Whether it accepts files; otherwise a line names them.
    pub files: bool,
}

/// The prefix of an emote whose author's name is outside of the text.
pub const ACTION_PREFIX: &str = "\\* ";

impl PostRules {
    /// By what the silo can do.
    #[must_use]
    pub fn of(flavour: Flavour, can: &Capabilities) -> Self {
        Self {
            flavour,
            longest: can.limits.text.max,
            editable: match can.edits {
                Edits::Limited { within } => within,
                Edits::Always | Edits::AsPost { .. } => None,
            },
            names: can.attribution,
            files: can.files != Files::Named,
        }
    }
}

/// The steps of a delivery. `now` is by the silo's clock; `permalink` makes the link to a message of the channel.
pub fn plan(
    rules: &PostRules,
    outgoing: &Outgoing,
    now: Millis,
    permalink: impl Fn(&RemoteId) -> String,
) -> Plan {
    let mark = if outgoing.late { "(delayed) " } else { "" };
    let sender = &outgoing.message.sender;
    let name = names::display_name(&sender.name, &sender.id);
    let author = (!sender.is_bridge()).then_some(sender);
    let in_text = rules.names == Attribution::Inline;
    let nothing = Body::default();
    let author_only = AuthoredText {
        rules,
        mark,
        name: author.filter(|_| in_text).map(|_| name.as_str()),
        author: author.filter(|_| !in_text),
        body: &nothing,
        style: Style::Text,
    };
    let notice_parts = |text: &str| {
        let text = markdown_from_body(&Body::plain(text), rules.flavour);
        parts_of(&text, rules.longest, || split(&text, "", rules.longest))
    };
    let files = &outgoing.message.files;
    match &outgoing.message.action {
        Action::Post {
            body,
            style,
            reply_to,
            thread,
        } => {
            let answers = reply_to.is_some() || thread.is_some();
            let root = outgoing.copies.first().filter(|_| answers).map(root_of);
            new_posts(author_only, (body, *style), files, root.as_ref())
        }
        Action::Edit { .. } | Action::Delete { .. } if outgoing.copies.is_empty() => {
            Plan::Skip(SkipRule::UnknownTarget)
        }
        Action::Edit { body, .. } if body.is_empty() && files.is_empty() => {
            removals(&outgoing.copies, true)
        }
        Action::Edit { body, style, .. } if rules.files && has_other_files(outgoing) => {
            let root = outgoing.copies.first().and_then(|copy| copy.thread.clone());
            let anew = new_posts(author_only, (body, *style), files, root.as_ref());
            and_then(anew, removals(&outgoing.copies, true))
        }
        Action::Edit { body, style, .. } => {
            let first = outgoing.copies.first();
            let is_named = first.is_some_and(Copy::is_file_placeholder);
            let (body, style) = match first.and_then(|copy| carried_by(copy, files)) {
                Some(file) if rules.files && is_named => {
                    named(body, *style, std::slice::from_ref(file))
                }
                Some(file) if rules.files => with_caption(body, *style, file),
                _ => named(body, *style, files),
            };
            let carried = if rules.files { files.len() } else { 0 };
            let texts = copies_with_text(&outgoing.copies, carried);
            edits(&author_only.saying(&body, style), &texts, now, permalink)
        }
        Action::Delete { .. } => removals(&outgoing.copies, false),
        // They are no messages (see `Outlet::plan_reactions`).
        Action::React { .. } | Action::Unreact { .. } | Action::Marker { .. } => {
            Plan::Skip(SkipRule::NoReactions)
        }
        Action::Unsupported { summary } => {
            let body = Body::plain(summary);
            let speech = author_only.saying(&body, Style::Emote);
            Plan::Steps(posts(speech.parts(), (Style::Notice, speech.author), None))
        }
        Action::System { summary } => {
            Plan::Steps(posts(notice_parts(summary), (Style::Notice, None), None))
        }
        Action::Bridge { text, about } => {
            let root = about
                .as_ref()
                .map(|about| about.thread.as_ref().unwrap_or(&about.message));
            Plan::Steps(posts(notice_parts(text), (Style::Notice, None), root))
        }
    }
}

/// A new message: its text with the first of its files, then the other files.
fn new_posts(
    speaker: AuthoredText<'_>,
    (body, style): (&Body, Style),
    files: &[File],
    root: Option<&RemoteId>,
) -> Plan {
    if body.is_empty() && files.is_empty() {
        return Plan::Skip(SkipRule::Empty);
    }
    let named_posts = |body: &Body, files: &[File]| {
        let (flat, style) = named(body, style, files);
        let speech = speaker.saying(&flat, style);
        posts(speech.parts(), speech.post_style(), root)
    };
    if files.is_empty() || !speaker.rules.files {
        return Plan::Steps(named_posts(body, files));
    }
    let nothing = Body::default();
    let words = std::iter::once(body).chain(std::iter::repeat(&nothing));
    let steps = files.iter().zip(words).flat_map(|(file, body)| {
        let only = std::slice::from_ref(file);
        let (mut named, mut apart) = (named_posts(body, only), Vec::new());
        let mut caption = body;
        if named.len() > 1 {
            // Where the file is refused, one post cannot stand in for it and for all of the text: the text follows by itself.
            let speech = speaker.saying(body, style);
            apart = posts(speech.parts(), speech.post_style(), root);
            (named, caption) = (named_posts(&nothing, only), &nothing);
        }
        let (caption, style) = with_caption(caption, style, file);
        let speech = speaker.saying(&caption, style);
        let carrier = Step::SendFile {
            file: file.clone(),
            content: content(speech.whole(), speech.post_style()),
            thread: root.cloned(),
            reply_to: None,
            fallback: named.into_iter().next().map(Box::new),
        };
        std::iter::once(carrier).chain(apart)
    });
    Plan::Steps(steps.collect())
}

/// The plan for the line that lists reactions, below the message in its thread. `is_told` says which reactions it
/// lists.
pub fn reaction_line(
    rules: &PostRules,
    outgoing: &Outgoing,
    reacted: &[ReactionState],
    now: Millis,
    is_told: impl Fn(&str) -> bool,
) -> Plan {
    let Some(message) = outgoing.copies.first() else {
        return Plan::Skip(SkipRule::UnknownTarget);
    };
    let line = reactions::summary_line(reacted, is_told);
    let text = line.and_then(|line| {
        let text = markdown_from_body(&Body::plain(&line), rules.flavour);
        let text = split(&text, "", rules.longest).into_iter().next();
        text.map(|text| content(text, (Style::Notice, None)))
    });
    reactions::plan_summary(reacted, text, message, |shown| {
        rules
            .editable
            .is_none_or(|limit| now.since(shown.sent_at) < limit)
    })
}

/// The text where files cannot be sent: a line below the text names each file, or that line alone.
#[must_use]
pub fn named<'a>(body: &'a Body, style: Style, files: &[File]) -> (Cow<'a, Body>, Style) {
    if files.is_empty() {
        return (Cow::Borrowed(body), style);
    }
    if body.is_empty() {
        let mut line = vec![Inline::Text("sent ".to_owned())];
        for (number, file) in files.iter().enumerate() {
            if number > 0 {
                line.push(Inline::Text(", ".to_owned()));
            }
            line.push(file_line(file));
        }
        let body = Body(vec![Block::Paragraph(line)]);
        return (Cow::Owned(body), Style::Emote);
    }
    let mut body = body.clone();
    for file in files {
        let mark = Inline::Text("📎 ".to_owned());
        body.0.push(Block::Paragraph(vec![mark, file_line(file)]));
    }
    (Cow::Owned(body), style)
}

/// A file described in words, as a link to it if there is one.
fn file_line(file: &File) -> Inline {
    let words = Inline::Text(file.in_words());
    match &file.link {
        Some(link) => Inline::Link {
            href: link.clone(),
            label: vec![words],
        },
        None => words,
    }
}

/// The text that goes with a file that is sent: its caption, or that it was sent.
fn with_caption<'a>(body: &'a Body, style: Style, file: &File) -> (Cow<'a, Body>, Style) {
    if body.is_empty() {
        let body = Body::plain(&format!("sent {}", file.kind.in_words()));
        (Cow::Owned(body), Style::Emote)
    } else {
        (Cow::Borrowed(body), style)
    }
}

/// A text of one author.
#[derive(Clone, Copy)]
struct AuthoredText<'a> {
    rules: &'a PostRules,
    mark: &'static str,
    /// The prefix; `None` when the bridge itself is the author, or the name is outside of the text.
    name: Option<&'a str>,
    /// The author whose name is outside of the text.
    author: Option<&'a Sender>,
    body: &'a Body,
    style: Style,
}

impl<'a> AuthoredText<'a> {
    /// Another text of the same author.
    fn saying<'b>(self, body: &'b Body, style: Style) -> AuthoredText<'b>
    where
        'a: 'b,
    {
        AuthoredText {
            body,
            style,
            ..self
        }
    }

    fn whole(&self) -> String {
        let text = markdown_from_body(self.body, self.rules.flavour);
        joined(self.mark, &joined(&self.prefix(), &text))
    }

    /// The prefix of each text: its author, and the mark of an emote.
    fn prefix(&self) -> Cow<'_, str> {
        match self.name {
            Some(name) => Cow::Owned(prefix(name, self.style, self.rules.flavour)),
            None if self.author.is_some() && self.style == Style::Emote => {
                Cow::Borrowed(ACTION_PREFIX)
            }
            None => Cow::Borrowed(""),
        }
    }

    /// The style, and the author whose name is outside of the text.
    fn post_style(&self) -> PostStyle<'_> {
        (self.style, self.author)
    }

    /// As many texts as the limit requires, each with the name.
    fn parts(&self) -> Vec<String> {
        parts_of(&self.whole(), self.rules.longest, || self.split_behind(""))
    }

    fn split_behind(&self, opening: &str) -> Vec<String> {
        let name = format!("{opening}{}{}", self.mark, self.prefix());
        let text = markdown_from_body(self.body, self.rules.flavour);
        split(&text, &name, self.rules.longest)
    }

    /// The texts of an edit in two forms: replacing the old ones, and linking to them with `opening`.
    fn edited_parts(&self, opening: &str) -> Vec<(String, String)> {
        let whole = self.whole();
        let pointing = joined(opening, &whole);
        if units(&pointing) <= self.rules.longest {
            return vec![(whole, pointing)];
        }
        self.split_behind(opening)
            .into_iter()
            .map(|pointing| {
                let text = pointing.strip_prefix(opening).unwrap_or(&pointing);
                (text.trim_start_matches('\n').to_owned(), pointing)
            })
            .collect()
    }
}

/// The style of a text, and the author whose name is outside of it.
type PostStyle<'a> = (Style, Option<&'a Sender>);

fn parts_of(whole: &str, longest: usize, cut: impl FnOnce() -> Vec<String>) -> Vec<String> {
    if units(whole) <= longest {
        vec![whole.to_owned()]
    } else {
        cut()
    }
}

/// Threads have one level: a reply to a reply belongs to the root of both.
fn root_of(copy: &Copy) -> RemoteId {
    copy.thread.clone().unwrap_or_else(|| copy.remote.clone())
}

fn posts(texts: Vec<String>, spoken: PostStyle<'_>, thread: Option<&RemoteId>) -> Vec<Step> {
    let texts = texts.into_iter();
    texts.map(|text| post(text, spoken, thread)).collect()
}

fn post(text: String, spoken: PostStyle<'_>, thread: Option<&RemoteId>) -> Step {
    Step::Post {
        content: content(text, spoken),
        thread: thread.cloned(),
        reply_to: None,
    }
}

fn content(text: String, (style, author): PostStyle<'_>) -> Content {
    Content {
        mentions: Vec::new(),
        author: author.cloned(),
        text,
        html: None,
        style,
    }
}

fn removals(copies: &[Copy], by_edit: bool) -> Plan {
    if copies.is_empty() {
        return Plan::Skip(SkipRule::UnknownTarget);
    }
    let removals = copies.iter().map(|copy| Step::Delete {
        target: copy.remote.clone(),
        by_edit,
    });
    Plan::Steps(removals.collect())
}

#[cfg(test)]
mod tests {
    use footbridge_core::message::Message;
    use footbridge_store::Place;

    use super::*;

    const MAX_UNITS: usize = 4096;
    const RULES: PostRules = PostRules {
        flavour: Flavour::Gitter,
        longest: MAX_UNITS,
        editable: Some(Duration::from_secs(590)),
        names: Attribution::Inline,
        files: false,
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
            copies,
            permalink: None,
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
        match plan(&RULES, outgoing, Millis(now), |id| {
            format!("https://gitter.example/org/room?at={id}")
        }) {
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
            kind: footbridge_core::file::Kind::Image,
            size: Some(2_100),
            ..File::default()
        }];
        let rules = PostRules {
            files: takes_files,
            ..RULES
        };
        match plan(&rules, &outgoing, Millis(0), ToString::to_string) {
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
                    kind: footbridge_core::file::Kind::Image,
                    ..File::default()
                })
                .to_vec();
            let rules = PostRules {
                files: takes_files,
                ..RULES
            };
            match plan(&rules, &outgoing, Millis(0), ToString::to_string) {
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
            let skipped = plan(
                &RULES,
                &outgoing(action, vec![]),
                Millis(0),
                ToString::to_string,
            );
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
        let planned = |files: &[&str], had: &str, rules: &PostRules| {
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
            let Plan::Steps(steps) = plan(rules, &outgoing, Millis(0), |_| String::new()) else {
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
        let with_files = PostRules {
            files: true,
            ..RULES
        };
        assert_eq!(planned(&["f"], "f", &with_files), ["change"]);
        assert_eq!(planned(&[], "", &with_files), ["change"]);
        assert_eq!(planned(&["g"], "f", &with_files), ["send g", "remove a"]);
        assert_eq!(planned(&["g"], "", &with_files), ["send g", "remove a"]);
        assert_eq!(planned(&[], "f", &with_files), ["post", "remove a"]);
        assert_eq!(planned(&["g", "f"], "f g", &with_files), ["change"]);
        // Text that an earlier edit posted after the files is deleted, and the files stay.
        assert_eq!(
            planned(&["f", "g"], "f g -", &with_files),
            ["change", "remove c"]
        );
        // The new text names a file that could not be sent as well.
        assert_eq!(planned(&["f"], "~f", &with_files), ["change and name f"]);
        // The text belongs to the first file, also where the files have another order now.
        assert_eq!(
            planned(&["g", "f"], "~f g", &with_files),
            ["change and name f"]
        );
        // Where files are named in the text, the text changes.
        assert_eq!(planned(&["g"], "", &RULES), ["change and name g"]);
    }
}
