//! Sending into an encrypted room. If all members have the room key and nothing has changed since the SDK checked that,
//! the event is encrypted with that key at once; otherwise the SDK goes through all members first.

use std::sync::Arc;

use matrix_sdk::{
    Client, Room,
    room::futures::SendMessageLikeEventResult,
    ruma::{
        OwnedEventId, TransactionId,
        api::client::message::send_message_event,
        events::{AnyMessageLikeEventContent, MessageLikeEventType},
        serde::Raw,
    },
};
use serde_json::Value;

use super::{
    crypto_store::{self, BufferedCryptoStore},
    key_claims::KeyClaims,
    room_requests::put,
};

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

/// Sends into encrypted rooms.
#[derive(Debug)]
pub(super) struct EncryptedSender {
    client: Client,
    keys: Arc<BufferedCryptoStore>,
    claims: Arc<KeyClaims>,
}

impl EncryptedSender {
    /// With the client's crypto store, and with what establishes its Olm sessions.
    pub(super) fn of(
        client: Client,
        keys: Arc<BufferedCryptoStore>,
        claims: Arc<KeyClaims>,
    ) -> Self {
        Self {
            client,
            keys,
            claims,
        }
    }

    /// Sends an event that must be encrypted. Must be called with the room's lock, after `EncryptionGuard::check` has confirmed
    /// that the SDK would encrypt it.
    pub(super) async fn send(
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
            let response = self.client.send(request).await?;
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
