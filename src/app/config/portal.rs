//! Reads `[[portal]]`: a room linked to a channel, and what is relayed between the two.

use footbridge_core::{
    lane::EncryptedPolicy,
    room_profile::{ProfileSync, SyncDirection},
};
use footbridge_store::PortalSource;

use super::{
    PortalConfig,
    keys::portal as keys,
    schema::Section,
    sections::{ConfigReader, unknown_silo},
    values,
};

impl ConfigReader<'_> {
    pub(super) fn portal(
        &mut self,
        section: &Section<'_>,
        silos: Option<&[String]>,
        lines: &[String],
    ) -> Option<PortalConfig> {
        let schema = &mut self.schema;
        let room = schema.read(section, &keys::ROOM, values::room);
        let silo = self.silo_name(section, silos);
        let is_line = silo.as_ref().is_some_and(|silo| lines.contains(silo));
        let schema = &mut self.schema;
        let channel = if is_line {
            schema.read(section, &keys::GATEWAY, values::gateway)
        } else {
            schema.read(section, &keys::CHANNEL, values::channel)
        };
        let trust = values::trust(schema.word(section, &keys::TRUST));
        let system_messages = schema.flag(section, &keys::SYSTEM_MESSAGES);
        let notices = schema.flag(section, &keys::NOTICES);
        let mut policy =
            |key| EncryptedPolicy::parse(schema.word(section, key)).unwrap_or_default();
        let (reactions, file_links) = (policy(&keys::REACTIONS), policy(&keys::FILE_LINKS));
        let backfill = schema.number(section, &keys::BACKFILL);
        let mut direction =
            |key| SyncDirection::parse(schema.word(section, key)).unwrap_or_default();
        let shares = ProfileSync {
            name: direction(&keys::ROOM_NAME),
            topic: direction(&keys::ROOM_TOPIC),
            picture: direction(&keys::ROOM_PICTURE),
        };
        Some(PortalConfig {
            room: room?,
            silo: silo?,
            channel: channel?,
            trust,
            system_messages,
            notices,
            reactions,
            file_links,
            backfill,
            shares,
            channel_span: section.span("channel"),
            room_span: section.span("room"),
            origin: PortalSource::Config,
        })
    }

    pub(super) fn silo_name(
        &mut self,
        section: &Section<'_>,
        silos: Option<&[String]>,
    ) -> Option<String> {
        self.schema.read(section, &keys::SILO, |text| match silos {
            Some(silos) if !silos.iter().any(|silo| silo == text) => Err(unknown_silo(text, silos)),
            _ => Ok(text.to_owned()),
        })
    }
}
