//! What is relayed between a room and Mattermost.

use super::config;
use crate::capabilities::{
    Capability, ChannelName, Feature, SiloKind,
    Support::{Fallback, Full, No},
};

/// The table of Mattermost.
pub static KIND: SiloKind = SiloKind {
    word: "mattermost",
    title: "Mattermost",
    address: Some(("url", "https://chat.example.org")),
    channel: "team/channel",
    channel_name: ChannelName::Path,
    needs_token: true,
    keys: config::KEYS,
    read: config::read,
    capabilities: &[
        Capability {
            what: Feature::Text,
            to_channel: Full("as Markdown, above 16,383 characters in several messages"),
            to_room: Full(
                "with its formatting; attachments of integrations as text, their pictures as links",
            ),
        },
        Capability {
            what: Feature::Name,
            to_channel: Fallback(
                "in bold before the text, or with `names = \"override\"` beside it where the server permits",
            ),
            to_room: Fallback(
                "in bold before the text, or with their picture as the sender where clients know per-message profiles",
            ),
        },
        Capability {
            what: Feature::Emote,
            to_channel: Fallback("a line that begins with \\*"),
            to_room: Full(""),
        },
        Capability {
            what: Feature::Reply,
            to_channel: Fallback("in the thread of the message"),
            to_room: No("Mattermost has threads only"),
        },
        Capability {
            what: Feature::Thread,
            to_channel: Full(""),
            to_room: Full(""),
        },
        Capability {
            what: Feature::Edit,
            to_channel: Full(
                "where the server limits how long, later as a new message that points to the old one; a message with \
                 other files is posted again, and the old one deleted, or emptied where it has replies",
            ),
            to_room: Full(""),
        },
        Capability {
            what: Feature::Deletion,
            to_channel: Full(
                "a thread's first message is emptied where it has replies, so that they stay",
            ),
            to_room: Full("of a thread's first message with its thread"),
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
            to_channel: Full(
                "each emoji once, while at least one person uses it; text, and emoji that the server has no name \
                 for, as a line in the thread; from encrypted rooms where the portal allows them",
            ),
            to_room: Full(
                "each emoji once, while at least one person uses it; into encrypted rooms where the portal allows them",
            ),
        },
        Capability {
            what: Feature::File,
            to_channel: Full(
                "up to `max_mib`, with its caption; larger files as a line that names them",
            ),
            to_room: Full(
                "up to `max_mib`, encrypted where the room is; larger files as a line that names them",
            ),
        },
        Capability {
            what: Feature::System,
            to_channel: No(""),
            to_room: Full("where the portal allows them"),
        },
        Capability {
            what: Feature::Profile,
            to_channel: Fallback("name and topic, where the portal shares them"),
            to_room: Fallback(
                "name and topic, where the portal shares them and the bridge has the right",
            ),
        },
        Capability {
            what: Feature::CatchUp,
            to_channel: Full(""),
            to_room: Full("from the server's history, with edits and deletions"),
        },
    ],
};
