//! Steps toward Matrix: each is one event with a transaction id that never changes, so that the homeserver creates one
//! event however often the step is retried.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use footbridge_core::{
    file::File,
    image::Image,
    message::Sender,
    outlet::{self, Done, Outcome, Outgoing, Outlet, Plan, SendError, Step, TextBeforeEdit},
    reactions::{ReactionState, plan_native},
    spool::{Spool, Spooled},
};
use footbridge_store::{Copy, Millis, Place, RemoteId, SkipRule};
use matrix_sdk::{
    Room, RoomState,
    room::futures::SendMessageLikeEventResult,
    ruma::{EventId, OwnedTransactionId, TransactionId},
};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;
use tracing::error;

use super::{
    Matrix, MatrixError,
    convert::{self, bundles},
    crypto_store,
    encrypted_send::SentEvent,
    reactions::ReactOptions,
    request_error::{RequestError, retry},
    security_metrics::SecurityClass,
    unanswered_sends,
};

/// One event at a time into each room. Two lanes at once could both find the room key usable for one more message; the
/// SDK panics at the second.
#[derive(Debug, Default)]
pub(super) struct RoomLocks(Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>);

impl RoomLocks {
    pub(super) async fn take(&self, place: &Place) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(place.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

#[async_trait]
impl Outlet for Matrix {
    fn plan(&self, outgoing: &Outgoing, _now: Millis) -> Result<Plan, SendError> {
        Ok(convert::plan(outgoing))
    }

    async fn fetch(&self, file: &File, spool: &Spool) -> Result<Spooled, SendError> {
        self.download(file, spool).await
    }

    async fn text_before_edit(
        &self,
        from: &Place,
        message: &RemoteId,
        edits: &[RemoteId],
    ) -> Result<TextBeforeEdit, SendError> {
        self.find_previous_text(from, message, edits).await
    }

    async fn needs_avatar(&self, to: &Place, of: &Sender) -> bool {
        self.needs_avatar(to, of).await
    }

    async fn upload_avatar(
        &self,
        to: &Place,
        of: &Sender,
        picture: &Image,
    ) -> Result<(), SendError> {
        self.upload_avatar(to, of, picture).await
    }

    async fn send_file(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        file: (&Spooled, Option<&Image>),
    ) -> Result<Done, SendError> {
        let room = self.open_room(to).await?;
        self.send_media(&room, to, OwnedTransactionId::from(key), step, file)
            .await
    }

    async fn perform(&self, to: &Place, key: &str, step: &Step) -> Result<Done, SendError> {
        let room = self.open_room(to).await?;
        let key = OwnedTransactionId::from(key);
        match step {
            Step::Post {
                content,
                thread,
                reply_to,
            } => {
                let content = self.disambiguate(&room, to, content).await;
                let event =
                    convert::event_content(&content, thread.as_ref(), reply_to.as_ref(), None);
                let event = self.with_avatar(&room, to, &content, event).await;
                let remote = self.send_event(&room, to, key, event).await?;
                Ok(Done::Created(Copy {
                    remote,
                    thread: thread.clone(),
                    sent_at: self.clock.now(),
                    file: None,
                }))
            }
            Step::SendFile { .. } => Err(outlet::no_files_error()),
            Step::Edit {
                target,
                content,
                is_caption,
                ..
            } => {
                let content = self.disambiguate(&room, to, content).await;
                if *is_caption {
                    let edit = (target, &content);
                    return self.edit_caption(&room, to, key, edit).await;
                }
                let event = convert::event_content(&content, None, None, Some(target));
                let event = self.with_avatar(&room, to, &content, event).await;
                let remote = self.send_event(&room, to, key, event).await?;
                Ok(self.replaced(target, remote))
            }
            Step::Delete { target, .. } => redact(&room, target, key).await,
            Step::React {
                target,
                key: with,
                unencrypted,
                is_marker,
            } => {
                let how = ReactOptions {
                    unencrypted: *unencrypted,
                    own: *is_marker,
                };
                self.react(&room, to, key, (target, with, how)).await
            }
            Step::Unreact { shown } => redact(&room, shown, key)
                .await
                .map(|_| Done::ReactionRemoved(shown.clone())),
            Step::Bundle { parts, thread } => {
                let event =
                    bundles::event_of(parts, thread.as_ref(), None).ok_or_else(not_writable)?;
                let digest_input = bundles::to_verify(&event);
                let remote = self.send_event(&room, to, key, event).await?;
                self.save_event_digest(to, &remote, digest_input).await?;
                Ok(Done::Created(Copy {
                    remote,
                    thread: thread.clone(),
                    sent_at: self.clock.now(),
                    file: None,
                }))
            }
            Step::EditPart {
                target, slot, part, ..
            } => {
                let part = (*slot, part.as_ref());
                self.edit_bundle(&room, to, key, target, part).await
            }
        }
    }

    fn has_answered_since(&self, since: Millis) -> bool {
        self.last_sync().is_some_and(|at| at >= since)
    }

    fn plan_bundle(&self, messages: &[Outgoing]) -> Option<(Step, usize)> {
        bundles::bundle(messages)
    }

    fn plan_part_edit(&self, outgoing: &Outgoing, slot: u32) -> Plan {
        bundles::revise(outgoing, slot)
    }

    fn plan_reactions(
        &self,
        outgoing: &Outgoing,
        reacted: &[ReactionState],
        key: &str,
        unencrypted: bool,
        _now: Millis,
    ) -> Plan {
        match outgoing.copies.first() {
            Some(copy) => {
                let same = (key, |other: &str| other == key);
                plan_native(reacted, same, &copy.remote, unencrypted)
            }
            None => Plan::Skip(SkipRule::UnknownTarget),
        }
    }

    fn keeps_earlier_texts(&self) -> bool {
        true
    }

    fn is_idempotent(&self) -> bool {
        true
    }

    async fn find_similar(
        &self,
        _to: &Place,
        _step: &Step,
        _since: Millis,
    ) -> Result<Vec<Copy>, SendError> {
        Ok(Vec::new())
    }

    fn settle_time(&self) -> Duration {
        Duration::ZERO
    }

    async fn find_by_key(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        self.find_unanswered_send(to, key, step, since).await
    }

    async fn find_by_key_always(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        self.find_in_room(to, key, step, since).await
    }
}

impl Matrix {
    /// The room, if the account may write into it.
    async fn open_room(&self, to: &Place) -> Result<Room, SendError> {
        let room = self.known_room(to).await?;
        match room.state() {
            RoomState::Joined => {}
            RoomState::Left | RoomState::Banned => return Err(self.closed(to).await),
            RoomState::Invited | RoomState::Knocked if self.is_unjoined(to) => {
                return Err(self.closed(to).await);
            }
            // The invite is accepted as soon as a sync shows it.
            RoomState::Invited | RoomState::Knocked => {
                return Err(RequestError::NotJoined.into_send_error());
            }
        }
        self.ensure_lease().await.map_err(lease_error)?;
        Ok(room)
    }

    pub(super) async fn send_event(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        mut content: Value,
    ) -> Result<RemoteId, SendError> {
        unanswered_sends::mark(&mut content, key.as_str());
        self.peer_bridges.mark(to, &mut content);
        let _turn = self.turns.take(to).await;
        let must_encrypt = self.guard(room, to).await?;
        if must_encrypt && content.get("url").is_some() {
            // The file was uploaded unencrypted, and the room has been encrypted meanwhile.
            return Err(retry(
                None,
                Outcome::NotDone,
                "the room has just been encrypted",
            ));
        }
        if must_encrypt {
            self.rotate(room, to).await?;
        }
        let sent = if must_encrypt {
            self.send_encrypted(room, &key, content).await
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

/// Every unencrypted event and every event that the SDK encrypts is sent here; the caller has called `Matrix::guard`.
pub(super) async fn put(
    room: &Room,
    key: &TransactionId,
    event_type: &str,
    content: Value,
) -> matrix_sdk::Result<SendMessageLikeEventResult> {
    let sending = room.send_raw(event_type, content);
    crypto_store::sharing(sending.with_transaction_id(key).into_future()).await
}

/// Nothing is sent before it is certain that this store is the newest of its device.
fn lease_error(error: MatrixError) -> SendError {
    match error {
        MatrixError::SignedOut(reason) => SendError::SignedOut { reason },
        error => retry(None, Outcome::NotDone, &format!("{error:#}")),
    }
}

fn not_writable() -> SendError {
    SendError::Refused {
        reason: "it cannot be converted to an event".into(),
    }
}

/// A request before the event was sent failed: whatever became of that request, the step was not done.
pub(super) fn not_sent(error: &RequestError) -> SendError {
    match error.clone() {
        RequestError::Unknown(why) => RequestError::NotSent(why).into_send_error(),
        error => error.into_send_error(),
    }
}

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
            // The event never existed, or exists no longer: the step is done.
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
