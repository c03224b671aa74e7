//! A pure function from a delivery to its messages. The API can only post, so an edit becomes a new message with the
//! new text, and a deletion becomes a line that reports it.

use footbridge_core::{
    file::File,
    message::{Action, Sender, Style},
    outlet::{Content, Outgoing, Plan, Step},
    text::Body,
};
use footbridge_store::{Copy, Millis, SkipRule};

use super::{
    capabilities::MAX_FILE,
    convert::{as_reply, text_from_body},
};
use crate::plan::named;

/// How Matterbridge's own networks mark an edit by default.
const EDITED: &str = " (edited)";

/// The steps of a delivery.
pub fn plan(outgoing: &Outgoing) -> Plan {
    let mark = if outgoing.late { "(delayed) " } else { "" };
    let sender = &outgoing.message.sender;
    let author = (!sender.is_bridge()).then_some(sender);
    let files = &outgoing.message.files;
    match &outgoing.message.action {
        Action::Post { body, .. } if body.is_empty() && files.is_empty() => {
            Plan::Skip(SkipRule::Empty)
        }
        Action::Post {
            body,
            style,
            reply_to,
            thread,
        } => {
            let answers = reply_to.is_some() || thread.is_some();
            let words = |body: &Body| {
                let text = text_from_body(body);
                let text = if answers { as_reply(&text) } else { text };
                format!("{mark}{text}")
            };
            let named_post = |body: &Body, files: &[File]| {
                let (body, style) = named(body, *style, files);
                post_step(words(&body), style, author)
            };
            if files.is_empty() {
                return Plan::Steps(vec![named_post(body, files)]);
            }
            // The text goes with the first file.
            let nothing = Body::default();
            let bodies = std::iter::once(body).chain(std::iter::repeat(&nothing));
            let steps = files.iter().zip(bodies).map(|(file, body)| {
                let fallback = named_post(body, std::slice::from_ref(file));
                if file.size.is_some_and(|size| size > MAX_FILE) {
                    return fallback;
                }
                let caption = if body.is_empty() {
                    String::new()
                } else {
                    words(body)
                };
                Step::SendFile {
                    file: file.clone(),
                    content: content(caption, *style, author),
                    thread: None,
                    reply_to: None,
                    fallback: Some(Box::new(fallback)),
                }
            });
            Plan::Steps(steps.collect())
        }
        Action::Edit { .. } | Action::Delete { .. } if outgoing.copies.is_empty() => {
            Plan::Skip(SkipRule::UnknownTarget)
        }
        Action::Edit { body, .. } if body.is_empty() && files.is_empty() => {
            post(deletion_line(&outgoing.copies), Style::Emote, author)
        }
        Action::Edit { body, style, .. } => {
            let (body, style) = named(body, *style, files);
            let text = text_from_body(&body);
            let edited = if author.is_some() { EDITED } else { "" };
            post(format!("{mark}{text}{edited}"), style, author)
        }
        Action::Delete { .. } => post(deletion_line(&outgoing.copies), Style::Emote, author),
        // They are no messages (see `Outlet::plan_reactions`).
        Action::React { .. } | Action::Unreact { .. } | Action::Marker { .. } => {
            Plan::Skip(SkipRule::NoReactions)
        }
        Action::Unsupported { summary } => {
            let text = text_from_body(&Body::plain(summary));
            post(format!("{mark}{text}"), Style::Emote, author)
        }
        Action::System { summary: text } | Action::Bridge { text, .. } => {
            post(text_from_body(&Body::plain(text)), Style::Notice, None)
        }
    }
}

/// Reports a deletion by the time of the message: its text is no longer stored.
fn deletion_line(copies: &[Copy]) -> String {
    let sent_at = copies.first().map_or(Millis(0), |copy| copy.sent_at);
    let moment = jiff::Timestamp::from_millisecond(sent_at.0).unwrap_or_default();
    let moment = moment.strftime("%Y-%m-%d %H:%M");
    format!("has deleted the message of {moment} UTC, which stays readable here")
}

fn post(text: String, style: Style, author: Option<&Sender>) -> Plan {
    Plan::Steps(vec![post_step(text, style, author)])
}

fn post_step(text: String, style: Style, author: Option<&Sender>) -> Step {
    Step::Post {
        content: content(text, style, author),
        thread: None,
        reply_to: None,
    }
}

fn content(text: String, style: Style, author: Option<&Sender>) -> Content {
    Content {
        mentions: Vec::new(),
        text,
        html: None,
        style,
        author: author.cloned(),
    }
}

#[cfg(test)]
mod tests {
    use footbridge_core::message::Message;
    use footbridge_store::{Place, RemoteId};

    use super::*;

    fn planned(action: Action, copies: usize) -> Plan {
        plan(&outgoing(action, copies))
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
                kind: footbridge_core::file::Kind::Image,
                size,
                ..File::default()
            }];
            let Plan::Steps(steps) = plan(&outgoing) else {
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
                kind: footbridge_core::file::Kind::Image,
                ..File::default()
            })
            .to_vec();
        let Plan::Steps(steps) = plan(&outgoing) else {
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
}
