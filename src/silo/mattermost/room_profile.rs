//! The profile of a channel: its name, and its header, which is its topic. It has no avatar.

use footbridge_core::room_profile::{ProfileField, RoomProfile, sanitize_without_mentions};

use super::Mattermost;
use crate::SiloError;

/// The longest name, in Unicode scalars.
const MAX_NAME: usize = 64;
/// The longest header, in Unicode scalars.
const MAX_HEADER: usize = 1_024;

impl Mattermost {
    pub(super) async fn read_profile(&self, channel: &str) -> Result<RoomProfile, SiloError> {
        let found = self.client.channel(channel).await;
        let found = self.account.noted(found)?;
        Ok(RoomProfile {
            name: Some(found.display_name),
            topic: Some(found.header),
            picture: None,
        })
    }

    pub(super) async fn write_profile_field(
        &self,
        channel: &str,
        field: ProfileField,
        value: &str,
    ) -> Result<(), SiloError> {
        let (what, longest) = match field {
            ProfileField::Name if value.is_empty() => {
                return Err(SiloError::NoChannel("a channel needs a name".to_owned()));
            }
            ProfileField::Name => ("display_name", MAX_NAME),
            ProfileField::Topic => ("header", MAX_HEADER),
            ProfileField::Avatar => {
                return Err(SiloError::NoChannel("channels have no avatar".to_owned()));
            }
        };
        let value = sanitize_without_mentions(value, longest);
        let written = self.client.patch_channel(channel, what, &value).await;
        Ok(self.account.noted(written)?)
    }
}
