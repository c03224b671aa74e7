//! What a room admin does with a test client, and what no careful client does.

use matrix_sdk::ruma::{
    OwnedRoomId, OwnedUserId, RoomVersionId, TransactionId,
    api::client::{
        message::send_message_event,
        room::{create_room, upgrade_room},
    },
    events::MessageLikeEventType,
    serde::Raw,
};
use serde_json::{Value, json};

use super::{Boxed, TestClient};

impl TestClient {
    /// Sends a state event.
    #[must_use]
    pub fn send_state(
        &self,
        room: &str,
        (event_type, key): (&str, &str),
        content: Value,
    ) -> Boxed<'_, anyhow::Result<()>> {
        let (room, event_type, key) = (room.to_owned(), event_type.to_owned(), key.to_owned());
        Box::pin(async move {
            self.room(&room)?
                .send_state_event_raw(&event_type, &key, content)
                .await?;
            Ok(())
        })
    }

    /// Creates a private room of version 10, in which its creator can lose power, and invites these users; returns the
    /// room id.
    #[must_use]
    pub fn create_old_room(&self, invite: &[String]) -> Boxed<'_, anyhow::Result<String>> {
        let invite = invite.to_owned();
        Box::pin(async move {
            let mut request = create_room::v3::Request::new();
            request.room_version = Some(RoomVersionId::V10);
            request.preset = Some(create_room::v3::RoomPreset::PrivateChat);
            request.invite = invite
                .iter()
                .map(|user| OwnedUserId::try_from(user.as_str()))
                .collect::<Result<_, _>>()?;
            let room = self.client.create_room(request).await?;
            Ok(room.room_id().to_string())
        })
    }

    /// Sends an unencrypted message, also in an encrypted room.
    #[must_use]
    pub fn say_in_clear(&self, room: &str, text: &str) -> Boxed<'_, anyhow::Result<()>> {
        let (room, text) = (room.to_owned(), text.to_owned());
        Box::pin(async move {
            let content = json!({"msgtype": "m.text", "body": text});
            let request = send_message_event::v3::Request::new_raw(
                OwnedRoomId::try_from(room.as_str())?,
                TransactionId::new(),
                MessageLikeEventType::RoomMessage,
                Raw::from_json_string(content.to_string())?,
            );
            self.client.send(request).await?;
            Ok(())
        })
    }

    /// Upgrades a room to version 10; returns the id of the new room.
    #[must_use]
    pub fn upgrade_room(&self, room: &str) -> Boxed<'_, anyhow::Result<String>> {
        let room = room.to_owned();
        Box::pin(async move {
            let request = upgrade_room::v3::Request::new(
                OwnedRoomId::try_from(room.as_str())?,
                RoomVersionId::V10,
            );
            let answer = self.client.send(request).await?;
            Ok(answer.replacement_room.to_string())
        })
    }
}
