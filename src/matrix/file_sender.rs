//! Files of messages: one is downloaded and verified; or it is uploaded, encrypted for encrypted rooms, and then its
//! event is sent.

use std::sync::Arc;

use footbridge_core::{
    clock::Clock,
    file::File,
    outlet::{Done, FetchedFile, SendError, Step, no_files_error},
    spool::{Spool, Spooled},
};
use footbridge_store::{Copy, Place};
use matrix_sdk::{Room, ruma::OwnedTransactionId};
use tracing::debug;

use super::{
    avatars::Avatars,
    confusables::RoomNameTable,
    convert::{self, files},
    encryption_guard::EncryptionGuard,
    event_sender::EventSender,
    media::Media,
    own_events::OwnEvents,
};

/// Fetches and sends the files of one account.
#[derive(Debug)]
pub(super) struct FileSender {
    pub guard: Arc<EncryptionGuard>,
    pub media: Arc<Media>,
    pub room_names: Arc<RoomNameTable>,
    pub avatars: Arc<Avatars>,
    pub events: Arc<EventSender>,
    pub own_events: Arc<OwnEvents>,
    pub clock: Clock,
}

impl FileSender {
    /// Downloads a file of a room, complete and verified.
    ///
    /// # Errors
    /// [`SendError::Refused`] where the file is gone, too large or not what its event says.
    pub(super) async fn download(&self, file: &File, spool: &Spool) -> Result<Spooled, SendError> {
        self.media.download(file, spool).await
    }

    /// Uploads a file, with its thumbnail where there is one, and sends its event.
    ///
    /// # Errors
    /// As an upload and a message; a thumbnail that cannot be uploaded is left out.
    pub(super) async fn send(
        &self,
        room: &Room,
        to: &Place,
        key: OwnedTransactionId,
        step: &Step,
        fetched: &FetchedFile,
    ) -> Result<Done, SendError> {
        let Step::SendFile {
            file,
            content,
            thread,
            reply_to,
            ..
        } = step
        else {
            return Err(no_files_error());
        };
        let FetchedFile { spooled, thumbnail } = fetched;
        let encrypted = self.guard.check(room, to).await?;
        let address = self
            .media
            .upload_file(spooled, file.safe_type(), encrypted)
            .await?;
        let content = self.room_names.disambiguate(room, to, content).await;
        let mut event = files::event_of(file, spooled, &content, &address, encrypted);
        if let Some(preview) = thumbnail {
            // Without a thumbnail the file is sent all the same.
            match self
                .media
                .upload_file(&preview.bytes, preview.mime, encrypted)
                .await
            {
                Ok(address) => files::put_thumbnail(&mut event, file, preview, &address, encrypted),
                Err(error) => debug!(%error, "A thumbnail is missing"),
            }
        }
        convert::relate(&mut event, thread.as_ref(), reply_to.as_ref());
        let event = self.avatars.attach(room, to, &content, event).await;
        let digest_input = convert::caption::to_verify(&event);
        let remote = self.events.send_message(room, to, key, event).await?;
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
}
