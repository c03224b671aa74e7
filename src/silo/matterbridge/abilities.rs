//! What crosses between a room and the networks behind a Matterbridge.

use crate::kind::{
    Ability,
    Crossing::{No, Told, Whole},
    Kind, What,
};

/// The table of Matterbridge.
pub const KIND: Kind = Kind {
    word: "matterbridge",
    title: "Matterbridge",
    address: Some(("api", "http://127.0.0.1:4242")),
    channel: "gateway1",
    needs_token: false,
    abilities: &[
        Ability {
            what: What::Text,
            to_channel: Whole(
                "plain, as networks of every dialect get it; a network that knows Markdown shows `*stars*` that somebody wrote as markup",
            ),
            to_room: Whole("as the network wrote it"),
        },
        Ability {
            what: What::Name,
            to_channel: Whole("beside the text, with the user id"),
            to_room: Told(
                "in bold before the text, or with their picture as the sender where clients know per-message profiles",
            ),
        },
        Ability {
            what: What::Emote,
            to_channel: Whole(""),
            to_room: Whole(""),
        },
        Ability {
            what: What::Reply,
            to_channel: Told("marked with ↪; what it answers cannot be told"),
            to_room: Told("marked with ↪; what it answers is not told"),
        },
        Ability {
            what: What::Thread,
            to_channel: Told("marked with ↪"),
            to_room: Told("marked with ↪"),
        },
        Ability {
            what: What::Edit,
            to_channel: Told("a new message that ends in `(edited)`"),
            to_room: Told("a new message, as Matterbridge shows it"),
        },
        Ability {
            what: What::Deletion,
            to_channel: Told("a line that tells of it; the message stays"),
            to_room: No("the API does not tell"),
        },
        Ability {
            what: What::Mention,
            to_channel: Told(
                "as text: nobody is called by a mark or by the name behind it (programs that react to a bare name, as on IRC, cannot be kept from it)",
            ),
            to_room: Told("as text: nobody is called"),
        },
        Ability {
            what: What::Reaction,
            to_channel: No("the API has none"),
            to_room: No("the API has none"),
        },
        Ability {
            what: What::File,
            to_channel: Whole(
                "up to 20 MiB, with its caption; what is larger as a line that names it, or links to it with `public_url`",
            ),
            to_room: Whole(
                "what Matterbridge passes on, which is up to its `MediaDownloadSize` (1 MB unless it says more), or fetched from `media_hosts`; else a link, or a line that names it",
            ),
        },
        Ability {
            what: What::System,
            to_channel: No(""),
            to_room: Whole(
                "where the portal wants them, with `ShowJoinPart` and `ShowTopicChange` at the API account",
            ),
        },
        Ability {
            what: What::QueueHead,
            to_channel: No("the API has none"),
            to_room: No("a new topic is a system message"),
        },
        Ability {
            what: What::Missed,
            to_channel: Whole(""),
            to_room: Told("as much as Matterbridge's buffer holds, ten unless `Buffer` says more"),
        },
    ],
};
