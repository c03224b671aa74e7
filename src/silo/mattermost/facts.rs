//! What stands at the head of a channel: its name, and its header, which is what it is about. It has no picture.

use footbridge_core::facts::{Fact, Facts, uncalled};

use super::Mattermost;
use crate::SiloError;

/// The longest name, in Unicode scalars.
const LONGEST_NAME: usize = 64;
/// The longest header, in Unicode scalars.
const LONGEST_HEADER: usize = 1_024;

impl Mattermost {
    pub(super) async fn read_facts(&self, channel: &str) -> Result<Facts, SiloError> {
        let found = self.client.channel(channel).await;
        let found = found.inspect_err(|fault| self.note(fault))?;
        Ok(Facts {
            name: Some(found.display_name),
            topic: Some(found.header),
            picture: None,
        })
    }

    pub(super) async fn write_fact(
        &self,
        channel: &str,
        fact: Fact,
        value: &str,
    ) -> Result<(), SiloError> {
        let (what, longest) = match fact {
            Fact::Name if value.is_empty() => {
                return Err(SiloError::NoChannel("a channel needs a name".to_owned()));
            }
            Fact::Name => ("display_name", LONGEST_NAME),
            Fact::Topic => ("header", LONGEST_HEADER),
            Fact::Picture => {
                return Err(SiloError::NoChannel("channels have no picture".to_owned()));
            }
        };
        let value = uncalled(value, longest);
        let written = self.client.patch_channel(channel, what, &value).await;
        Ok(written.inspect_err(|fault| self.note(fault))?)
    }
}
