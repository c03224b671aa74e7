//! Avatars of authors beside their messages (MSC4144): uploaded once each, encrypted for encrypted rooms, and then
//! reused.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use footbridge_core::{
    clock::Clock,
    image::Image,
    message::Sender,
    outlet::{Content, Outcome, SendError},
};
use footbridge_store::{Place, Store};
use matrix_sdk::Room;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    account_client::AccountClient, convert::put_avatar, encryption_guard::EncryptionGuard,
    media::Media, request_error::retry, room_flags::RoomFlags,
};

/// The shortest time between two requests for one person's avatar, whatever became of the first.
const RETRY_AFTER: Duration = Duration::from_mins(10);
/// The most people whose requests are remembered.
const MAX_PEOPLE: usize = 10_000;

/// Whose avatars were requested, and when.
#[derive(Debug, Default)]
struct AvatarRequests(Mutex<HashMap<String, Instant>>);

impl AvatarRequests {
    /// Whether to request the avatar now.
    fn may(&self, who: String) -> bool {
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if requests
            .get(&who)
            .is_some_and(|at| at.elapsed() < RETRY_AFTER)
        {
            return false;
        }
        if requests.len() >= MAX_PEOPLE {
            requests.retain(|_, at| at.elapsed() < RETRY_AFTER);
        }
        if requests.len() >= MAX_PEOPLE {
            return false;
        }
        requests.insert(who, Instant::now());
        true
    }
}

/// The avatars that this account shows.
#[derive(Debug)]
pub(super) struct Avatars {
    account: AccountClient,
    store: Store,
    clock: Clock,
    flags: Arc<RoomFlags>,
    guard: Arc<EncryptionGuard>,
    media: Arc<Media>,
    requests: AvatarRequests,
}

impl Avatars {
    pub(super) fn of(
        account: AccountClient,
        store: Store,
        clock: Clock,
        flags: Arc<RoomFlags>,
        guard: Arc<EncryptionGuard>,
        media: Arc<Media>,
    ) -> Self {
        Self {
            account,
            store,
            clock,
            flags,
            guard,
            media,
            requests: AvatarRequests::default(),
        }
    }

    /// Whether an avatar has to be uploaded before this room can show it, and may be uploaded now.
    pub(super) async fn needs(&self, to: &Place, of: &Sender) -> bool {
        let (Some(room), Some(avatar)) = (self.account.room(to), &of.avatar) else {
            return false;
        };
        let encrypted = self.needs_encryption(&room, to).await;
        let known = self
            .store
            .uploaded_avatar(&self.key(encrypted, avatar))
            .await;
        matches!(known, Ok(None)) && self.requests.may(format!("{encrypted} {}", of.id))
    }

    /// Uploads an avatar for this room and for all others of the same kind, encrypted or not.
    pub(super) async fn upload_avatar(
        &self,
        to: &Place,
        of: &Sender,
        picture: &Image,
    ) -> Result<(), SendError> {
        let (Some(room), Some(avatar)) = (self.account.room(to), &of.avatar) else {
            return Ok(());
        };
        let encrypted = self.guard.check(&room, to).await?;
        let address = self
            .media
            .upload_file(&picture.bytes, picture.mime, encrypted)
            .await?;
        let saved = if encrypted {
            let mut file = picture.bytes.key_json().clone();
            if let Some(file) = file.as_object_mut() {
                file.insert("url".to_owned(), json!(address));
            }
            json!({ "avatar_file": file })
        } else {
            json!({ "avatar_url": address })
        };
        let saved = saved.to_string().into_bytes();
        let (which, now) = (self.key(encrypted, avatar), self.clock.now());
        let kept = self.store.save_uploaded_avatar(&which, saved, now).await;
        kept.map_err(|error| retry(None, Outcome::NotDone, &error.to_string()))
    }

    /// Adds the author's avatar to the event, where it has been uploaded.
    pub(super) async fn attach(
        &self,
        room: &Room,
        to: &Place,
        content: &Content,
        mut event: Value,
    ) -> Value {
        let author = content.author.as_ref();
        if let Some(avatar) = author.and_then(|author| author.avatar.as_ref()) {
            let encrypted = self.needs_encryption(room, to).await;
            let saved = self
                .store
                .uploaded_avatar(&self.key(encrypted, avatar))
                .await;
            let saved = saved.ok().flatten().unwrap_or_default();
            if let Ok(picture) = serde_json::from_slice(&saved) {
                put_avatar(&mut event, &picture);
            }
        }
        event
    }

    /// Whether media for this room must be encrypted.
    async fn needs_encryption(&self, room: &Room, to: &Place) -> bool {
        room.encryption_state().is_encrypted() || self.flags.was_encrypted(to).await.unwrap_or(true)
    }

    /// The key of an uploaded avatar: another account uploads it anew.
    fn key(&self, encrypted: bool, avatar: &str) -> String {
        let kind = if encrypted { "sealed" } else { "clear" };
        format!("{} {kind} {avatar}", self.account.user())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn c16_frequent_changes_of_an_avatar_cause_few_downloads() {
        let requests = AvatarRequests::default();
        assert!(requests.may("ann".to_owned()) && requests.may("bob".to_owned()));
        assert!(!requests.may("ann".to_owned()));
        tokio::time::advance(RETRY_AFTER).await;
        assert!(requests.may("ann".to_owned()));
    }
}
