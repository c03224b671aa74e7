//! What is relayed between a room and Mattermost.

use footbridge_core::capabilities::{
    Attribution, Capabilities, Deletes, EditHistory, Edits, FileText, Files, Idempotency,
    LengthUnit, Limits, Reactions, Replies, TextLimit,
};

use super::{config, emoji};
use crate::{
    capabilities::{
        Capability, ChannelName, Feature, SiloKind,
        Support::{Fallback, Full, No},
    },
    markdown::{Markdown, MarkdownRules, Rules},
};

/// The longest message: Mattermost counts Unicode scalars, the bridge UTF-16 units, which are never fewer.
pub const MAX_UNITS: usize = 16_383;

/// What Mattermost's Markdown recognises.
pub const MARKDOWN: Rules = &MarkdownRules {
    is_emoji: |name| emoji::shown(name).is_some(),
    emoticons: true,
    channels_and_tags: true,
    any_scheme: true,
    may_be_tag: |next| next.is_none_or(|c| !c.is_whitespace() && c != '='),
    addresses_first: false,
    fragile_items: false,
    dollar_maths: false,
};

/// What Mattermost can do.
pub const CAPABILITIES: Capabilities = Capabilities {
    renderer: &Markdown(MARKDOWN),
    limits: Limits::all(TextLimit {
        max: MAX_UNITS,
        unit: LengthUnit::Utf16,
    }),
    empty_messages: false,
    // Where the operator and the server want it, the name overrides the account's.
    attribution: Attribution::Inline,
    replies: Replies::InThread,
    threads: true,
    // Some servers allow it for a while only, and do not say for how long.
    edits: Edits::Limited { within: None },
    edit_history: EditHistory::Replaced,
    deletes: Deletes::Native,
    reactions: Reactions::Named,
    files: Files::Upload {
        max: None,
        text: FileText::WithFirst { bare: false },
    },
    bundles: false,
    // It forgets its keys after half a minute, and stores them with the posts.
    idempotency: Idempotency::ByKey,
};

/// The table of Mattermost.
pub static KIND: SiloKind = SiloKind {
    word: "mattermost",
    title: "Mattermost",
    address: Some(("url", "https://chat.example.org")),
    channel: "team/channel",
    channel_name: ChannelName::Path,
    can: &CAPABILITIES,
    needs_token: true,
    // A post of a webhook has the id of whoever created the webhook.
    proves_authors: false,
    keys: config::KEYS,
    read: config::read,
    capabilities: &[
        Capability::planned(
            &CAPABILITIES,
            Feature::Text,
            "as Markdown, above {limit} characters in several messages",
            Full(
                "with its formatting; attachments of integrations as text, their pictures as links",
            ),
        ),
        Capability::planned(
            &CAPABILITIES,
            Feature::Name,
            "in bold before the text, or with `names = \"override\"` beside it where the server permits",
            Fallback(
                "in bold before the text, or with their picture as the sender where clients know per-message profiles",
            ),
        ),
        Capability {
            what: Feature::Emote,
            to_channel: Fallback("a line that begins with \\*"),
            to_room: Full(""),
        },
        Capability::planned(
            &CAPABILITIES,
            Feature::Reply,
            "in the thread of the message",
            No("Mattermost has threads only"),
        ),
        Capability::planned(&CAPABILITIES, Feature::Thread, "", Full("")),
        Capability::planned(
            &CAPABILITIES,
            Feature::Edit,
            "where the server limits how long, later as a new message that points to the old one; a message with \
                 other files is posted again, and the old one deleted, or emptied where it has replies",
            Full(""),
        ),
        Capability::planned(
            &CAPABILITIES,
            Feature::Deletion,
            "a thread's first message is emptied where it has replies, so that they stay",
            Full("of a thread's first message with its thread"),
        ),
        Capability {
            what: Feature::Mention,
            to_channel: Fallback(
                "a mention of people in `[[person]]`; other people as text: nobody else is notified",
            ),
            to_room: Fallback(
                "a mention of people in `[[person]]`; other people as text: nobody else is notified",
            ),
        },
        Capability::planned(
            &CAPABILITIES,
            Feature::Reaction,
            "each emoji once, while at least one person uses it; text, and emoji that the server has no name \
                 for, as a line in the thread; from encrypted rooms where the portal allows them",
            Full(
                "each emoji once, while at least one person uses it; into encrypted rooms where the portal allows them",
            ),
        ),
        Capability::planned(
            &CAPABILITIES,
            Feature::File,
            "up to `max_mib`, with its caption; larger files as a line that names them",
            Full(
                "up to `max_mib`, encrypted where the room is; larger files as a line that names them",
            ),
        ),
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
