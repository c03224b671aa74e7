//! Sending into an encrypted room. If all members have the room key and nothing has changed since the SDK checked that,
//! the event is encrypted with that key at once; otherwise the SDK goes through all members first.

use matrix_sdk::{
    Room,
    room::futures::SendMessageLikeEventResult,
    ruma::{
        OwnedEventId, TransactionId,
        api::client::message::send_message_event,
        events::{AnyMessageLikeEventContent, MessageLikeEventType},
        serde::Raw,
    },
};
use serde_json::Value;

use super::{Matrix, crypto_store, send::put};

/// An event that was sent.
pub(super) struct SentEvent {
    pub event: OwnedEventId,
    /// Whether it was sent encrypted.
    pub encrypted: bool,
}

impl From<SendMessageLikeEventResult> for SentEvent {
    fn from(sent: SendMessageLikeEventResult) -> Self {
        Self {
            event: sent.response.event_id,
            encrypted: sent.encryption_info.is_some(),
        }
    }
}

impl Matrix {
    /// Sends an event that must be encrypted. Must be called with the room's lock, after `EncryptionGuard::check` has confirmed
    /// that the SDK would encrypt it.
    pub(super) async fn send_encrypted(
        &self,
        room: &Room,
        key: &TransactionId,
        content: Value,
    ) -> matrix_sdk::Result<SentEvent> {
        if let Some(session) = self.keys.shared_key(room.room_id()) {
            let content: Raw<AnyMessageLikeEventContent> = Raw::new(&content)?.cast_unchecked();
            let encrypted = session.encrypt("m.room.message", &content).await.content;
            let request = send_message_event::v3::Request::new_raw(
                room.room_id().to_owned(),
                key.to_owned(),
                MessageLikeEventType::RoomEncrypted,
                encrypted.cast_unchecked(),
            );
            let response = self.account.client().send(request).await?;
            return Ok(SentEvent {
                event: response.event_id,
                encrypted: true,
            });
        }
        self.keys.quiet(room.room_id()).await;
        self.claims.before_send(room).await;
        let recipients = self.keys.recipients(room.room_id());
        let sending = put(room, key, "m.room.message", content);
        let sent = crypto_store::sending(&self.claims, sending).await?;
        let session = sent.encryption_info.as_ref();
        if let Some(id) = session.and_then(|info| info.session_id()) {
            self.keys.note_key_shared(room.room_id(), id, recipients);
        }
        Ok(sent.into())
    }
}
