//! What is relayed between a room and Gitter.

use super::config;
use crate::capabilities::{
    Capability, ChannelName, Feature, SiloKind,
    Support::{Fallback, Full, No},
};

/// The table of Gitter.
pub static KIND: SiloKind = SiloKind {
    word: "gitter",
    title: "Gitter",
    address: None,
    channel: "org/room",
    channel_name: ChannelName::Path,
    needs_token: true,
    keys: config::KEYS,
    read: config::read,
    capabilities: &[
        Capability {
            what: Feature::Text,
            to_channel: Full("as Gitter's Markdown, above 4,096 characters in several messages"),
            to_room: Full("with its formatting"),
        },
        Capability {
            what: Feature::Name,
            to_channel: Fallback("in bold before the text"),
            to_room: Fallback(
                "in bold before the text, or with their picture as the sender where clients know per-message profiles",
            ),
        },
        Capability {
            what: Feature::Emote,
            to_channel: Full(""),
            to_room: Full(""),
        },
        Capability {
            what: Feature::Reply,
            to_channel: Fallback("in the thread of the message"),
            to_room: No("Gitter has threads only"),
        },
        Capability {
            what: Feature::Thread,
            to_channel: Full(""),
            to_room: Full(""),
        },
        Capability {
            what: Feature::Edit,
            to_channel: Full("for ten minutes; later as a new message that points to the old one"),
            to_room: Full(""),
        },
        Capability {
            what: Feature::Deletion,
            to_channel: Full(""),
            to_room: Full(""),
        },
        Capability {
            what: Feature::Mention,
            to_channel: Fallback(
                "a mention of people in `[[person]]`; other people as text: nobody else is notified",
            ),
            to_room: Fallback(
                "a mention of people in `[[person]]`; other people as text: nobody else is notified",
            ),
        },
        Capability {
            what: Feature::Reaction,
            to_channel: Fallback(
                "all reactions to a message in one line of its thread, which is edited; from encrypted rooms where \
                 the portal allows them",
            ),
            to_room: No("Gitter has none"),
        },
        Capability {
            what: Feature::File,
            to_channel: Fallback("a line that names it, or links to it with `public_url`"),
            to_room: No("Gitter has links only"),
        },
        Capability {
            what: Feature::System,
            to_channel: No(""),
            to_room: No("Gitter reports none"),
        },
        Capability {
            what: Feature::Profile,
            to_channel: Fallback(
                "the topic, where the portal shares it and the bridge is an admin of the channel",
            ),
            to_room: Fallback("what the portal shares, where the bridge has permission"),
        },
        Capability {
            what: Feature::CatchUp,
            to_channel: Full(""),
            to_room: Full("from Gitter's history, with edits and deletions"),
        },
    ],
};
