//! What is relayed between a room and the networks of a Matterbridge.

use super::config;
use crate::capabilities::{
    Capability, ChannelName, Feature, SiloKind,
    Support::{Fallback, Full, No},
};

/// The table of Matterbridge.
pub static KIND: SiloKind = SiloKind {
    word: "matterbridge",
    title: "Matterbridge",
    address: Some(("api", "http://127.0.0.1:4242")),
    channel: "gateway1",
    channel_name: ChannelName::Line,
    needs_token: false,
    keys: config::KEYS,
    read: config::read,
    capabilities: &[
        Capability {
            what: Feature::Text,
            to_channel: Full(
                "plain text for every network; a network with Markdown shows `*stars*` in it as markup",
            ),
            to_room: Full("as the network wrote it"),
        },
        Capability {
            what: Feature::Name,
            to_channel: Full("beside the text, with the user id"),
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
            to_channel: Fallback("marked with ↪; the original message cannot be named"),
            to_room: Fallback("marked with ↪; the original message is not named"),
        },
        Capability {
            what: Feature::Thread,
            to_channel: Fallback("marked with ↪"),
            to_room: Fallback("marked with ↪"),
        },
        Capability {
            what: Feature::Edit,
            to_channel: Fallback("a new message that ends in `(edited)`"),
            to_room: Fallback("a new message, as Matterbridge shows it"),
        },
        Capability {
            what: Feature::Deletion,
            to_channel: Fallback("a line that reports it; the message stays"),
            to_room: No("the API does not report them"),
        },
        Capability {
            what: Feature::Mention,
            to_channel: Fallback(
                "as text: nobody is notified by a mark or the name after it (programs that react to a bare name, as \
                 on IRC, cannot be prevented)",
            ),
            to_room: Fallback("as text: nobody is notified"),
        },
        Capability {
            what: Feature::Reaction,
            to_channel: No("the API has none"),
            to_room: No("the API has none"),
        },
        Capability {
            what: Feature::File,
            to_channel: Full(
                "up to 20 MiB, with its caption; larger files as a line that names them, or links to them with `public_url`",
            ),
            to_room: Full(
                "what Matterbridge passes on, up to its `MediaDownloadSize` (1 MB by default), or fetched from \
                 `media_hosts`; else a link, or a line that names it",
            ),
        },
        Capability {
            what: Feature::System,
            to_channel: No(""),
            to_room: Full(
                "where the portal allows them, with `ShowJoinPart` and `ShowTopicChange` at the API account",
            ),
        },
        Capability {
            what: Feature::Profile,
            to_channel: No("the API has none"),
            to_room: No("a new topic is a system message"),
        },
        Capability {
            what: Feature::CatchUp,
            to_channel: Full(""),
            to_room: Fallback("as many as Matterbridge's buffer holds: `Buffer`, ten by default"),
        },
    ],
};
