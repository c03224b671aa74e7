//! What a side can do, as data: the planner, the lanes, the tables of the silos' pages, `footbridge silos` and `!bridge status` all
//! read this.

use std::time::Duration;

use crate::{outlet::Step, render::Renderer};

/// What a side can do, at the moment it is asked: some of it depends on settings that a server may change.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// What writes neutral content in the side's markup.
    pub renderer: &'static dyn Renderer,
    /// How long a text may be.
    pub limits: Limits,
    /// Whether it takes a message without text and without a file.
    pub empty_messages: bool,
    /// Where the name of the author goes.
    pub attribution: Attribution,
    /// How a reply shows what it answers.
    pub replies: Replies,
    /// Whether the text from before an edit stays readable.
    pub edit_history: EditHistory,
    /// Whether messages have threads, each known by its first message.
    pub threads: bool,
    /// Whether a message can get a new text.
    pub edits: Edits,
    /// Whether a message can be deleted.
    pub deletes: Deletes,
    /// How reactions are shown.
    pub reactions: Reactions,
    /// Whether it takes files.
    pub files: Files,
    /// Whether one message may carry several short ones, each of which can be edited later.
    pub bundles: bool,
    /// What is known of a step that was not answered.
    pub idempotency: Idempotency,
}

impl Capabilities {
    /// What is known of this step when it was not answered.
    #[must_use]
    pub fn idempotency_of(&self, step: &Step) -> Idempotency {
        match (self.idempotency, step) {
            (Idempotency::ByKey, _) => Idempotency::ByKey,
            (
                _,
                Step::Delete { .. }
                | Step::EditPart { .. }
                | Step::React { .. }
                | Step::Unreact { .. },
            ) => Idempotency::Harmless,
            (of_messages, _) => of_messages,
        }
    }

    /// Whether two requests with the same key create one message.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.idempotency == Idempotency::ByKey
    }

    /// Whether the text from before an edit stays readable, until the event that has it is deleted.
    #[must_use]
    pub fn keeps_earlier_texts(&self) -> bool {
        self.edit_history == EditHistory::Kept
    }

    /// Whether the bridge can delete its messages here at all. Where it cannot, a plan only contains new messages.
    #[must_use]
    pub fn can_delete(&self) -> bool {
        self.deletes == Deletes::Native
    }
}

/// How long a text may be. What is longer becomes several messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a new message.
    pub text: TextLimit,
    /// Of the new text of a message.
    pub edit: TextLimit,
    /// Of a text that goes with a file.
    pub caption: TextLimit,
}

impl Limits {
    /// The same limit for all.
    #[must_use]
    pub const fn all(text: TextLimit) -> Self {
        Self {
            text,
            edit: text,
            caption: text,
        }
    }
}

/// A length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLimit {
    /// The most that fits.
    pub max: usize,
    /// What is counted.
    pub unit: LengthUnit,
}

impl TextLimit {
    /// Anything fits.
    pub const NONE: Self = Self {
        max: usize::MAX,
        unit: LengthUnit::Bytes,
    };

    /// Whether a text fits.
    #[must_use]
    pub fn fits(self, text: &str) -> bool {
        self.unit.length(text) <= self.max
    }
}

/// What the length of a text is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthUnit {
    /// UTF-16 code units.
    Utf16,
    /// Unicode scalars.
    Scalars,
    /// Bytes of UTF-8.
    Bytes,
}

impl LengthUnit {
    /// The length of a text.
    #[must_use]
    pub fn length(self, text: &str) -> usize {
        match self {
            Self::Utf16 => text.chars().map(char::len_utf16).sum(),
            Self::Scalars => text.chars().count(),
            Self::Bytes => text.len(),
        }
    }
}

/// Where the name of the author goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// In the text, as its prefix.
    Inline,
    /// Outside of the text, as if the author had posted it.
    Override,
    /// In the text, and outside of it for the clients that show it there.
    Both,
    /// Nowhere: the account that posts is the author's own.
    OwnAccount,
}

/// How a reply shows what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// It names the message.
    Native,
    /// It goes into the thread of the message.
    InThread,
    /// It begins with this mark; which message it answers is not shown.
    Marked(&'static str),
}

/// Whether a message can get a new text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edits {
    /// At any time.
    Always,
    /// For a while; later the new text becomes a message of its own, with a link to the old one.
    Limited {
        /// How long, where that is known beforehand.
        within: Option<Duration>,
    },
    /// Never: the new text becomes a message of its own, with this mark at its end.
    AsPost {
        /// The mark.
        mark: &'static str,
    },
}

/// Whether the text from before an edit stays readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditHistory {
    /// An edit is an event of its own: the earlier texts stay until their events are deleted.
    Kept,
    /// An edit replaces the text.
    Replaced,
}

/// Whether a message can be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletes {
    /// It can.
    Native,
    /// It cannot: a new message tells that it was deleted.
    AsPost,
}

/// How reactions are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reactions {
    /// As reactions, whether emoji or words.
    Any,
    /// As reactions where the side has a name for the emoji; the others are listed in a line in the thread of the message.
    Named,
    /// All of a message in a line in its thread.
    Line,
    /// Not at all.
    None,
}

/// Whether a side takes files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// It does not: a line in the text names each file.
    Named,
    /// It does.
    Upload {
        /// The most bytes of one file, where the planner has to know them: a larger one is named.
        max: Option<u64>,
        /// Where the text of a message with files goes.
        text: FileText,
    },
}

/// Where the text of a message with files goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileText {
    /// It is a message of its own before the files; with a single file it is the caption of that, if it fits. An edit changes text
    /// and files one by one.
    Apart,
    /// It goes with the first file. Where an edit changes the files, the message is posted again.
    WithFirst {
        /// Whether a file without text goes without any. Otherwise its text tells who sent it.
        bare: bool,
    },
}

/// What is known of a step that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// Any number of requests with one key create one message. Where the side forgets its keys after a while, the outlet finds the
    /// message by its key (see [`crate::outlet::Outlet::find_by_key`]).
    ByKey,
    /// Repeating the step changes nothing.
    Harmless,
    /// The outlet can look for messages with the same content (see [`crate::outlet::Outlet::find_similar`]).
    ByContent {
        /// How long after an unanswered step the side may still publish it. The lane looks several times within this span before it
        /// repeats the step.
        settle: Duration,
    },
    /// It can never be checked whether the step happened: it ends as failed, and is not repeated.
    Unknowable {
        /// Why, in one sentence for a person.
        reason: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_counted_as_the_side_counts_it() {
        let text = "aé👍🏽";
        let lengths = [LengthUnit::Utf16, LengthUnit::Scalars, LengthUnit::Bytes];
        assert_eq!(lengths.map(|unit| unit.length(text)), [6, 4, 11]);
        let limit = |max| TextLimit {
            max,
            unit: LengthUnit::Scalars,
        };
        assert!(limit(4).fits(text) && !limit(3).fits(text));
        assert!(TextLimit::NONE.fits(text));
    }
}
