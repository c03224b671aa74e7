//! The profile of a room: its name, which follows from its address, its topic, and its group's avatar.

use footbridge_core::room_profile::{ProfileField, RoomProfile, sanitize_without_mentions};

use super::Gitter;
use crate::SiloError;

/// The longest topic, in Unicode scalars.
const MAX_TOPIC: usize = 1_000;

impl Gitter {
    pub(super) async fn read_profile(&self, room: &str) -> Result<RoomProfile, SiloError> {
        let found = self.client.room(room).await;
        let found = self.account.noted(found)?;
        Ok(RoomProfile {
            name: Some(found.name.unwrap_or_default()),
            topic: Some(found.topic.unwrap_or_default()),
            picture: Some(found.avatar_url.unwrap_or_default()),
        })
    }

    pub(super) async fn write_profile_field(
        &self,
        room: &str,
        field: ProfileField,
        value: &str,
    ) -> Result<(), SiloError> {
        if field != ProfileField::Topic {
            let why = "Gitter does not allow that change";
            return Err(SiloError::NoChannel(why.to_owned()));
        }
        let topic = sanitize_without_mentions(value, MAX_TOPIC);
        let set = self.client.set_topic(room, &topic).await;
        Ok(self.account.noted(set)?)
    }
}
