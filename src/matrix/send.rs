//! Steps toward Matrix: each is one event with a transaction id that never changes, so that the homeserver creates one
//! event however often the step is retried.

use std::sync::Arc;

use async_trait::async_trait;
use footbridge_core::{
    capabilities::{Attribution, Capabilities},
    clock::Clock,
    file::File,
    image::Image,
    message::Sender,
    outlet::{self, Done, FetchedFile, Outlet, SendError, Step, TextBeforeEdit},
    spool::{Spool, Spooled},
};
use footbridge_store::{AccountId, Copy, Millis, Place, RemoteId};
use matrix_sdk::ruma::OwnedTransactionId;

use super::{
    avatars::Avatars,
    confusables::RoomNameTable,
    convert::{self, bundles},
    device::DeviceParts,
    event_edits::{EventEdits, PartEdit, edit_copy, replaced},
    event_sender::{EventSender, Reaction},
    file_sender::FileSender,
    own_events::OwnEvents,
    previous_text::PreviousTexts,
    room_access::RoomAccess,
    room_requests::redact,
    sync_state::SyncState,
    unanswered_sends::UnansweredSends,
};

/// Sends steps from one account.
#[derive(Debug)]
pub(super) struct MatrixOutlet {
    capabilities: Capabilities,
    clock: Clock,
    sync: Arc<SyncState>,
    access: RoomAccess,
    room_names: Arc<RoomNameTable>,
    avatars: Arc<Avatars>,
    events: Arc<EventSender>,
    own_events: Arc<OwnEvents>,
    edits: EventEdits,
    files: FileSender,
    unanswered_sends: UnansweredSends,
    previous_texts: PreviousTexts,
}

impl MatrixOutlet {
    pub(super) fn of(parts: &DeviceParts) -> Self {
        let (network, account, clock) = (&parts.network, &parts.account, parts.network.clock);
        let (store, flags) = (&network.store, &network.flags);
        let room_names = Arc::new(RoomNameTable::of(account.user().to_owned()));
        let own_events = Arc::new(OwnEvents::of(
            account.clone(),
            store.clone(),
            flags.clone(),
            network.security.clone(),
        ));
        let avatars = Arc::new(Avatars::of(
            account.clone(),
            store.clone(),
            clock,
            flags.clone(),
            parts.guard.clone(),
            parts.media.clone(),
        ));
        Self {
            capabilities: convert::CAPABILITIES,
            clock,
            sync: parts.sync.clone(),
            access: RoomAccess::of(parts.unjoined_rooms.clone(), parts.lease.clone()),
            events: parts.events.clone(),
            edits: EventEdits::of(
                own_events.clone(),
                parts.guard.clone(),
                avatars.clone(),
                parts.events.clone(),
                clock,
            ),
            files: FileSender {
                guard: parts.guard.clone(),
                media: parts.media.clone(),
                room_names: room_names.clone(),
                avatars: avatars.clone(),
                events: parts.events.clone(),
                own_events: own_events.clone(),
                clock,
            },
            unanswered_sends: UnansweredSends {
                account: account.clone(),
                store: store.clone(),
                clock,
                unjoined_rooms: parts.unjoined_rooms.clone(),
                own_events: own_events.clone(),
                own_accounts: network.own_accounts.clone(),
                device_since: parts.since,
                unknown_after: network.policy.timeouts.unknown_after,
            },
            previous_texts: PreviousTexts::of(
                account.clone(),
                store.clone(),
                flags.clone(),
                parts.reader.clone(),
            ),
            room_names,
            avatars,
            own_events,
        }
    }

    /// The way out of a person's account, which speaks for that person alone.
    pub(super) fn of_person(parts: &DeviceParts) -> Self {
        let outlet = Self::of(parts);
        Self {
            capabilities: Capabilities {
                attribution: Attribution::OwnAccount,
                bundles: false,
                ..convert::CAPABILITIES
            },
            access: outlet.access.of_person(parts.account.clone()),
            ..outlet
        }
    }
}

#[async_trait]
impl Outlet for MatrixOutlet {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn fetch(&self, file: &File, spool: &Spool) -> Result<Spooled, SendError> {
        self.files.download(file, spool).await
    }

    async fn text_before_edit(
        &self,
        from: &Place,
        message: &RemoteId,
        edits: &[RemoteId],
    ) -> Result<TextBeforeEdit, SendError> {
        self.previous_texts.find(from, message, edits).await
    }

    async fn needs_avatar(&self, to: &Place, of: &Sender) -> bool {
        self.avatars.needs(to, of).await
    }

    async fn upload_avatar(
        &self,
        to: &Place,
        of: &Sender,
        picture: &Image,
    ) -> Result<(), SendError> {
        self.avatars.upload_avatar(to, of, picture).await
    }

    async fn send_file(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        file: &FetchedFile,
    ) -> Result<Done, SendError> {
        let room = self.access.open(to).await?;
        let key = OwnedTransactionId::from(key);
        self.files.send(&room, to, key, step, file).await
    }

    async fn perform(&self, to: &Place, key: &str, step: &Step) -> Result<Done, SendError> {
        let room = self.access.open(to).await?;
        let key = OwnedTransactionId::from(key);
        match step {
            Step::Post {
                content,
                thread,
                reply_to,
            } => {
                let content = self.room_names.disambiguate(&room, to, content).await;
                let event =
                    convert::event_content(&content, thread.as_ref(), reply_to.as_ref(), None);
                let event = self.avatars.attach(&room, to, &content, event).await;
                let remote = self.events.send_message(&room, to, key, event).await?;
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
                let content = self.room_names.disambiguate(&room, to, content).await;
                if *is_caption {
                    let edited = self.edits.edit_caption(&room, to, key, target, &content);
                    return edited.await;
                }
                let event = convert::event_content(&content, None, None, Some(target));
                let event = self.avatars.attach(&room, to, &content, event).await;
                let remote = self.events.send_message(&room, to, key, event).await?;
                Ok(replaced(target, edit_copy(remote, self.clock)))
            }
            Step::Delete { target, .. } => redact(&room, target, key).await,
            Step::React {
                target,
                key: with,
                unencrypted,
                is_marker,
            } => {
                let reaction = Reaction {
                    target,
                    key: with,
                    unencrypted: *unencrypted,
                    own: *is_marker,
                };
                self.events.react(&room, to, key, reaction).await
            }
            Step::Unreact { shown } => redact(&room, shown, key)
                .await
                .map(|_| Done::ReactionRemoved(shown.clone())),
            Step::Bundle { parts, thread } => {
                let event =
                    bundles::event_of(parts, thread.as_ref(), None).ok_or_else(not_writable)?;
                let digest_input = bundles::to_verify(&event);
                let remote = self.events.send_message(&room, to, key, event).await?;
                self.own_events
                    .save_digest(to, &remote, digest_input)
                    .await?;
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
                let edit = PartEdit {
                    target,
                    slot: *slot,
                    part: part.as_ref(),
                };
                self.edits.edit_part(&room, to, key, edit).await
            }
        }
    }

    fn has_answered_since(&self, since: Millis) -> bool {
        self.sync.last_sync().is_some_and(|at| at >= since)
    }

    async fn find_by_key(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        self.unanswered_sends.find(to, key, step, since).await
    }

    async fn find_sent_by(
        &self,
        account: AccountId,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        self.unanswered_sends
            .find_sent_by(account, to, key, step, since)
            .await
    }

    async fn find_by_key_always(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        self.unanswered_sends
            .find_always(to, key, step, since)
            .await
    }
}

fn not_writable() -> SendError {
    SendError::Refused {
        reason: "it cannot be converted to an event".into(),
    }
}
