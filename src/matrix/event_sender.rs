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
    ruma::{OwnedTransactionId, api::error::ErrorKind},
};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;
use tracing::error;

use super::{
    delivery_mark,
    encrypted_send::{EncryptedSender, SentEvent},
    encryption_guard::EncryptionGuard,
    key_rotation::KeyRotation,
    request_error::{RequestError, retry},
    room_requests::put,
    security_metrics::{SecurityClass, SecurityMetrics},
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
        delivery_mark::set(&mut content, key.as_str());
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
        delivery_mark::set(&mut content, key.as_str());
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
            return Err(RequestError::from(&error).into_unsent_error());
        }
        Ok(())
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
