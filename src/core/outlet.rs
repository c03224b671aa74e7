//! How a message is sent to Matrix or to a silo. A delivery becomes a plan of steps, each step creates or changes exactly one
//! message on the other side, and each step is settled in the store before the next one starts.

#[cfg(any(test, feature = "testbed"))]
pub mod plan_table;
mod send_error;

use async_trait::async_trait;
use footbridge_store::{AccountId, Cascade, Copy, Millis, Place, RemoteId, SkipRule};
use serde::{Deserialize, Serialize};

use crate::{
    capabilities::Capabilities,
    file::File,
    image::Image,
    message::{Message, Sender, Style},
    peer_bridges::BridgeMarker,
    plan::{self, ChangedReaction},
    reactions::ReactionState,
    spool::{Spool, Spooled},
};
pub use send_error::{Outcome, SendError, no_files_error};

/// A delivery on its way to `to`.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The transaction key: the same at every attempt and after every restart, unique per delivery.
    pub key: String,
    /// The place where it is delivered.
    pub to: Place,
    /// The content. Target ids in it belong to the place it came from: use `copies`.
    pub message: Message,
    /// The copies in `to` of the message it is about (see [`Message::target`]), in part order.
    pub copies: Vec<Copy>,
    /// The address of the first copy, where people can open it.
    pub permalink: Option<String>,
    /// Whether it was delayed until its room key came, so that later messages may have overtaken it.
    pub late: bool,
}

/// The steps that a delivery takes. Saved before the first step, so that a restart continues with the same plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    /// Perform these steps, in this order.
    Steps(Vec<Step>),
    /// Do nothing, by this rule (a short fixed word, counted and shown by `status`).
    Skip(SkipRule),
}

impl Plan {
    /// The steps of this plan, and behind them those of another.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Steps(steps), Self::Steps(more)) => {
                Self::Steps(steps.into_iter().chain(more).collect())
            }
            (Self::Skip(_), other) => other,
            (plan, Self::Skip(_)) => plan,
        }
    }
}

/// One request that creates or changes one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A new message.
    Post {
        /// The content.
        content: Content,
        /// The first message of its thread, on this side.
        thread: Option<RemoteId>,
        /// The message it replies to, on this side.
        reply_to: Option<RemoteId>,
    },
    /// A new message that is a file.
    SendFile {
        /// The file, as the source side describes it.
        file: File,
        /// The text sent with it.
        content: Content,
        /// The first message of its thread, on this side.
        thread: Option<RemoteId>,
        /// The message it replies to, on this side.
        reply_to: Option<RemoteId>,
        /// The step to perform where the file cannot be sent.
        fallback: Option<Box<Step>>,
    },
    /// A new text for a message of the bridge.
    Edit {
        /// The message.
        target: RemoteId,
        /// The new content.
        content: Content,
        /// Whether the message is a file, and the content is its caption.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_caption: bool,
        /// The step to perform where the silo no longer allows the change.
        fallback: Option<Box<Step>>,
    },
    /// Delete a message of the bridge. A message that is deleted already counts as success. Where a deletion would also delete
    /// the replies of others, the message may be emptied instead.
    Delete {
        /// The message.
        target: RemoteId,
        /// Whether an edit asks for it, which must not delete the replies of others.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_edit: bool,
    },
    /// A reaction by the bridge's account to a message.
    React {
        /// The message.
        target: RemoteId,
        /// An emoji, or a word.
        key: String,
        /// Whether it may be sent unencrypted into a place that is encrypted.
        unencrypted: bool,
        /// Whether it is the bridge's own marker, which reveals nothing about a person, nor about what its place is linked to.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_marker: bool,
    },
    /// Remove a reaction of the bridge. A reaction that is removed already counts as success.
    Unreact {
        /// The id that [`Done::ReactionAdded`] returned.
        shown: RemoteId,
    },
    /// A bundle: one new message that carries several.
    Bundle {
        /// The messages, in order.
        parts: Vec<Part>,
        /// The first message of their thread, on this side.
        thread: Option<RemoteId>,
    },
    /// A new text for one part of a bundle, or the removal of the part.
    EditPart {
        /// The message.
        target: RemoteId,
        /// Which part.
        slot: u32,
        /// The new text; `None` removes the part.
        part: Option<Part>,
        /// The step to perform where the message can no longer be read or changed.
        fallback: Option<Box<Step>>,
    },
}

/// One of several texts in a bundle. The message event carries it beside the readable form, so that a later edit can read it
/// there: the bridge keeps no text on its disk.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The author's name, sanitised.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Plain text, without the author.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// The same as HTML.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub html: String,
    /// Whether the HTML consists of blocks, not of running text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub block: bool,
    /// Whether it was removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Part(..)")
    }
}

/// A text in the markup of the side it goes to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Plain text, or the silo's own markup.
    pub text: String,
    /// HTML, where the side accepts it beside the text.
    pub html: Option<String>,
    /// The style.
    pub style: Style,
    /// The author, where the side shows the author beside the text instead of in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Sender>,
    /// The ids of the mentioned users, where the side takes them beside the text: ids of that side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Content(..)")
    }
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It created this message.
    Created(Copy),
    /// It changed this message, which stays the same copy.
    Edited(RemoteId),
    /// It changed this message with an event of its own.
    EditedBy {
        /// The message.
        target: RemoteId,
        /// The event.
        by: Copy,
    },
    /// This message is deleted.
    Deleted(RemoteId),
    /// This message has no content any more, but stays because others have replied to it.
    Emptied(RemoteId),
    /// A part of this message could not be deleted without the replies of others: it is deleted when its original is deleted.
    Leftover(RemoteId),
    /// This reaction of the bridge exists now.
    ReactionAdded(Copy),
    /// This reaction of the bridge is removed.
    ReactionRemoved(RemoteId),
    /// A part of a message is removed; the others stay.
    PartRemoved {
        /// The message.
        target: RemoteId,
        /// The part.
        slot: u32,
        /// The event that removed it.
        by: Copy,
    },
    /// Nothing yet: these messages of others would be deleted with the one to be deleted. Once that is saved,
    /// [`Outlet::delete_cascade`] deletes them.
    NeedsCascade(Cascade),
}

/// The text of a message without edits that were redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextBeforeEdit {
    /// This text, as an edit of the message, and the id of the edit that has it, unless it is the original's own text.
    Text(Box<Message>, Option<RemoteId>),
    /// The message was redacted itself.
    Redacted,
    /// The bridge cannot decrypt it.
    Unreadable,
}

/// Messages that look exactly like a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimilarMessages {
    /// The messages, oldest first.
    pub copies: Vec<Copy>,
    /// Whether so many messages followed that the outlet did not read all of them.
    pub is_cut_off: bool,
}

/// A file that a step sends, fetched from the side where it was sent.
#[derive(Debug)]
pub struct FetchedFile {
    /// The file.
    pub spooled: Spooled,
    /// Its thumbnail, if there is one.
    pub thumbnail: Option<Image>,
}

/// A side to which messages can be sent: Matrix, or one silo.
#[async_trait]
pub trait Outlet: Send + Sync {
    /// What this side can do at present.
    fn capabilities(&self) -> Capabilities;

    /// The address of a message of this side, where people can open it.
    fn permalink(&self, _to: &Place, _message: &RemoteId) -> Option<String> {
        None
    }

    /// A moment of the bridge's clock by the clock of this side.
    fn local_time(&self, now: Millis) -> Millis {
        now
    }

    /// The name that this side has for an emoji, if its reactions are [`Reactions::Named`](crate::capabilities::Reactions::Named):
    /// emoji of one name are one reaction. `reacted` are all reactions to the message.
    fn reaction_name(&self, _key: &str, _reacted: &[ReactionState]) -> Option<String> {
        None
    }

    /// The plan for a delivery. Pure: no requests. Called once per delivery; the lane saves the result.
    fn plan(&self, outgoing: &Outgoing, now: Millis) -> Plan {
        let now = self.local_time(now);
        plan::plan(&self.capabilities(), outgoing, now)
    }

    /// The id by which peer bridges know a channel of this side, and the bridge's account in it.
    fn bridge_marker(&self, _channel: &Place) -> Option<BridgeMarker> {
        None
    }

    /// The plan for a reaction or its removal: `reacted` is all reactions to the message. Pure.
    fn plan_reactions(
        &self,
        outgoing: &Outgoing,
        reacted: &[ReactionState],
        change: ChangedReaction<'_>,
        now: Millis,
    ) -> Plan {
        let (can, now) = (self.capabilities(), self.local_time(now));
        let name_of = |key: &str| self.reaction_name(key, reacted);
        plan::reaction(&can, outgoing, reacted, change, name_of, now)
    }

    /// One step that carries the first two or more of these new messages of one lane, oldest first, and the number of messages it
    /// carries; `None` where each is sent by itself. Pure. Called only while the account is rate limited.
    fn plan_bundle(&self, messages: &[Outgoing]) -> Option<(Step, usize)> {
        plan::bundle(&self.capabilities(), messages)
    }

    /// The plan for an edit or a deletion of a message that is the part `slot` of its copy. Pure.
    fn plan_part_edit(&self, outgoing: &Outgoing, slot: u32) -> Plan {
        plan::part_edit(&self.capabilities(), outgoing, slot)
    }

    /// Performs one step. `key` is the same at every attempt of the same step.
    async fn perform(&self, to: &Place, key: &str, step: &Step) -> Result<Done, SendError>;

    /// Performs a [`Step::Delete`] that returned [`Done::NeedsCascade`]; the lane has saved the cascade by then.
    async fn delete_cascade(&self, _to: &Place, _step: &Step) -> Result<Done, SendError> {
        Err(SendError::Refused {
            reason: "this side removes one message at a time".to_owned(),
        })
    }

    /// Fetches a file of a message that was written on this side.
    async fn fetch(&self, _file: &File, _spool: &Spool) -> Result<Spooled, SendError> {
        Err(SendError::Refused {
            reason: "files of this side cannot be fetched".to_owned(),
        })
    }

    /// The current text of a message that was written on this side: the text of the first of these edits that was not redacted,
    /// or else the text of the message itself.
    async fn text_before_edit(
        &self,
        _from: &Place,
        _message: &RemoteId,
        _edits: &[RemoteId],
    ) -> Result<TextBeforeEdit, SendError> {
        Ok(TextBeforeEdit::Unreadable)
    }

    /// Fetches the avatar of a user of this side.
    async fn avatar(&self, _of: &Sender, _spool: &Spool) -> Result<Image, SendError> {
        Err(SendError::Refused {
            reason: "users of this side have no avatars".to_owned(),
        })
    }

    /// Whether this author's avatar must be uploaded before a message in `to` can show it.
    async fn needs_avatar(&self, _to: &Place, _of: &Sender) -> bool {
        false
    }

    /// Uploads the avatar.
    async fn upload_avatar(&self, _: &Place, _: &Sender, _: &Image) -> Result<(), SendError> {
        Ok(())
    }

    /// Fetches the thumbnail of a file of this side (see [`File::has_thumbnail`]).
    async fn thumbnail(&self, _file: &File, _spool: &Spool) -> Result<Image, SendError> {
        Err(no_files_error())
    }

    /// Performs a [`Step::SendFile`] whose file is in the spool.
    async fn send_file(
        &self,
        _to: &Place,
        _key: &str,
        _step: &Step,
        _file: &FetchedFile,
    ) -> Result<Done, SendError> {
        Err(no_files_error())
    }

    /// Messages of the bridge's own account in `to`, created at or after `since`, that look exactly like this step. Called only for steps of [`Idempotency::ByContent`](crate::capabilities::Idempotency::ByContent).
    async fn find_similar(
        &self,
        _to: &Place,
        _step: &Step,
        _since: Millis,
    ) -> Result<SimilarMessages, SendError> {
        Ok(SimilarMessages::default())
    }

    /// Whether the other side has answered anything but steps since `since`: a sync, a feed. A message that fails while the side
    /// answers nothing is not to blame.
    fn has_answered_since(&self, since: Millis) -> bool;

    /// Called only for outlets that deduplicate, before a step is repeated whose attempt since `since` was never answered.
    /// `None`: the other side will recognise its key, or the step certainly did not happen. An outlet that deduplicates for ever
    /// need not look.
    async fn find_by_key(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        let _ = (to, key, step, since);
        Ok(None)
    }

    /// The same for a step that an account may have performed which cannot be asked itself any more: the outlet looks for it in the
    /// place. `None`: it certainly did not happen.
    async fn find_sent_by(
        &self,
        _account: AccountId,
        _to: &Place,
        _key: &str,
        _step: &Step,
        _since: Millis,
    ) -> Result<Option<Done>, SendError> {
        Err(SendError::Refused {
            reason: "the account that was to send it is gone, and nobody can tell whether it did"
                .to_owned(),
        })
    }

    /// The same, called before the content of the step is sent with other keys: the outlet looks for the step in any case.
    /// `None`: it certainly did not happen.
    async fn find_by_key_always(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        self.find_by_key(to, key, step, since).await
    }
}
