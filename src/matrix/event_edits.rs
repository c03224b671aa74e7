//! Edits of events that have to be read back first, because the bridge keeps no text on disk: the caption of a file,
//! whose event is sent again as a whole, and one message among several that one event carries.

use std::sync::Arc;

use footbridge_core::{
    clock::Clock,
    outlet::{Content, Done, Part, SendError},
};
use footbridge_store::{Copy, Place, RemoteId};
use matrix_sdk::{Room, ruma::OwnedTransactionId};

use super::{
    avatars::Avatars,
    convert::{
        bundles::{self, RevisedParts},
        caption, event_content,
    },
    encryption_guard::EncryptionGuard,
    event_sender::EventSender,
    own_events::{OwnEvents, ReadBack},
    room_requests::redact,
};

/// Edits the account's own events.
#[derive(Debug)]
pub(super) struct EventEdits {
    own_events: Arc<OwnEvents>,
    guard: Arc<EncryptionGuard>,
    avatars: Arc<Avatars>,
    events: Arc<EventSender>,
    clock: Clock,
}

/// Which message of an event that carries several is changed, and into what; `None` removes it.
pub(super) struct PartEdit<'a> {
    /// The event.
    pub target: &'a RemoteId,
    pub slot: u32,
    pub part: Option<&'a Part>,
}

impl EventEdits {
    pub(super) fn of(
        own_events: Arc<OwnEvents>,
        guard: Arc<EncryptionGuard>,
        avatars: Arc<Avatars>,
        events: Arc<EventSender>,
        clock: Clock,
    ) -> Self {
        Self {
            own_events,
            guard,
            avatars,
            events,
            clock,
        }
    }

    /// Changes the caption of a file.
    ///
    /// # Errors
    /// [`SendError::TooLate`] where the file's event can no longer be read: the caption has to be sent as a new message.
    pub(super) async fn edit_caption(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        target: &RemoteId,
        content: &Content,
    ) -> Result<Done, SendError> {
        let read = self
            .own_events
            .read_back(room, to, target, caption::to_verify);
        let old = match read.await? {
            ReadBack::Ours(old, _) => old,
            ReadBack::Redacted => return Ok(Done::Deleted(target.clone())),
            ReadBack::Unknown => return Err(SendError::TooLate),
        };
        // Where the file could not be sent, a text was sent in its place.
        let event = caption::edited_caption_event(&old, content, target)
            .unwrap_or_else(|| event_content(content, None, None, Some(target)));
        let in_clear = event.get("url").is_some();
        if in_clear && self.guard.check(room, to).await? {
            // The room has been encrypted since: the URL of a plaintext file is not repeated.
            return Err(SendError::TooLate);
        }
        let event = self.avatars.attach(room, to, content, event).await;
        let remote = self.events.send_message(room, to, key, event).await?;
        Ok(replaced(target, edit_copy(remote, self.clock)))
    }

    /// Rewrites an event that carries several messages: reads it back, replaces or removes one part, and sends the
    /// whole as the event's new content.
    ///
    /// # Errors
    /// Where the event can no longer be read: [`SendError::TooLate`] for a changed text, which can still be sent as a
    /// new message, and [`SendError::Refused`] for a removed one.
    pub(super) async fn edit_part(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        edit: PartEdit<'_>,
    ) -> Result<Done, SendError> {
        let PartEdit { target, slot, part } = edit;
        let read = self
            .own_events
            .read_back(room, to, target, bundles::to_verify);
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
                    self.own_events
                        .save_next_digest(to, target, now, next)
                        .await?;
                }
                let remote = self.events.send_message(room, to, key, event).await?;
                // From here on an edit with older content does not count.
                self.own_events.save_digest(to, target, next).await?;
                let by = edit_copy(remote, self.clock);
                Ok(rewritten(target, slot, part, by))
            }
            RevisedParts::Nothing => redact(room, target, key).await,
            RevisedParts::Impossible => Err(unchangeable(part)),
        }
    }
}

/// The outcome of an event that replaces the text of another one.
pub(super) fn replaced(target: &RemoteId, by: Copy) -> Done {
    Done::EditedBy {
        target: target.clone(),
        by,
    }
}

/// The link of an event that replaces the text of another one, sent now.
pub(super) fn edit_copy(remote: RemoteId, clock: Clock) -> Copy {
    Copy {
        remote,
        thread: None,
        sent_at: clock.now(),
        file: None,
    }
}

/// The outcome of an event that replaces one that carries several messages.
pub(super) fn rewritten(target: &RemoteId, slot: u32, part: Option<&Part>, by: Copy) -> Done {
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
