//! What other places have of a message: one copy, and the copies of one entry.

use crate::{DeliveryId, EntryId, Millis, Place, RemoteId};

/// One copy of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Its id in its place.
    pub remote: RemoteId,
    /// The first message of the thread it belongs to there, if any.
    pub thread: Option<RemoteId>,
    /// When it was sent, by the clock of its network.
    pub sent_at: Millis,
    /// Which file of the message it carries: a digest of the file's location on the side it comes from, after
    /// [`Copy::UNSENT_FILE_PREFIX`] where a line names the file instead. Empty where it carries text, `None` where that is not
    /// known.
    pub file: Option<String>,
}

impl Copy {
    /// Stands before the digest of a file that could not be sent; no digest begins with it.
    pub const UNSENT_FILE_PREFIX: char = '~';

    /// [`Copy::file`] of a line that replaces the file with this digest.
    #[must_use]
    pub fn placeholder_for(digest: &str) -> String {
        format!("{}{digest}", Self::UNSENT_FILE_PREFIX)
    }

    /// The digest of the file that it carries or names; `None` where it has text only, or where that is not known.
    #[must_use]
    pub fn file_digest(&self) -> Option<&str> {
        let file = self.file.as_deref()?;
        let digest = file.trim_start_matches(Self::UNSENT_FILE_PREFIX);
        (!digest.is_empty()).then_some(digest)
    }

    /// Whether a line of text replaces a file that could not be sent.
    #[must_use]
    pub fn is_file_placeholder(&self) -> bool {
        let file = self.file.as_ref();
        file.is_some_and(|file| file.starts_with(Self::UNSENT_FILE_PREFIX))
    }
}

/// The copies of one entry in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// The entry, if the id is known.
    pub entry: Option<EntryId>,
    /// Where it was written.
    pub home: Option<Place>,
    /// Its copies in the place asked for, in part order.
    pub copies: Vec<Copy>,
    /// The copies that somebody else deleted there, each with the number of `copies` before it.
    pub removed_by_others: Vec<(usize, Copy)>,
    /// Where an edit is an event of its own: the copy that it replaces, and the event, oldest first. Of a bundled copy the edits
    /// of all its entries, and of deleted copies as well.
    pub edits: Vec<(RemoteId, RemoteId)>,
    /// Which part of the first copy is the entry's, where it is a bundled one.
    pub slot: Option<u32>,
    /// Whether a copy that is or was the entry's contains parts of other entries.
    pub shared: bool,
    /// Copies that an edit replaced and could not delete completely: no later edit changes them, and they are deleted with the
    /// message.
    pub leftovers: Vec<RemoteId>,
    /// The pending delivery of the entry to that place.
    pub pending: Option<DeliveryId>,
}

impl Copies {
    /// The copies, also those that somebody else deleted, in part order.
    #[must_use]
    pub fn with_removed(&self) -> Vec<Copy> {
        let mut all = self.copies.clone();
        for (before, copy) in self.removed_by_others.iter().rev() {
            all.insert((*before).min(all.len()), copy.clone());
        }
        all
    }
}
