//! The profile of a room: name, topic and avatar. All of it is state, which Matrix never encrypts.

use std::sync::Arc;

use footbridge_core::{
    image::Image,
    room_profile::{ProfileField, RoomProfile},
};
use footbridge_store::Place;
use matrix_sdk::ruma::{RoomId, events::StateEventType};
use serde_json::{Value, json};

use super::{
    MatrixError,
    media::Media,
    request_error::RequestError,
    room_state::{RoomState, StateForm, room_id},
};

/// The state event of a profile field, and the key of its content.
fn written(field: ProfileField) -> (StateEventType, &'static str) {
    match field {
        ProfileField::Name => (StateEventType::RoomName, "name"),
        ProfileField::Topic => (StateEventType::RoomTopic, "topic"),
        ProfileField::Avatar => (StateEventType::RoomAvatar, "url"),
    }
}

/// Reads and changes the profiles of rooms.
#[derive(Debug)]
pub(super) struct RoomProfiles {
    state: Arc<RoomState>,
    media: Arc<Media>,
}

impl RoomProfiles {
    pub(super) fn of(state: Arc<RoomState>, media: Arc<Media>) -> Self {
        Self { state, media }
    }

    /// The room's current profile, queried from the homeserver.
    pub(super) async fn read(&self, room: &Place) -> Result<RoomProfile, MatrixError> {
        let profile = self.fetch(room).await;
        profile.map_err(|error| error.into_matrix_error("read the room's state"))
    }

    async fn fetch(&self, room: &Place) -> Result<RoomProfile, RequestError> {
        let id = room_id(room)?;
        Ok(RoomProfile {
            name: Some(self.field(&id, ProfileField::Name).await?),
            topic: Some(self.field(&id, ProfileField::Topic).await?),
            picture: Some(self.field(&id, ProfileField::Avatar).await?),
        })
    }

    async fn field(&self, room: &RoomId, field: ProfileField) -> Result<String, RequestError> {
        let (event, key) = written(field);
        let state = self.state.read(room, event, "", StateForm::Content).await?;
        let text = state.as_ref().and_then(|state| state.get(key)?.as_str());
        Ok(text.unwrap_or_default().to_owned())
    }

    /// Changes a field of the room's profile, if the account may; an avatar is uploaded first. Returns the field's new
    /// value.
    pub(super) async fn set(
        &self,
        room: &Place,
        field: ProfileField,
        value: &str,
        picture: Option<&Image>,
    ) -> Result<String, anyhow::Error> {
        let value = match picture {
            Some(picture) => {
                self.media
                    .upload_file(&picture.bytes, picture.mime, false)
                    .await?
            }
            None => value.to_owned(),
        };
        let (event, key) = written(field);
        let mut content = json!({});
        if !(value.is_empty() && field == ProfileField::Avatar)
            && let Some(content) = content.as_object_mut()
        {
            content.insert(key.to_owned(), Value::String(value.clone()));
        }
        let id = room_id(room).map_err(RequestError::into_send_error)?;
        let wrote = self.state.write(id, event, "", &content).await;
        wrote.map_err(RequestError::into_send_error)?;
        Ok(value)
    }
}
