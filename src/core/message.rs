//! The neutral message format: the part of a message that Matrix and every silo support. This is also the stored form
//! (serialised, sealed) between acceptance and delivery, so check the snapshot after a change here.

use footbridge_store::{Millis, RemoteId};
use serde::{Deserialize, Serialize};

use crate::{file::File, text::Body};

/// An action of a person in one place that the bridge relays to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who did it.
    pub sender: Sender,
    /// When, by the source's clock. For showing only, never for deciding.
    pub sent_at: Millis,
    /// The action.
    pub action: Action,
    /// The attachments. For an edit: the attachments of the message that is edited.
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
    /// How the source finds the avatar, as an opaque key of the source: another key means another avatar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
}

impl Sender {
    /// The bridge itself: its messages are shown without a sender.
    #[must_use]
    pub fn bridge() -> Self {
        Self::default()
    }

    /// Whether this is the bridge itself.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        // A message without a particular sender has no id either, but always a name.
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
        /// The text.
        body: Body,
        /// The style.
        style: Style,
        /// The message it replies to.
        reply_to: Option<RemoteId>,
        /// The first message of the thread it belongs to.
        thread: Option<RemoteId>,
    },
    /// A message got a new text.
    Edit {
        /// The message.
        target: RemoteId,
        /// The whole new text.
        body: Body,
        /// The new style.
        style: Style,
    },
    /// A message was deleted.
    Delete {
        /// The message.
        target: RemoteId,
    },
    /// Somebody reacted to a message.
    React {
        /// The message.
        target: RemoteId,
        /// An emoji, or a word (see [`crate::reactions::key`]).
        key: String,
    },
    /// Somebody removed a reaction. Where the reaction is a message of its own, deleting that does the same.
    Unreact {
        /// The message.
        target: RemoteId,
        /// The emoji or word of the reaction.
        key: String,
    },
    /// Content that cannot be relayed (yet). Delivered as a readable notice: nothing disappears.
    Unsupported {
        /// What it was, without the sender, e.g. `sent an image: cat.png (2 MB)`. One line.
        summary: String,
    },
    /// An event that the network itself reports: somebody joined, the topic changed. Shown without a sender, where the portal
    /// relays such messages.
    System {
        /// What happened, and to whom. One line.
        summary: String,
    },
    /// A notice of the bridge itself; shown without a sender.
    Bridge {
        /// One short sentence or two.
        text: String,
        /// The message it is about, **in the place where it is shown**.
        #[serde(default)]
        about: Option<ReplyTarget>,
    },
    /// The bridge's own marker on a message **of the place where it is shown**, for users who cannot read anything else of it.
    Marker {
        /// The message.
        target: RemoteId,
        /// An emoji.
        key: String,
    },
}

/// The message that a notice of the bridge refers to, in the place where the notice is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTarget {
    /// The message.
    pub message: RemoteId,
    /// The thread of the message, if any.
    pub thread: Option<RemoteId>,
}

/// The style of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Style {
    /// Plain text.
    Text,
    /// As an action: `/me waves`.
    Emote,
    /// Sent by a bot, and no bot should respond to it (Matrix `m.notice`).
    Notice,
}

impl Message {
    /// A notice of the bridge itself. The text is shown as it is, without markup.
    #[must_use]
    pub fn notice(text: &str, now: Millis) -> Self {
        Self::notice_about(text, None, now)
    }

    /// The same as a reply to a message of the place where it is shown.
    #[must_use]
    pub fn notice_about(text: &str, about: Option<ReplyTarget>, now: Millis) -> Self {
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

    /// The bridge's own marker on a message of the place where it is shown.
    #[must_use]
    pub fn marker(target: RemoteId, key: &str, now: Millis) -> Self {
        Self {
            sender: Sender::bridge(),
            sent_at: now,
            action: Action::Marker {
                target,
                key: key.to_owned(),
            },
            files: Vec::new(),
        }
    }

    /// An edit that gives the notice with this id a new text.
    #[must_use]
    pub fn edited_notice(notice_id: RemoteId, text: &str, now: Millis) -> Self {
        Self {
            sender: Sender::bridge(),
            sent_at: now,
            action: Action::Edit {
                target: notice_id,
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

    /// Whether its author does not want it to be relayed.
    #[must_use]
    pub fn is_nobridge(&self) -> bool {
        let (Action::Post { body, .. } | Action::Edit { body, .. }) = &self.action else {
            return false;
        };
        let text = body.to_plain();
        let rest = text.trim_start().strip_prefix(NOBRIDGE);
        rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    }

    /// Whether it gives a message a new text.
    #[must_use]
    pub fn is_edit(&self) -> bool {
        matches!(self.action, Action::Edit { .. })
    }

    /// The message that a stored message edits; `None` where it is no edit.
    #[must_use]
    pub fn edited_by(payload: &[u8]) -> Option<RemoteId> {
        match Self::from_bytes(payload).ok()?.action {
            Action::Edit { target, .. } => Some(target),
            _ => None,
        }
    }

    /// The earlier message that this one is about: what is edited, deleted, replied to, reacted to or threaded under.
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
            | Action::Marker { .. } => None,
        }
    }
}

/// The prefix of a message that its author does not want to be relayed.
const NOBRIDGE: &str = "!nobridge";

/// The prefix of every command in a chat.
const COMMAND_PREFIX: &str = "!bridge";

/// A command that a person gives to the bridge itself. Never relayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Who gave it.
    pub sender: Sender,
    /// The arguments after the prefix, on the same line.
    pub arguments: String,
    /// The message it is about.
    pub target: Option<RemoteId>,
    /// The thread it was sent in.
    pub thread: Option<RemoteId>,
    /// Whether the sender may delete other people's messages there.
    pub moderator: bool,
    /// Whether it was given by a reaction, which gets no answer in text.
    pub by_reaction: bool,
    /// Whether it was encrypted, from a device whose messages are relayed.
    #[serde(default)]
    pub encrypted: bool,
}

impl Command {
    /// The arguments of a text that is a command.
    #[must_use]
    pub fn parse_call(text: &str) -> Option<&str> {
        let line = text.trim();
        let words = line.strip_prefix(COMMAND_PREFIX)?;
        (words.is_empty() || words.starts_with(char::is_whitespace)).then(|| words.trim())
    }

    /// The command that a text in a channel is, if it is one, about the message whose thread it is in. `text` is as its author
    /// wrote it: markup may change names. No silo says with a message who may delete the messages of others.
    #[must_use]
    pub fn in_channel(
        text: &str,
        sender: impl FnOnce() -> Sender,
        thread: Option<RemoteId>,
    ) -> Option<Self> {
        let arguments = Self::parse_call(text)?.to_owned();
        Some(Self {
            sender: sender(),
            arguments,
            target: thread.clone(),
            thread,
            moderator: false,
            by_reaction: false,
            encrypted: false,
        })
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
