//! The profile of a room: name, topic and avatar. All of it is state, which Matrix never encrypts.

use footbridge_core::{
    image::Image,
    room_profile::{ProfileField, RoomProfile},
};
use footbridge_store::Place;
use matrix_sdk::ruma::{RoomId, events::StateEventType};
use serde_json::{Value, json};

use super::{
    Boxed, Matrix, MatrixError,
    power_levels::{StateForm, room_id},
    request_error::RequestError,
};

/// The state event of a profile field, and the key of its content.
fn written(field: ProfileField) -> (StateEventType, &'static str) {
    match field {
        ProfileField::Name => (StateEventType::RoomName, "name"),
        ProfileField::Topic => (StateEventType::RoomTopic, "topic"),
        ProfileField::Avatar => (StateEventType::RoomAvatar, "url"),
    }
}

impl Matrix {
    /// The room's current profile, queried from the homeserver.
    pub fn room_profile<'a>(
        &'a self,
        room: &'a Place,
    ) -> Boxed<'a, Result<RoomProfile, MatrixError>> {
        Box::pin(async move {
            let profile = self.fetch_room_profile(room).await;
            profile.map_err(|error| error.into_matrix_error("read the room's state"))
        })
    }

    async fn fetch_room_profile(&self, room: &Place) -> Result<RoomProfile, RequestError> {
        let id = room_id(room)?;
        Ok(RoomProfile {
            name: Some(self.fact(&id, ProfileField::Name).await?),
            topic: Some(self.fact(&id, ProfileField::Topic).await?),
            picture: Some(self.fact(&id, ProfileField::Avatar).await?),
        })
    }

    async fn fact(&self, room: &RoomId, field: ProfileField) -> Result<String, RequestError> {
        let (event, key) = written(field);
        let state = self.state(room, event, "", StateForm::Content).await?;
        let text = state.as_ref().and_then(|state| state.get(key)?.as_str());
        Ok(text.unwrap_or_default().to_owned())
    }

    /// Changes a field of the room's profile, if the account may; an avatar is uploaded first. Returns the field's new
    /// value.
    pub fn set_room_profile<'a>(
        &'a self,
        room: &'a Place,
        field: ProfileField,
        value: &'a str,
        picture: Option<&'a Image>,
    ) -> Boxed<'a, Result<String, anyhow::Error>> {
        Box::pin(async move {
            let value = match picture {
                Some(picture) => {
                    self.upload_media(&picture.bytes, picture.mime, false)
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
            let wrote = self.write_state(id, event, "", &content).await;
            wrote.map_err(RequestError::into_send_error)?;
            Ok(value)
        })
    }
}
