//! Edits of events that carry several messages: one message is changed or removed by reading the event back, because
//! the bridge keeps no text on disk.

use footbridge_core::outlet::{Done, Part, SendError};
use footbridge_store::{Copy, Place, RemoteId};
use matrix_sdk::{Room, ruma::OwnedTransactionId};

use super::{
    Matrix,
    convert::bundles::{self, RevisedParts},
    event_sender::redact,
    read_back::ReadBack,
};

impl Matrix {
    /// Rewrites an event that carries several messages: reads it back, replaces or removes one part, and sends the
    /// whole as the event's new content.
    pub(super) async fn edit_bundle(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        target: &RemoteId,
        (slot, part): (u32, Option<&Part>),
    ) -> Result<Done, SendError> {
        let read = self.read_back(room, (to, target), bundles::to_verify);
        let (content, now) = match read.await? {
            ReadBack::Ours(content, now) => (content, now),
            ReadBack::Redacted => return Ok(Done::Deleted(target.clone())),
            ReadBack::Unknown => return Err(unchangeable(part)),
        };
        let parts = bundles::parts_in(&content).ok_or_else(|| unchangeable(part))?;
        match bundles::revised(parts, slot, part, target) {
            RevisedParts::Event(event) => {
                let next = event.get("m.new_content").and_then(bundles::to_verify);
                if let (Some(now), Some(next)) = (&now, &next) {
                    self.save_next_event_digest(to, target, (now, next)).await?;
                }
                let remote = self.events.send_message(room, to, key, event).await?;
                // From here on an edit with older content does not count.
                self.save_event_digest(to, target, next).await?;
                Ok(rewritten((target, slot), part, self.edit(remote)))
            }
            RevisedParts::Nothing => redact(room, target, key).await,
            RevisedParts::Impossible => Err(unchangeable(part)),
        }
    }
}

/// The outcome of an event that edits another one.
pub(super) fn rewritten((target, slot): (&RemoteId, u32), part: Option<&Part>, by: Copy) -> Done {
    let target = target.clone();
    match part {
        Some(_) => Done::EditedBy { target, by },
        None => Done::PartRemoved { target, slot, by },
    }
}

/// A part of an event cannot be changed. An edited text can still be sent as a new message; a deletion cannot be done.
fn unchangeable(part: Option<&Part>) -> SendError {
    match part {
        Some(_) => SendError::TooLate,
        None => SendError::Refused {
            reason: "the bridge can no longer read the event that carries the message".into(),
        },
    }
}
