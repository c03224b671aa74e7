//! `[[portal]]`: a room joined to a channel, and what crosses between the two.

use footbridge_core::{
    facts::{Follow, Shares},
    portal::Choice,
};
use footbridge_store::Origin;

use super::{
    PortalConfig,
    sections::{Reader, unknown_silo},
    values,
    walk::Section,
};

impl Reader<'_> {
    pub(super) fn portal(
        &mut self,
        section: &Section<'_>,
        silos: Option<&[String]>,
        matterbridges: &[String],
    ) -> Option<PortalConfig> {
        let room = self
            .walk
            .need(section, "room", "\"#room:example.org\"", values::room);
        let silo = self.silo_name(section, silos);
        let is_gateway = silo
            .as_ref()
            .is_some_and(|silo| matterbridges.contains(silo));
        let channel = if is_gateway {
            self.walk
                .need(section, "channel", "\"gateway1\"", values::gateway)
        } else {
            self.walk
                .need(section, "channel", "\"org/room\"", values::channel)
        };
        let trust = self.walk.read(section, "trust", values::trust);
        let system_messages = self.walk.flag(section, "system_messages");
        let notices = self.walk.flag(section, "notices");
        let reactions = self.walk.read(section, "reactions", choice);
        let file_links = self.walk.read(section, "file_links", choice);
        let backfill = self.walk.number(section, "backfill", 0..=100);
        let name = self.walk.read(section, "room_name", follow);
        let topic = self.walk.read(section, "room_topic", follow);
        let picture = self.walk.read(section, "room_picture", follow_channel);
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
            shares: Shares {
                name: name.unwrap_or_default(),
                topic: topic.unwrap_or_default(),
                picture: picture.unwrap_or_default(),
            },
            channel_span: section.span("channel"),
            room_span: section.span("room"),
            origin: Origin::File,
        })
    }

    pub(super) fn silo_name(
        &mut self,
        section: &Section<'_>,
        silos: Option<&[String]>,
    ) -> Option<String> {
        self.walk
            .need(section, "silo", "\"gitter\"", |text| match silos {
                Some(silos) if !silos.iter().any(|silo| silo == text) => {
                    Err(unknown_silo(text, silos))
                }
                _ => Ok(text.to_owned()),
            })
    }
}

/// Where something crosses.
fn choice(text: &str) -> Result<Choice, values::Flaw> {
    match Choice::of_word(text) {
        Some(choice) => Ok(choice),
        None => values::one_of(text, &Choice::WORDS),
    }
}

/// Which side follows the other.
fn follow(text: &str) -> Result<Follow, values::Flaw> {
    match Follow::of_word(text) {
        Some(follow) => Ok(follow),
        None => values::one_of(text, &Follow::WORDS),
    }
}

/// The same where no silo lets a channel follow.
fn follow_channel(text: &str) -> Result<Follow, values::Flaw> {
    match Follow::of_word(text) {
        Some(follow @ (Follow::Off | Follow::FromChannel)) => Ok(follow),
        _ => values::one_of(text, &["off", "from-channel"]),
    }
}
