//! What crosses between a room and Gitter.

use crate::kind::{
    Ability,
    Crossing::{No, Told, Whole},
    Kind, What,
};

/// The table of Gitter.
pub const KIND: Kind = Kind {
    word: "gitter",
    title: "Gitter",
    address: None,
    channel: "org/room",
    needs_token: true,
    abilities: &[
        Ability {
            what: What::Text,
            to_channel: Whole("as Gitter's Markdown, above 4,096 characters in several messages"),
            to_room: Whole("with its formatting"),
        },
        Ability {
            what: What::Name,
            to_channel: Told("in bold before the text"),
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
            to_channel: Told("in the thread of the message that is answered"),
            to_room: No("Gitter has threads only"),
        },
        Ability {
            what: What::Thread,
            to_channel: Whole(""),
            to_room: Whole(""),
        },
        Ability {
            what: What::Edit,
            to_channel: Whole("for ten minutes; later as a new message that points to the old one"),
            to_room: Whole(""),
        },
        Ability {
            what: What::Deletion,
            to_channel: Whole(""),
            to_room: Whole(""),
        },
        Ability {
            what: What::Mention,
            to_channel: Told(
                "of whom `[[person]]` names, a call; of everybody else as text: nobody is called",
            ),
            to_room: Told(
                "of whom `[[person]]` names, a call; of everybody else as text: nobody is called",
            ),
        },
        Ability {
            what: What::Reaction,
            to_channel: Told(
                "all to one message in one line of its thread, which changes with them; from encrypted rooms where the portal \
                 wants them",
            ),
            to_room: No("Gitter has none"),
        },
        Ability {
            what: What::File,
            to_channel: Told("a line that names it, or links to it with `public_url`"),
            to_room: No("Gitter has links only"),
        },
        Ability {
            what: What::System,
            to_channel: No(""),
            to_room: No("Gitter tells none"),
        },
        Ability {
            what: What::QueueHead,
            to_channel: Told(
                "the topic, where the portal shares it and the bridge is an admin of the channel",
            ),
            to_room: Told("what the portal shares, where the bridge has the right"),
        },
        Ability {
            what: What::Missed,
            to_channel: Whole(""),
            to_room: Whole("from Gitter's history, with edits and deletions"),
        },
    ],
};
