//! How anything is sent anywhere. A delivery becomes a plan of steps, each step makes or changes exactly one
//! message on the other side, and each step is settled in the store before the next one starts.

mod refusal;

use std::time::Duration;

use async_trait::async_trait;
use footbridge_store::{Along, Copy, Millis, Place, RemoteId};
use serde::{Deserialize, Serialize};

use crate::{
    file::File,
    message::{Message, Sender, Style},
    origin::Origin,
    picture::Picture,
    reactions::Reacted,
    spool::{Spool, Spooled},
};
pub use refusal::{Outcome, SendError, without_files};

/// A delivery on its way to `to`.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The same at every attempt and after every restart; unique per delivery.
    pub key: String,
    /// Where it goes.
    pub to: Place,
    /// What it says. Targets inside are ids of the place it came from: use `copies`.
    pub message: Message,
    /// The copies in `to` of the message it is about (see [`Message::target`]), in part order.
    pub copies: Vec<Copy>,
    /// Whether it was held back waiting for a key, so that later ones may have overtaken it.
    pub late: bool,
}

/// What a delivery takes. Written down before the first step, so that a restart goes on with the same plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    /// Do these, in this order.
    Steps(Vec<Step>),
    /// Do nothing, by this rule (a short fixed word, counted and shown by `status`).
    Skip(String),
}

/// One request that makes or changes one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A new message.
    Post {
        /// What it says.
        content: Content,
        /// The first message of its thread, on this side.
        thread: Option<RemoteId>,
        /// The message it answers, on this side.
        reply_to: Option<RemoteId>,
    },
    /// A new message that is a file.
    Send {
        /// What it is, in the words of the side it comes from.
        file: File,
        /// What is said with it.
        content: Content,
        /// The first message of its thread, on this side.
        thread: Option<RemoteId>,
        /// The message it answers, on this side.
        reply_to: Option<RemoteId>,
        /// What to do where it cannot be carried.
        otherwise: Option<Box<Step>>,
    },
    /// A new text for a message of ours.
    Replace {
        /// The message.
        target: RemoteId,
        /// What it says now.
        content: Content,
        /// Whether the message is a file, and these are the words below it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        below_file: bool,
        /// What to do where the silo no longer allows the change.
        otherwise: Option<Box<Step>>,
    },
    /// Take a message of ours back. Gone already is success. Where what others have answered would go with it, it may be
    /// emptied instead.
    Remove {
        /// The message.
        target: RemoteId,
        /// Whether an edit asks for it, which must not take along what others have answered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replaced: bool,
    },
    /// A reaction of our own to a message.
    React {
        /// The message.
        target: RemoteId,
        /// An emoji, or a word.
        key: String,
        /// Whether it may go in the clear into a place that is encrypted.
        openly: bool,
        /// Whether it is the bridge's own sign, which says nothing of anybody, nor of what its place is joined to.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        own: bool,
    },
    /// Take a reaction of our own back. Gone already is success.
    Unreact {
        /// What [`Done::Shown`] named.
        shown: RemoteId,
    },
    /// One new message that carries several.
    Bundle {
        /// What each says, in order.
        parts: Vec<Part>,
        /// The first message of their thread, on this side.
        thread: Option<RemoteId>,
    },
    /// A new text for one part of a message that carries several, or its end.
    Revise {
        /// The message.
        target: RemoteId,
        /// Which part.
        slot: u32,
        /// What it says now; `None` takes it out.
        part: Option<Part>,
        /// What to do where the message can no longer be read or changed.
        otherwise: Option<Box<Step>>,
    },
}

/// One of several texts that a message carries. It goes into the message beside the readable form, so that a later
/// edit finds it there: on our disk no text stays.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Who said it, made harmless.
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
    /// Whether it was taken out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Part(..)")
    }
}

/// A text in the dialect of the side it goes to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Plain text, or the silo's own markup.
    pub text: String,
    /// HTML, where the side takes it beside the text.
    pub html: Option<String>,
    /// How it is spoken.
    pub style: Style,
    /// Whose words they are, where the side shows that beside the text instead of in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Sender>,
    /// Who is called, where the side says that beside the text: ids of that side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Content(..)")
    }
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It made this message.
    Made(Copy),
    /// It changed this message, which stays the copy it was.
    Changed(RemoteId),
    /// The same by an event of its own.
    Replaced {
        /// The message.
        target: RemoteId,
        /// The event.
        by: Copy,
    },
    /// This message is gone.
    Gone(RemoteId),
    /// This message says nothing any more, but stands there because others have answered to it.
    Emptied(RemoteId),
    /// Something of this message could not be taken away without what others have answered to it: it goes when its original
    /// is deleted.
    Kept(RemoteId),
    /// This reaction of our own is there now.
    Shown(Copy),
    /// This reaction of our own is gone.
    Hidden(RemoteId),
    /// A part of a message is gone; the others stay.
    Struck {
        /// The message.
        target: RemoteId,
        /// The part.
        slot: u32,
        /// The event by which it went.
        by: Copy,
    },
    /// Nothing yet: these messages of others would go with the one to be removed. Once that is written down,
    /// [`Outlet::remove_along`] removes them.
    TakesAlong(Along),
}

/// What a message says without edits that were redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextBefore {
    /// This, as an edit of it; by the edit that says so, if not by the message itself.
    Says(Box<Message>, Option<RemoteId>),
    /// The message was redacted itself.
    Redacted,
    /// Nobody here can read it.
    Unreadable,
}

/// Something that messages can be sent to: Matrix, or one silo.
#[async_trait]
pub trait Outlet: Send + Sync {
    /// What this delivery takes. Pure: no requests. Called once per delivery, the result is kept.
    fn plan(&self, outgoing: &Outgoing, now: Millis) -> Result<Plan, SendError>;

    /// What others know a channel of this side by, and our account in it.
    fn origin(&self, _channel: &Place) -> Option<Origin> {
        None
    }

    /// What a reaction takes, or its end: `reacted` is all that is known of the message, `key` what changes. `openly` says
    /// whether it may go in the clear into a place that is encrypted. Pure.
    fn show_reactions(
        &self,
        _outgoing: &Outgoing,
        _reacted: &[Reacted],
        _key: &str,
        _openly: bool,
        _now: Millis,
    ) -> Plan {
        Plan::Skip("no-reactions".to_owned())
    }

    /// One step that carries the first two or more of these new messages of one lane, oldest first, and how many
    /// of them; `None` where each goes by itself. Pure. Asked only while the account is limited.
    fn bundle(&self, _messages: &[Outgoing]) -> Option<(Step, usize)> {
        None
    }

    /// What an edit or a deletion takes whose message is the part `slot` of its copy. Pure.
    fn revise(&self, _outgoing: &Outgoing, _slot: u32) -> Plan {
        Plan::Skip("unknown-target".to_owned())
    }

    /// Performs one step. `key` is the same whenever the same step is tried again.
    async fn perform(&self, to: &Place, key: &str, step: &Step) -> Result<Done, SendError>;

    /// Whether a message of ours can be taken back here at all. Where not, a plan only says things.
    fn removes(&self) -> bool {
        true
    }

    /// Performs a [`Step::Remove`] that was answered with [`Done::TakesAlong`], which is written down by now.
    async fn remove_along(&self, _to: &Place, _step: &Step) -> Result<Done, SendError> {
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

    /// What a message that was written on this side says by now: what the first of these edits says that was not redacted,
    /// else what itself says.
    async fn text_before(
        &self,
        _from: &Place,
        _message: &RemoteId,
        _edits: &[RemoteId],
    ) -> Result<TextBefore, SendError> {
        Ok(TextBefore::Unreadable)
    }

    /// Fetches the picture of somebody who writes on this side.
    async fn picture(&self, _of: &Sender, _spool: &Spool) -> Result<Picture, SendError> {
        Err(SendError::Refused {
            reason: "people of this side have no pictures".to_owned(),
        })
    }

    /// Whether this author's picture must be handed over before what they say in `to` can show it.
    async fn wants_picture(&self, _to: &Place, _of: &Sender) -> bool {
        false
    }

    /// Takes it.
    async fn take_picture(&self, _: &Place, _: &Sender, _: &Picture) -> Result<(), SendError> {
        Ok(())
    }

    /// Fetches the small picture of what a file of this side shows (see [`File::has_preview`]).
    async fn preview(&self, _file: &File, _spool: &Spool) -> Result<Picture, SendError> {
        Err(without_files())
    }

    /// Performs a [`Step::Send`], whose file is here, with a small picture of what it shows, if there is one.
    async fn send_file(
        &self,
        _to: &Place,
        _key: &str,
        _step: &Step,
        _file: (&Spooled, Option<&Picture>),
    ) -> Result<Done, SendError> {
        Err(without_files())
    }

    /// Whether the same `key` twice makes one message. If not, the house marks a step as unsure before it is
    /// performed and asks [`Outlet::recall`] before it is repeated.
    fn dedupes(&self) -> bool;

    /// Messages of our own account in `to`, made at or after `since`, that look exactly like this step;
    /// oldest first. Asked only of outlets that do not dedupe.
    async fn recall(&self, to: &Place, step: &Step, since: Millis) -> Result<Vec<Copy>, SendError>;

    /// Where nobody can ever look on the other side for what became of a step: the reason, one sentence for a person. A
    /// new message of unknown outcome then ends as failed, is not repeated, and [`Outlet::recall`] is never asked.
    fn never_tells(&self) -> Option<&'static str> {
        None
    }

    /// Whether the other side has answered anything but steps since `since`: a sync, a feed. A message that
    /// fails while nothing is answered is not to blame.
    fn answers(&self, since: Millis) -> bool;

    /// Asked only of outlets that dedupe, before a step is performed again of which a try since `since` was never
    /// answered. `None`: the other side will know its key, or it certainly did not happen. An outlet that dedupes
    /// for ever need not look.
    async fn look_up(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        let _ = (to, key, step, since);
        Ok(None)
    }

    /// The same before what the step carries is sent under other keys: it is looked for in any case. `None`: it certainly
    /// did not happen.
    async fn find_sent(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        self.look_up(to, key, step, since).await
    }

    /// How long after an unsure step the other side may still publish it. The house looks several times
    /// within this span before it repeats the step.
    fn settle(&self) -> Duration;
}
