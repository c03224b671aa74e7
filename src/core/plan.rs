//! The planner: a pure function from a delivery, and from what the other side can do, to the steps that the delivery takes there.

mod edits;
mod files;
mod parts;
mod reactions;

use footbridge_store::{Copy, Millis, RemoteId, SkipRule};

pub use parts::{MAX_PARTS, bundle, part_edit};
pub use reactions::{ChangedReaction, reaction};

use crate::{
    capabilities::{Capabilities, Deletes, Reactions, Replies},
    message::{Action, ReplyTarget, Style},
    outlet::{Content, Outgoing, Plan, Step},
    render::{Speech, SpeechKind},
    text::Body,
};

/// The plan for a delivery; `now` is by the clock of the side that it goes to.
#[must_use]
pub fn plan(can: &Capabilities, outgoing: &Outgoing, now: Millis) -> Plan {
    let planner = Planner { can, outgoing, now };
    let message = &outgoing.message;
    match &message.action {
        Action::Post { body, .. } if planner.is_refused_as_empty(body) => {
            Plan::Skip(SkipRule::Empty)
        }
        Action::Post {
            body,
            style,
            reply_to,
            thread,
        } => {
            let (is_reply, in_thread) = (reply_to.is_some(), thread.is_some());
            let speech = Speech {
                reply_mark: planner.reply_mark(is_reply || in_thread),
                ..planner.speech(body, SpeechKind::Said(*style))
            };
            Plan::Steps(planner.new_message(&speech, &planner.position(is_reply, in_thread)))
        }
        Action::Edit { .. } | Action::Delete { .. } if outgoing.copies.is_empty() => {
            Plan::Skip(SkipRule::UnknownTarget)
        }
        Action::Edit { body, .. } if planner.is_refused_as_empty(body) => planner.removal(true),
        Action::Edit { body, style, .. } => {
            Plan::Steps(planner.edit(&planner.speech(body, SpeechKind::Said(*style))))
        }
        Action::Delete { .. } => planner.removal(false),
        // They are no messages (see `reaction`).
        Action::React { .. } | Action::Unreact { .. } => Plan::Skip(SkipRule::NoReactions),
        Action::Marker { target, key } => match can.reactions {
            Reactions::Any => Plan::Steps(vec![Step::React {
                target: target.clone(),
                key: key.clone(),
                unencrypted: true,
                is_marker: true,
            }]),
            Reactions::Named | Reactions::Line | Reactions::None => {
                Plan::Skip(SkipRule::NoReactions)
            }
        },
        Action::Unsupported { summary } => {
            planner.line(summary, SpeechKind::Summary, &Position::default())
        }
        Action::System { summary } => {
            planner.line(summary, SpeechKind::Notice, &Position::default())
        }
        Action::Bridge { text, about } => {
            let at = about.as_ref().map(|about| planner.position_of(about));
            planner.line(text, SpeechKind::Notice, &at.unwrap_or_default())
        }
    }
}

/// No text.
static NOTHING: Body = Body(Vec::new());

/// One delivery that is planned.
struct Planner<'a> {
    can: &'a Capabilities,
    outgoing: &'a Outgoing,
    now: Millis,
}

/// Where a message goes in its place.
#[derive(Clone, Debug, Default)]
struct Position {
    thread: Option<RemoteId>,
    reply_to: Option<RemoteId>,
}

impl Position {
    fn in_thread(thread: Option<&RemoteId>) -> Self {
        Self {
            thread: thread.cloned(),
            reply_to: None,
        }
    }

    /// The positions of several messages of which the first is the reply.
    fn each(&self) -> impl Iterator<Item = Self> {
        let others = Self::in_thread(self.thread.as_ref());
        std::iter::once(self.clone()).chain(std::iter::repeat(others))
    }

    fn post(self, content: Content) -> Step {
        Step::Post {
            content,
            thread: self.thread,
            reply_to: self.reply_to,
        }
    }
}

impl Planner<'_> {
    /// Whether the side takes no message of this text.
    fn is_refused_as_empty(&self, body: &Body) -> bool {
        let is_empty = body.is_empty() && self.outgoing.message.files.is_empty();
        is_empty && !self.can.empty_messages
    }

    fn speech<'b>(&'b self, body: &'b Body, kind: SpeechKind) -> Speech<'b> {
        Speech {
            sender: &self.outgoing.message.sender,
            attribution: self.can.attribution,
            kind,
            body,
            late: self.outgoing.late,
            reply_mark: "",
            edit_mark: "",
        }
    }

    fn reply_mark(&self, answers: bool) -> &'static str {
        match self.can.replies {
            Replies::Marked(mark) if answers => mark,
            _ => "",
        }
    }

    /// Where a message goes, by the copies of the one that it answers or whose thread it continues.
    fn position(&self, is_reply: bool, in_thread: bool) -> Position {
        let copies = &self.outgoing.copies;
        let (Some(first), Some(last)) = (copies.first(), copies.last()) else {
            return Position::default();
        };
        let root = self.can.threads.then(|| root_of(first));
        match self.can.replies {
            _ if in_thread => Position::in_thread(root.as_ref()),
            Replies::Native if is_reply => Position {
                thread: last.thread.clone(),
                reply_to: Some(last.remote.clone()),
            },
            Replies::InThread if is_reply => Position::in_thread(root.as_ref()),
            _ => Position::default(),
        }
    }

    /// Where a notice about a message goes.
    fn position_of(&self, about: &ReplyTarget) -> Position {
        match self.can.replies {
            Replies::Native => Position {
                thread: about.thread.clone(),
                reply_to: Some(about.message.clone()),
            },
            Replies::InThread => {
                Position::in_thread(Some(about.thread.as_ref().unwrap_or(&about.message)))
            }
            Replies::Marked(_) => Position::default(),
        }
    }

    /// A line in words of the bridge or of the network.
    fn line(&self, line: &str, kind: SpeechKind, at: &Position) -> Plan {
        Plan::Steps(self.posts(&self.speech(&Body::plain(line), kind), at))
    }

    /// As many messages as the limit requires.
    fn posts(&self, speech: &Speech<'_>, at: &Position) -> Vec<Step> {
        let contents = self.can.renderer.render(speech, self.can.limits.text);
        let placed = contents.into_iter().zip(at.each());
        placed.map(|(content, at)| at.post(content)).collect()
    }

    /// Takes the message away, or tells that it was deleted.
    fn removal(&self, by_edit: bool) -> Plan {
        let copies = &self.outgoing.copies;
        match self.can.deletes {
            Deletes::Native => {
                Plan::Steps(copies.iter().map(|copy| delete(copy, by_edit)).collect())
            }
            Deletes::AsPost => {
                let line = Body::plain(&deletion_line(copies));
                let speech = Speech {
                    late: false,
                    ..self.speech(&line, SpeechKind::Said(Style::Emote))
                };
                Plan::Steps(self.posts(&speech, &Position::default()))
            }
        }
    }
}

/// Threads have one level: a reply to a reply belongs to the root of both.
fn root_of(copy: &Copy) -> RemoteId {
    copy.thread.clone().unwrap_or_else(|| copy.remote.clone())
}

fn delete(copy: &Copy, by_edit: bool) -> Step {
    Step::Delete {
        target: copy.remote.clone(),
        by_edit,
    }
}

/// Reports a deletion by the time of the message: its text is no longer stored.
fn deletion_line(copies: &[Copy]) -> String {
    let sent_at = copies.first().map_or(Millis(0), |copy| copy.sent_at);
    let moment = jiff::Timestamp::from_millisecond(sent_at.0).unwrap_or_default();
    let moment = moment.strftime("%Y-%m-%d %H:%M");
    format!("has deleted the message of {moment} UTC, which stays readable here")
}
