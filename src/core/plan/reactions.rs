//! The steps of a reaction, or of its removal: one account shows the reactions of many people.

use footbridge_store::{Copy, Millis, SkipRule};

use super::Planner;
use crate::{
    capabilities::{Capabilities, Reactions},
    outlet::{Content, Outgoing, Plan},
    reactions::{ReactionState, plan_native, plan_summary, summary_line},
    render::SpeechKind,
    text::Body,
};

/// The reaction that changed.
#[derive(Clone, Copy, Debug)]
pub struct ChangedReaction<'a> {
    /// An emoji or a word.
    pub key: &'a str,
    /// Whether it may be sent unencrypted into a place that is encrypted.
    pub unencrypted: bool,
}

/// The plan for a reaction or its removal. `reacted` are all reactions to the message, and `name_of` is the name that the side has for
/// an emoji: keys of one name are one reaction there.
#[must_use]
pub fn reaction(
    can: &Capabilities,
    outgoing: &Outgoing,
    reacted: &[ReactionState],
    change: ChangedReaction<'_>,
    name_of: impl Fn(&str) -> Option<String>,
    now: Millis,
) -> Plan {
    if can.reactions == Reactions::None {
        return Plan::Skip(SkipRule::NoReactions);
    }
    let Some(copy) = outgoing.copies.first() else {
        return Plan::Skip(SkipRule::UnknownTarget);
    };
    let ChangedReaction { key, unencrypted } = change;
    let planner = Planner { can, outgoing, now };
    match (can.reactions, name_of(key)) {
        (Reactions::Any, _) => {
            let same = |other: &str| other == key;
            plan_native(reacted, key, same, &copy.remote, unencrypted)
        }
        (Reactions::Named, Some(name)) => {
            let same = |other: &str| name_of(other).as_ref() == Some(&name);
            plan_native(reacted, key, same, &copy.remote, unencrypted)
        }
        (Reactions::Named, None) => {
            planner.reaction_line(copy, reacted, |key| name_of(key).is_none())
        }
        (Reactions::Line | Reactions::None, _) => planner.reaction_line(copy, reacted, |_| true),
    }
}

impl Planner<'_> {
    /// The line that lists reactions, below the message in its thread. `is_listed` says which of them it lists.
    fn reaction_line(
        &self,
        message: &Copy,
        reacted: &[ReactionState],
        is_listed: impl Fn(&str) -> bool,
    ) -> Plan {
        let line = summary_line(reacted, is_listed);
        let content = line.and_then(|line| self.notice(&line));
        plan_summary(reacted, content, message, |shown| self.may_edit(shown))
    }

    /// A line of the bridge, as much of it as fits one message.
    fn notice(&self, line: &str) -> Option<Content> {
        let (body, limit) = (Body::plain(line), self.can.limits.text);
        let speech = self.speech(&body, SpeechKind::Notice);
        self.can.renderer.render(&speech, limit).into_iter().next()
    }
}
