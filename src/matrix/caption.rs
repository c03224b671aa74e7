//! Other words below a file of ours: the event is read back, and the whole of it sent anew as its new form.

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
    /// Changes what stands below a file. Where the file's event cannot be read any more, the words have to be said anew.
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
        // Where the file was not taken, words stand in its place.
        let event = edited_caption_event(&old, content, target)
            .unwrap_or_else(|| event_content(content, None, None, Some(target)));
        let in_clear = event.get("url").is_some();
        if in_clear && self.guard(room, to).await? {
            // The room was encrypted since: where the file lies in the clear is not said again.
            return Err(SendError::TooLate);
        }
        let event = self.with_avatar(room, to, content, event).await;
        let remote = self.send_event(room, to, key, event).await?;
        Ok(self.replaced(target, remote))
    }

    /// What an event has done that replaces the text of another one.
    pub(super) fn replaced(&self, target: &RemoteId, by: RemoteId) -> Done {
        Done::EditedBy {
            target: target.clone(),
            by: self.edit(by),
        }
    }

    /// An event that replaces the text of another one.
    pub(super) fn edit(&self, remote: RemoteId) -> Copy {
        Copy {
            remote,
            thread: None,
            sent_at: self.clock.now(),
            file: None,
        }
    }
}
