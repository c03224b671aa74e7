//! The requests that send an event to a room or redact one.

use footbridge_core::outlet::{Done, SendError};
use footbridge_store::RemoteId;
use matrix_sdk::{
    Room,
    room::futures::SendMessageLikeEventResult,
    ruma::{EventId, OwnedTransactionId, TransactionId},
};
use serde_json::Value;

use super::{crypto_store, request_error::RequestError};

/// Every unencrypted event and every event that the SDK encrypts is sent here; the caller has called
/// `EncryptionGuard::check`.
pub(super) async fn put(
    room: &Room,
    key: &TransactionId,
    event_type: &str,
    content: Value,
) -> matrix_sdk::Result<SendMessageLikeEventResult> {
    let sending = room.send_raw(event_type, content);
    crypto_store::sharing(sending.with_transaction_id(key).into_future()).await
}

/// Redacts an event. One that does not exist, or exists no longer, counts as redacted.
pub(super) async fn redact(
    room: &Room,
    target: &RemoteId,
    key: OwnedTransactionId,
) -> Result<Done, SendError> {
    let Ok(event) = <&EventId>::try_from(target.as_str()) else {
        return Err(SendError::Refused {
            reason: "the message to delete has no valid event id".into(),
        });
    };
    match room.redact(event, None, Some(key)).await {
        Ok(_) => Ok(Done::Deleted(target.clone())),
        Err(error) => match RequestError::from(&error) {
            RequestError::NotFound(_) => Ok(Done::Deleted(target.clone())),
            // The room is not closed to the bridge; only this event, of another user, cannot be redacted.
            RequestError::Forbidden(_) => Err(SendError::Refused {
                reason:
                    "the bridge has no permission to delete other people's messages in the room"
                        .into(),
            }),
            error => Err(error.into_send_error()),
        },
    }
}
