//! What is relayed between a room and Gitter.

use std::time::Duration;

use footbridge_core::capabilities::{
    Attribution, Capabilities, Deletes, EditHistory, Edits, Files, Idempotency, LengthUnit, Limits,
    Reactions, Replies, TextLimit,
};

use super::{client::MAX_UNITS, config, emoji};
use crate::{
    capabilities::{
        Capability, ChannelName, Feature, SiloKind,
        Support::{Fallback, Full, No},
    },
    markdown::{Markdown, MarkdownRules, Rules},
};

/// What Gitter's Markdown recognises: its grammar consists of regular expressions.
pub const MARKDOWN: Rules = &MarkdownRules {
    is_emoji: emoji::is_name,
    emoticons: false,
    channels_and_tags: false,
    any_scheme: false,
    // It finds addresses with any beginning there.
    may_be_tag: |next| next != Some(' '),
    addresses_first: true,
    fragile_items: true,
    dollar_maths: true,
};

/// What Gitter can do.
pub const CAPABILITIES: Capabilities = Capabilities {
    renderer: &Markdown(MARKDOWN),
    limits: Limits::all(TextLimit {
        max: MAX_UNITS,
        unit: LengthUnit::Utf16,
    }),
    empty_messages: false,
    attribution: Attribution::Inline,
    replies: Replies::InThread,
    threads: true,
    // It allows edits for 600 s; the limit is a little less, for the time of the request.
    edits: Edits::Limited {
        within: Some(Duration::from_secs(590)),
    },
    edit_history: EditHistory::Replaced,
    deletes: Deletes::Native,
    reactions: Reactions::Line,
    files: Files::Named,
    bundles: false,
    // How long it may still publish a message is a setting.
    idempotency: Idempotency::ByContent {
        settle: Duration::ZERO,
    },
};

/// The table of Gitter.
pub static KIND: SiloKind = SiloKind {
    word: "gitter",
    title: "Gitter",
    address: None,
    channel: "org/room",
    channel_name: ChannelName::Path,
    can: &CAPABILITIES,
    needs_token: true,
    proves_authors: true,
    keys: config::KEYS,
    read: config::read,
    capabilities: &[
        Capability::planned(
            &CAPABILITIES,
            Feature::Text,
            "as Gitter's Markdown, above {limit} characters in several messages",
            Full("with its formatting"),
        ),
        Capability::planned(
            &CAPABILITIES,
            Feature::Name,
            "in bold before the text",
            Fallback(
                "in bold before the text, or with their picture as the sender where clients know per-message profiles",
            ),
        ),
        Capability {
            what: Feature::Emote,
            to_channel: Full(""),
            to_room: Full(""),
        },
        Capability::planned(
            &CAPABILITIES,
            Feature::Reply,
            "in the thread of the message",
            No("Gitter has threads only"),
        ),
        Capability::planned(&CAPABILITIES, Feature::Thread, "", Full("")),
        Capability::planned(
            &CAPABILITIES,
            Feature::Edit,
            "for ten minutes; later as a new message that points to the old one",
            Full(""),
        ),
        Capability::planned(&CAPABILITIES, Feature::Deletion, "", Full("")),
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
            "all reactions to a message in one line of its thread, which is edited; from encrypted rooms where \
                 the portal allows them",
            No("Gitter has none"),
        ),
        Capability::planned(
            &CAPABILITIES,
            Feature::File,
            "a line that names it, or links to it with `public_url`",
            No("Gitter has links only"),
        ),
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
