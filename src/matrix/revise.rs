//! Events of ours that carry several messages: one of these is changed or taken out by reading the event back, because no
//! text stays on our disk.

use footbridge_store::{Place, RemoteId};
use matrix_sdk::{
    Room,
    ruma::{EventId, OwnedTransactionId},
};
use serde_json::Value;

use super::{
    Matrix,
    convert::shared::{self, ReadBack, Revised},
    fault::Fault,
    send::{not_sent, redact},
};
use crate::outlet::{Done, Part, SendError};

impl Matrix {
    /// Rewrites an event that carries several messages: reads it back, puts the one part in its place, and sends
    /// the whole as its new text.
    pub(super) async fn revise_event(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        target: &RemoteId,
        (slot, part): (u32, Option<&Part>),
    ) -> Result<Done, SendError> {
        let parts = match self.read_back(room, target).await? {
            ReadBack::Parts(parts) => parts,
            ReadBack::Redacted => return Ok(Done::Gone(target.clone())),
            ReadBack::Unreadable => return Err(unchangeable(part)),
        };
        match shared::revised(parts, slot, part, target) {
            Revised::Event(event) => {
                self.send_event(room, to, key, event).await?;
                Ok(match part {
                    Some(_) => Done::Changed(target.clone()),
                    None => Done::Struck(target.clone(), slot),
                })
            }
            Revised::Nothing => redact(room, target, key).await,
            Revised::Impossible => Err(unchangeable(part)),
        }
    }

    /// An event of ours as it stands, from the homeserver.
    async fn read_back(&self, room: &Room, target: &RemoteId) -> Result<ReadBack, SendError> {
        let event = self.fetch_event(room, target).await?;
        let read = event.map(|event| shared::read_back(&event, self.own.as_str()));
        Ok(read.unwrap_or(ReadBack::Unreadable))
    }

    /// An event, decrypted; `None` where the homeserver has none of this id.
    pub(super) async fn fetch_event(
        &self,
        room: &Room,
        target: &RemoteId,
    ) -> Result<Option<Value>, SendError> {
        let Ok(id) = <&EventId>::try_from(target.as_str()) else {
            return Ok(None);
        };
        match room.event(id, None).await {
            Ok(event) => Ok(serde_json::from_str(event.raw().json().get()).ok()),
            Err(error) => match Fault::from(&error) {
                Fault::NotFound(_) => Ok(None),
                fault => Err(not_sent(&fault)),
            },
        }
    }
}

/// A part of an event cannot be changed: a new text can still be said anew, an old one cannot be taken back.
fn unchangeable(part: Option<&Part>) -> SendError {
    match part {
        Some(_) => SendError::TooLate,
        None => SendError::Refused {
            reason: "the bridge cannot read the message any more that it is a part of".into(),
        },
    }
}
