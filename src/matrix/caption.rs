//! Edits of a file's caption: the file's event is read back, and the whole of it is sent as the new content.

use footbridge_core::outlet::{Content, Done, SendError};
use footbridge_store::{Copy, Place, RemoteId};
use matrix_sdk::{Room, ruma::OwnedTransactionId};

use super::{
    Matrix,
    convert::{
        caption::{edited_caption_event, to_verify},
        event_content,
    },
    read_back::ReadBack,
};

impl Matrix {
    /// Changes the caption of a file. Where the file's event can no longer be read, the caption has to be sent as a new
    /// message.
    pub(super) async fn edit_caption(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        (target, content): (&RemoteId, &Content),
    ) -> Result<Done, SendError> {
        let old = match self.read_back(room, (to, target), to_verify).await? {
            ReadBack::Ours(old, _) => old,
            ReadBack::Redacted => return Ok(Done::Deleted(target.clone())),
            ReadBack::Unknown => return Err(SendError::TooLate),
        };
        // Where the file could not be sent, a text was sent in its place.
        let event = edited_caption_event(&old, content, target)
            .unwrap_or_else(|| event_content(content, None, None, Some(target)));
        let in_clear = event.get("url").is_some();
        if in_clear && self.guard.check(room, to).await? {
            // The room has been encrypted since: the URL of a plaintext file is not repeated.
            return Err(SendError::TooLate);
        }
        let event = self.with_avatar(room, to, content, event).await;
        let remote = self.events.send_message(room, to, key, event).await?;
        Ok(self.replaced(target, remote))
    }

    /// The outcome of an event that replaces the text of another one.
    pub(super) fn replaced(&self, target: &RemoteId, by: RemoteId) -> Done {
        Done::EditedBy {
            target: target.clone(),
            by: self.edit(by),
        }
    }

    /// The link of an event that replaces the text of another one.
    pub(super) fn edit(&self, remote: RemoteId) -> Copy {
        Copy {
            remote,
            thread: None,
            sent_at: self.clock.now(),
            file: None,
        }
    }
}
