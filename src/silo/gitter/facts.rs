//! What stands at the head of a room: its name, which follows from its address, its topic, and its group's picture.

use footbridge_core::facts::{Fact, Facts, uncalled};

use super::Gitter;
use crate::SiloError;

/// The longest topic, in Unicode scalars.
const LONGEST_TOPIC: usize = 1_000;

impl Gitter {
    pub(super) async fn read_facts(&self, room: &str) -> Result<Facts, SiloError> {
        let found = self.client.room(room).await;
        let found = found.inspect_err(|fault| self.note(fault))?;
        Ok(Facts {
            name: Some(found.name.unwrap_or_default()),
            topic: Some(found.topic.unwrap_or_default()),
            picture: Some(found.avatar_url.unwrap_or_default()),
        })
    }

    pub(super) async fn write_fact(
        &self,
        room: &str,
        fact: Fact,
        value: &str,
    ) -> Result<(), SiloError> {
        if fact != Fact::Topic {
            let why = "Gitter lets nobody change that";
            return Err(SiloError::NoChannel(why.to_owned()));
        }
        let topic = uncalled(value, LONGEST_TOPIC);
        let set = self.client.set_topic(room, &topic).await;
        Ok(set.inspect_err(|fault| self.note(fault))?)
    }
}
