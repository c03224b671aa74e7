//! Pictures of people beside what they say (MSC4144): uploaded once each, encrypted for rooms that are, and then used again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use footbridge_core::{
    image::Image,
    message::Sender,
    outlet::{Content, Outcome, SendError},
};
use footbridge_store::Place;
use matrix_sdk::Room;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Matrix, convert::put_avatar, request_error::retry};

/// A person's picture is asked for this often at most, whatever became of it.
const RETRY_AFTER: Duration = Duration::from_mins(10);
/// The most people that are remembered for that.
const MAX_PEOPLE: usize = 10_000;

/// Whose pictures were asked for, and when.
#[derive(Debug, Default)]
pub(super) struct AvatarRequests(Mutex<HashMap<String, Instant>>);

impl AvatarRequests {
    /// Whether to ask now.
    fn may(&self, who: String) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.get(&who).is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return false;
        }
        if asked.len() >= MAX_PEOPLE {
            asked.retain(|_, at| at.elapsed() < RETRY_AFTER);
        }
        if asked.len() >= MAX_PEOPLE {
            return false;
        }
        asked.insert(who, Instant::now());
        true
    }
}

impl Matrix {
    /// Whether a picture has to be uploaded before it can be shown in this room, and may be now.
    pub(super) async fn needs_avatar(&self, to: &Place, of: &Sender) -> bool {
        let (Some(room), Some(avatar)) = (self.room(to), &of.avatar) else {
            return false;
        };
        let sealed = self.needs_encryption(&room, to).await;
        let known = self
            .store
            .uploaded_avatar(&self.avatar_key(sealed, avatar))
            .await;
        matches!(known, Ok(None)) && self.asked.may(format!("{sealed} {}", of.id))
    }

    /// Uploads a picture for this room and all others of its kind.
    pub(super) async fn upload_avatar(
        &self,
        to: &Place,
        of: &Sender,
        picture: &Image,
    ) -> Result<(), SendError> {
        let (Some(room), Some(avatar)) = (self.room(to), &of.avatar) else {
            return Ok(());
        };
        let sealed = self.guard(&room, to).await?;
        let address = self
            .upload_media(&picture.bytes, picture.mime, sealed)
            .await?;
        let letter = if sealed {
            let mut file = picture.bytes.key_json().clone();
            if let Some(file) = file.as_object_mut() {
                file.insert("url".to_owned(), json!(address));
            }
            json!({ "avatar_file": file })
        } else {
            json!({ "avatar_url": address })
        };
        let letter = letter.to_string().into_bytes();
        let (which, now) = (self.avatar_key(sealed, avatar), self.clock.now());
        let kept = self.store.save_uploaded_avatar(&which, letter, now).await;
        kept.map_err(|error| retry(None, Outcome::NotDone, &error.to_string()))
    }

    /// The event with its author's picture, where that has been uploaded.
    pub(super) async fn with_avatar(
        &self,
        room: &Room,
        to: &Place,
        content: &Content,
        mut event: Value,
    ) -> Value {
        let author = content.author.as_ref();
        if let Some(avatar) = author.and_then(|author| author.avatar.as_ref()) {
            let sealed = self.needs_encryption(room, to).await;
            let letter = self
                .store
                .uploaded_avatar(&self.avatar_key(sealed, avatar))
                .await;
            let letter = letter.ok().flatten().unwrap_or_default();
            if let Ok(picture) = serde_json::from_slice(&letter) {
                put_avatar(&mut event, &picture);
            }
        }
        event
    }

    /// Whether what this room shows must not lie about in the clear.
    async fn needs_encryption(&self, room: &Room, to: &Place) -> bool {
        room.encryption_state().is_encrypted() || self.was_encrypted(to).await.unwrap_or(true)
    }

    /// What a picture is known by: whoever logs in elsewhere uploads it there.
    fn avatar_key(&self, sealed: bool, avatar: &str) -> String {
        let kind = if sealed { "sealed" } else { "clear" };
        format!("{} {kind} {avatar}", self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn c16_whoever_changes_pictures_all_the_time_makes_us_fetch_only_now_and_then() {
        let asked = AvatarRequests::default();
        assert!(asked.may("ann".to_owned()) && asked.may("bob".to_owned()));
        assert!(!asked.may("ann".to_owned()));
        tokio::time::advance(RETRY_AFTER).await;
        assert!(asked.may("ann".to_owned()));
    }
}
