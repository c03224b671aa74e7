//! The one way out: every event that the bridge sends passes here, after the encryption check, with a transaction id
//! that never changes, so that the homeserver creates one event however often a send is retried.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use footbridge_core::{
    clock::Clock,
    outlet::{Done, Outcome, SendError},
    peer_bridges::PeerBridges,
};
use footbridge_store::{Copy, Place, RemoteId};
use matrix_sdk::{
    Room,
    room::futures::SendMessageLikeEventResult,
    ruma::{EventId, OwnedTransactionId, TransactionId, api::error::ErrorKind},
};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;
use tracing::error;

use super::{
    crypto_store,
    encrypted_send::{EncryptedSender, SentEvent},
    encryption_guard::EncryptionGuard,
    key_rotation::KeyRotation,
    request_error::{RequestError, retry},
    security_metrics::{SecurityClass, SecurityMetrics},
    unanswered_sends,
};

/// One event at a time into each room. Two lanes at once could both find the room key usable for one more message; the
/// SDK panics at the second.
#[derive(Debug, Default)]
struct RoomLocks(Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>);

impl RoomLocks {
    async fn take(&self, place: &Place) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(place.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

/// A reaction to send.
pub(super) struct Reaction<'a> {
    /// The message.
    pub target: &'a RemoteId,
    /// The emoji.
    pub key: &'a str,
    /// Whether to react although the room is encrypted and the reaction is not: Matrix never encrypts reactions.
    pub unencrypted: bool,
    /// Whether the reaction is the bridge's own, and not relayed from a channel.
    pub own: bool,
}

/// Sends the events of one account.
#[derive(Debug)]
pub(super) struct EventSender {
    guard: Arc<EncryptionGuard>,
    encrypted: EncryptedSender,
    rotation: Arc<KeyRotation>,
    /// Which channels the rooms are linked to.
    peer_bridges: PeerBridges,
    security: Arc<SecurityMetrics>,
    clock: Clock,
    turns: RoomLocks,
}

impl EventSender {
    /// `encrypted` sends into encrypted rooms, with the keys of which `rotation` knows how often each was used.
    pub(super) fn of(
        guard: Arc<EncryptionGuard>,
        encrypted: EncryptedSender,
        rotation: Arc<KeyRotation>,
        peer_bridges: PeerBridges,
        security: Arc<SecurityMetrics>,
        clock: Clock,
    ) -> Self {
        Self {
            guard,
            encrypted,
            rotation,
            peer_bridges,
            security,
            clock,
            turns: RoomLocks::default(),
        }
    }

    /// Sends a message, encrypted where the room is. Returns its event id.
    ///
    /// # Errors
    /// What the encryption check refuses and what the homeserver answers; where nothing was sent, the error says so.
    pub(super) async fn send_message(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        mut content: Value,
    ) -> Result<RemoteId, SendError> {
        unanswered_sends::mark(&mut content, key.as_str());
        self.peer_bridges.mark(to, &mut content);
        let _turn = self.turns.take(to).await;
        let must_encrypt = self.guard.check(room, to).await?;
        if must_encrypt && content.get("url").is_some() {
            // The file was uploaded unencrypted, and the room has been encrypted meanwhile.
            return Err(just_encrypted());
        }
        if must_encrypt {
            self.rotate(room, to).await?;
        }
        let sent = if must_encrypt {
            self.encrypted.send(room, &key, content).await
        } else {
            let sent = put(room, &key, "m.room.message", content).await;
            sent.map(SentEvent::from)
        };
        let sent = sent.map_err(|error| RequestError::from(&error).into_send_error())?;
        if must_encrypt && !sent.encrypted {
            self.security.record(SecurityClass::SentInClear, 1);
            error!(
                matrix.room = to.address(),
                "The SDK sent an unencrypted event into an encrypted room"
            );
        }
        Ok(RemoteId(sent.event.to_string()))
    }

    /// Reacts to a message; into an encrypted room only where the reaction may be unencrypted. A reaction that exists
    /// already counts as success.
    pub(super) async fn react(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        reaction: Reaction<'_>,
    ) -> Result<Done, SendError> {
        let _turn = self.turns.take(to).await;
        if self.guard.check(room, to).await? && !reaction.unencrypted {
            // At the retry the lane knows that the room is encrypted.
            return Err(just_encrypted());
        }
        let target = reaction.target;
        let mut content = json!({ "m.relates_to": {
            "rel_type": "m.annotation", "event_id": target.as_str(), "key": reaction.key,
        }});
        unanswered_sends::mark(&mut content, key.as_str());
        if !reaction.own {
            self.peer_bridges.mark(to, &mut content);
        }
        match put(room, &key, "m.reaction", content).await {
            Ok(sent) => Ok(Done::ReactionAdded(Copy {
                remote: RemoteId(sent.response.event_id.to_string()),
                thread: None,
                sent_at: self.clock.now(),
                file: None,
            })),
            Err(error) if is_duplicate(&error) => Ok(Done::Edited(target.clone())),
            Err(error) => Err(RequestError::from(&error).into_send_error()),
        }
    }

    /// Counts a send, and discards the room key where it has been used enough.
    async fn rotate(&self, room: &Room, to: &Place) -> Result<(), SendError> {
        if self.rotation.is_due(to)
            && let Err(error) = room.discard_room_key().await
        {
            self.rotation.end(to);
            return Err(not_sent(&RequestError::from(&error)));
        }
        Ok(())
    }
}

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

/// A request before the event was sent failed: whatever became of that request, the step was not done.
pub(super) fn not_sent(error: &RequestError) -> SendError {
    match error.clone() {
        RequestError::Unknown(why) => RequestError::NotSent(why).into_send_error(),
        error => error.into_send_error(),
    }
}

/// Encryption began between the preparation of an event and its send.
fn just_encrypted() -> SendError {
    retry(None, Outcome::NotDone, "the room has just been encrypted")
}

/// Whether the homeserver says that this account has made this reaction already.
fn is_duplicate(error: &matrix_sdk::Error) -> bool {
    matches!(
        error.client_api_error_kind(),
        Some(ErrorKind::DuplicateAnnotation)
    )
}
