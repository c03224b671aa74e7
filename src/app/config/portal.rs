//! `[[portal]]`: a room joined to a channel, and what crosses between the two.

use footbridge_core::{
    lane::EncryptedPolicy,
    room_profile::{ProfileSync, SyncDirection},
};
use footbridge_store::PortalSource;

use super::{
    PortalConfig,
    schema::Section,
    sections::{ConfigReader, unknown_silo},
    values,
};

impl ConfigReader<'_> {
    pub(super) fn portal(
        &mut self,
        section: &Section<'_>,
        silos: Option<&[String]>,
        matterbridges: &[String],
    ) -> Option<PortalConfig> {
        let room = self
            .schema
            .required(section, "room", "\"#room:example.org\"", values::room);
        let silo = self.silo_name(section, silos);
        let is_gateway = silo
            .as_ref()
            .is_some_and(|silo| matterbridges.contains(silo));
        let channel = if is_gateway {
            self.schema
                .required(section, "channel", "\"gateway1\"", values::gateway)
        } else {
            self.schema
                .required(section, "channel", "\"org/room\"", values::channel)
        };
        let trust = self.schema.read(section, "trust", values::trust);
        let system_messages = self.schema.flag(section, "system_messages");
        let notices = self.schema.flag(section, "notices");
        let reactions = self.schema.read(section, "reactions", choice);
        let file_links = self.schema.read(section, "file_links", choice);
        let backfill = self.schema.number(section, "backfill", 0..=100);
        let name = self.schema.read(section, "room_name", follow);
        let topic = self.schema.read(section, "room_topic", follow);
        let picture = self.schema.read(section, "room_picture", follow_channel);
        Some(PortalConfig {
            room: room?,
            silo: silo?,
            channel: channel?,
            trust: trust.unwrap_or_default(),
            system_messages: system_messages.unwrap_or_default(),
            notices: notices.unwrap_or_default(),
            reactions: reactions.unwrap_or_default(),
            file_links: file_links.unwrap_or_default(),
            backfill: backfill.map_or(0, toml::Spanned::into_inner),
            shares: ProfileSync {
                name: name.unwrap_or_default(),
                topic: topic.unwrap_or_default(),
                picture: picture.unwrap_or_default(),
            },
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
        self.schema
            .required(section, "silo", "\"gitter\"", |text| match silos {
                Some(silos) if !silos.iter().any(|silo| silo == text) => {
                    Err(unknown_silo(text, silos))
                }
                _ => Ok(text.to_owned()),
            })
    }
}

/// Where something crosses.
fn choice(text: &str) -> Result<EncryptedPolicy, values::ValueError> {
    match EncryptedPolicy::parse(text) {
        Some(choice) => Ok(choice),
        None => values::one_of(text, &EncryptedPolicy::WORDS),
    }
}

/// Which side follows the other.
fn follow(text: &str) -> Result<SyncDirection, values::ValueError> {
    match SyncDirection::parse(text) {
        Some(follow) => Ok(follow),
        None => values::one_of(text, &SyncDirection::WORDS),
    }
}

/// The same where no silo lets a channel follow.
fn follow_channel(text: &str) -> Result<SyncDirection, values::ValueError> {
    match SyncDirection::parse(text) {
        Some(follow @ (SyncDirection::Off | SyncDirection::FromChannel)) => Ok(follow),
        _ => values::one_of(text, &["off", "from-channel"]),
    }
}
