//! Neutral content, and how it becomes the texts of one side. A renderer takes the tree of a text, never a string of another markup,
//! and cuts what is too long where its own markup allows it. The result is what a step sends: it is saved with the plan, so that a
//! step whose outcome is unknown is looked for by the very text that it had.

mod html;
mod plain;

use std::fmt::Debug;

pub use html::{Html, PROFILE_FALLBACK, html_name, json_length};
pub use plain::Plain;

use crate::{
    capabilities::{Attribution, TextLimit},
    message::{Sender, Style},
    outlet::Content,
    text::Body,
};

/// What one message says, before it is written in the markup of a side.
#[derive(Clone, Copy, Debug)]
pub struct Speech<'a> {
    /// Who says it: a person, or the bridge itself, which is never named.
    pub sender: &'a Sender,
    /// Where the name of the sender goes.
    pub attribution: Attribution,
    /// What kind of text it is.
    pub kind: SpeechKind,
    /// The text.
    pub body: &'a Body,
    /// Whether later messages may have overtaken it.
    pub late: bool,
    /// The mark of a reply, before the text.
    pub reply_mark: &'static str,
    /// The mark of an edit, behind the text.
    pub edit_mark: &'static str,
}

/// What kind of text a speech is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeechKind {
    /// What the sender wrote.
    Said(Style),
    /// What the sender did, in words of the bridge: `sent a poll: tea?`.
    Summary,
    /// A notice of the bridge or of the network, without a sender.
    Notice,
}

impl<'a> Speech<'a> {
    /// Another text of the same sender.
    #[must_use]
    pub fn saying<'b>(self, body: &'b Body, kind: SpeechKind) -> Speech<'b>
    where
        'a: 'b,
    {
        Speech { kind, body, ..self }
    }

    /// The sender who is to be named: unless the bridge speaks, or the account that posts is the sender's own.
    #[must_use]
    pub fn author(&self) -> Option<&'a Sender> {
        let is_named = self.is_by_person() && self.attribution != Attribution::OwnAccount;
        is_named.then_some(self.sender)
    }

    /// Whether a person speaks through an account of their own.
    #[must_use]
    pub fn is_by_own_account(&self) -> bool {
        self.is_by_person() && self.attribution == Attribution::OwnAccount
    }

    fn is_by_person(&self) -> bool {
        self.kind != SpeechKind::Notice && !self.sender.is_bridge()
    }

    /// What stands before a text that later messages may have overtaken. A notice is never marked.
    #[must_use]
    pub fn late_mark(&self) -> &'static str {
        if self.late && self.kind != SpeechKind::Notice {
            "(delayed) "
        } else {
            ""
        }
    }
}

/// Writes neutral content in the markup of one side.
pub trait Renderer: Debug + Send + Sync {
    /// The speech as one content, however long.
    fn whole(&self, speech: &Speech<'_>) -> Content;

    /// The speech in as many contents as the limit requires, at least one.
    fn render(&self, speech: &Speech<'_>, limit: TextLimit) -> Vec<Content>;

    /// The new text of a message in as many contents as the limit requires. Each comes in two forms: as it replaces an old text, and
    /// as a message of its own with a link to the old one.
    fn render_edit(
        &self,
        speech: &Speech<'_>,
        limit: TextLimit,
        _permalink: Option<&str>,
    ) -> Vec<EditedContent> {
        let contents = self.render(speech, limit).into_iter();
        contents
            .map(|content| EditedContent {
                pointing: content.clone(),
                replacing: content,
            })
            .collect()
    }
}

/// A content of an edit.
#[derive(Clone, Debug)]
pub struct EditedContent {
    /// As the new text of the old message.
    pub replacing: Content,
    /// As a message of its own that links to the old one.
    pub pointing: Content,
}
