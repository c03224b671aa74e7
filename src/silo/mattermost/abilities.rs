//! What crosses between a room and Mattermost.

use crate::kind::{
    Ability,
    Crossing::{No, Told, Whole},
    Kind, What,
};

/// The table of Mattermost.
pub const KIND: Kind = Kind {
    word: "mattermost",
    title: "Mattermost",
    address: Some(("url", "https://chat.example.org")),
    channel: "team/channel",
    needs_token: true,
    abilities: &[
        Ability {
            what: What::Text,
            to_channel: Whole("as Markdown, above 16,383 characters in several messages"),
            to_room: Whole(
                "with its formatting; attachments of integrations as text, their pictures as links",
            ),
        },
        Ability {
            what: What::Name,
            to_channel: Told(
                "in bold before the text, or with `names = \"override\"` beside it where the server permits",
            ),
            to_room: Told(
                "in bold before the text, or with their picture as the sender where clients know per-message profiles",
            ),
        },
        Ability {
            what: What::Emote,
            to_channel: Told("a line that begins with \\*"),
            to_room: Whole(""),
        },
        Ability {
            what: What::Reply,
            to_channel: Told("in the thread of the message that is answered"),
            to_room: No("Mattermost has threads only"),
        },
        Ability {
            what: What::Thread,
            to_channel: Whole(""),
            to_room: Whole(""),
        },
        Ability {
            what: What::Edit,
            to_channel: Whole(
                "where the server limits how long, later as a new message that points to the old one; a message with other files \
                 is said anew, and the old one deleted, or emptied where others have answered",
            ),
            to_room: Whole(""),
        },
        Ability {
            what: What::Deletion,
            to_channel: Whole(
                "a thread's first message is emptied where others have answered, so that they stay",
            ),
            to_room: Whole("of a thread's first message with its thread"),
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
            to_channel: Whole(
                "each emoji once, as long as one person means it; words, and emoji that the server has no name for, as a line in \
                 the thread; from encrypted rooms where the portal wants them",
            ),
            to_room: Whole(
                "each emoji once, as long as one person means it; into encrypted rooms where the portal wants them",
            ),
        },
        Ability {
            what: What::File,
            to_channel: Whole(
                "up to `max_mib`, with its caption; what is larger as a line that names it",
            ),
            to_room: Whole(
                "up to `max_mib`, encrypted where the room is; what is larger as a line that names it",
            ),
        },
        Ability {
            what: What::System,
            to_channel: No(""),
            to_room: Whole("where the portal wants them"),
        },
        Ability {
            what: What::QueueHead,
            to_channel: Told("name and topic, where the portal shares them"),
            to_room: Told(
                "name and topic, where the portal shares them and the bridge has the right",
            ),
        },
        Ability {
            what: What::Missed,
            to_channel: Whole(""),
            to_room: Whole("from the server's history, with edits and deletions"),
        },
    ],
};
