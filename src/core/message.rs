//! The neutral language: what Matrix and every silo understand of a message. This is also the stored form
//! (serialised, sealed) between acceptance and delivery, so a change here needs its snapshot looked at.

use footbridge_store::{Millis, RemoteId};
use serde::{Deserialize, Serialize};

use crate::{file::File, text::Body};

/// Something that a person did in one place and that should be seen in another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who did it.
    pub sender: Sender,
    /// When, by the source's clock. For showing only, never for deciding.
    pub sent_at: Millis,
    /// What.
    pub action: Action,
    /// What hangs on it. Of an edit: what hangs on the message that is edited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
}

/// The author of a message in the place where it was written.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The immutable id in the source network: a Matrix user id, a silo user id.
    pub id: String,
    /// The name people see there, as written: untrusted, may contain anything.
    pub name: String,
    /// How the place they write in finds their picture, in its own words: other words, another picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
}

impl Sender {
    /// The bridge itself: what it says is shown without a sender.
    #[must_use]
    pub fn bridge() -> Self {
        Self::default()
    }

    /// Whether this is the bridge itself.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        // A message of nobody in particular has no id either, but always a name.
        self.id.is_empty() && self.name.is_empty()
    }
}

// Names are personal data, not log material.
impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender(..)")
    }
}

/// What a person did. Targets are ids **in the place the message came from**; the lane finds their copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A new message.
    Post {
        /// What it says.
        body: Body,
        /// How it says it.
        style: Style,
        /// The message it answers.
        reply_to: Option<RemoteId>,
        /// The first message of the thread it belongs to.
        thread: Option<RemoteId>,
    },
    /// A message got a new text.
    Edit {
        /// The message.
        target: RemoteId,
        /// All of its new text.
        body: Body,
        /// How it says it now.
        style: Style,
    },
    /// A message was taken back.
    Delete {
        /// The message.
        target: RemoteId,
    },
    /// Somebody is of a mind about a message.
    React {
        /// The message.
        target: RemoteId,
        /// An emoji, or a word (see [`crate::reactions::key`]).
        key: String,
    },
    /// Somebody no longer is. Where the reaction is a message of its own, taking that back says the same.
    Unreact {
        /// The message.
        target: RemoteId,
        /// With what they had reacted.
        key: String,
    },
    /// Something that cannot cross (yet). Delivered as a readable notice: nothing disappears.
    Unsupported {
        /// What it was, without the sender, e.g. `sent an image: cat.png (2 MB)`. One line.
        summary: String,
    },
    /// Something that the network itself tells: somebody joined, the topic changed. Shown without a sender, where the
    /// portal wants it.
    System {
        /// What happened, and to whom. One line.
        summary: String,
    },
    /// The bridge itself has something to say; shown without a sender.
    Bridge {
        /// One short sentence or two.
        text: String,
        /// The message it is about, **in the place where it is shown**.
        #[serde(default)]
        about: Option<About>,
    },
    /// The bridge's own sign on a message **of the place where it is shown**, for who can read nothing else of it.
    Mark {
        /// The message.
        target: RemoteId,
        /// An emoji.
        key: String,
    },
}

/// A message that the bridge speaks about, where it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The message.
    pub message: RemoteId,
    /// The thread it stands in, if any.
    pub thread: Option<RemoteId>,
}

/// How a message is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Style {
    /// Plainly.
    Text,
    /// As an action: `/me waves`.
    Emote,
    /// By a machine, and no machine should answer (Matrix `m.notice`).
    Notice,
}

impl Message {
    /// Something that the bridge itself has to say. The text is shown as it is, without markup.
    #[must_use]
    pub fn notice(text: &str, now: Millis) -> Self {
        Self::notice_about(text, None, now)
    }

    /// The same as an answer to a message of the place where it is shown.
    #[must_use]
    pub fn notice_about(text: &str, about: Option<About>, now: Millis) -> Self {
        Self {
            sender: Sender::bridge(),
            sent_at: now,
            action: Action::Bridge {
                text: text.to_owned(),
                about,
            },
            files: Vec::new(),
        }
    }

    /// The bridge's own sign on a message of the place where it is shown.
    #[must_use]
    pub fn mark(target: RemoteId, key: &str, now: Millis) -> Self {
        Self {
            sender: Sender::bridge(),
            sent_at: now,
            action: Action::Mark {
                target,
                key: key.to_owned(),
            },
            files: Vec::new(),
        }
    }

    /// The notice with this fact says something else now.
    #[must_use]
    pub fn changed_notice(fact: RemoteId, text: &str, now: Millis) -> Self {
        Self {
            sender: Sender::bridge(),
            sent_at: now,
            action: Action::Edit {
                target: fact,
                body: Body::plain(text),
                style: Style::Notice,
            },
            files: Vec::new(),
        }
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads the stored form back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Whether its author wants it to stay where it is written.
    #[must_use]
    pub fn stays_here(&self) -> bool {
        let (Action::Post { body, .. } | Action::Edit { body, .. }) = &self.action else {
            return false;
        };
        let text = body.to_plain();
        let rest = text.trim_start().strip_prefix(KEPT_HERE);
        rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    }

    /// Whether it gives a message a new text.
    #[must_use]
    pub fn is_edit(&self) -> bool {
        matches!(self.action, Action::Edit { .. })
    }

    /// The earlier message that this one is about: what is edited, deleted, answered, reacted to or threaded under.
    #[must_use]
    pub fn target(&self) -> Option<&RemoteId> {
        match &self.action {
            Action::Post {
                reply_to, thread, ..
            } => thread.as_ref().or(reply_to.as_ref()),
            Action::Edit { target, .. }
            | Action::Delete { target }
            | Action::React { target, .. }
            | Action::Unreact { target, .. } => Some(target),
            Action::Unsupported { .. }
            | Action::System { .. }
            | Action::Bridge { .. }
            | Action::Mark { .. } => None,
        }
    }
}

/// What begins a message that its author wants to keep where it is written.
const KEPT_HERE: &str = "!nobridge";

/// What begins every command in a chat.
const CALL: &str = "!bridge";

/// Something that a person asks of the bridge itself. Never relayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Who asks.
    pub sender: Sender,
    /// What stands behind the call, on its line.
    pub words: String,
    /// The message it is asked about.
    pub target: Option<RemoteId>,
    /// The thread it is asked in.
    pub thread: Option<RemoteId>,
    /// Whether the sender may take back other people's messages there.
    pub moderator: bool,
    /// Whether it was asked by a reaction, which is not answered in words.
    pub silent: bool,
    /// Whether it came encrypted, from a device whose messages are relayed.
    #[serde(default)]
    pub encrypted: bool,
}

impl Command {
    /// What stands behind the call in a text that is a command.
    #[must_use]
    pub fn words_of(text: &str) -> Option<&str> {
        let line = text.trim();
        let words = line.strip_prefix(CALL)?;
        (words.is_empty() || words.starts_with(char::is_whitespace)).then(|| words.trim())
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads the stored form back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
