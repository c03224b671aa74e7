//! What is relayed between a room and the networks of a Matterbridge.

use footbridge_core::{
    capabilities::{
        Attribution, Capabilities, Deletes, EditHistory, Edits, FileText, Files, Idempotency,
        Limits, Reactions, Replies, TextLimit,
    },
    render::Plain,
};

use super::{
    config,
    convert::{REPLY_MARK, harmless},
    errors::OUTCOME_UNKNOWN,
};
use crate::capabilities::{
    Capability, ChannelName, Feature, SiloKind,
    Support::{Fallback, Full, No},
};

/// The largest file that is sent there, in bytes: Matterbridge and its networks keep it in memory, in base64.
pub const MAX_FILE: u64 = 20 << 20;

/// What Matterbridge can do: its API only posts.
pub const CAPABILITIES: Capabilities = Capabilities {
    renderer: &Plain { escape: harmless },
    limits: Limits::all(TextLimit::NONE),
    empty_messages: false,
    attribution: Attribution::Override,
    // Which message a reply answers is unknown in both directions.
    replies: Replies::Marked(REPLY_MARK),
    threads: false,
    // How Matterbridge's own networks mark an edit by default.
    edits: Edits::AsPost { mark: " (edited)" },
    edit_history: EditHistory::Replaced,
    deletes: Deletes::AsPost,
    reactions: Reactions::None,
    files: Files::Upload {
        max: Some(MAX_FILE),
        text: FileText::WithFirst { bare: true },
    },
    bundles: false,
    // An account does not receive its own messages, and the API has no look-up.
    idempotency: Idempotency::Unknowable {
        reason: OUTCOME_UNKNOWN,
    },
};

/// The table of Matterbridge.
pub static KIND: SiloKind = SiloKind {
    word: "matterbridge",
    title: "Matterbridge",
    address: Some(("api", "http://127.0.0.1:4242")),
    channel: "gateway1",
    channel_name: ChannelName::Line,
    can: &CAPABILITIES,
    needs_token: false,
    proves_authors: false,
    keys: config::KEYS,
    read: config::read,
    capabilities: &[
        Capability::planned(
            &CAPABILITIES,
            Feature::Text,
            "plain text for every network; a network with Markdown shows `*stars*` in it as markup",
            Full("as the network wrote it"),
        ),
        Capability::planned(
            &CAPABILITIES,
            Feature::Name,
            "beside the text, with the user id",
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
            "marked with ↪; the original message cannot be named",
            Fallback("marked with ↪; the original message is not named"),
        ),
        Capability::planned(
            &CAPABILITIES,
            Feature::Thread,
            "marked with ↪",
            Fallback("marked with ↪"),
        ),
        Capability::planned(
            &CAPABILITIES,
            Feature::Edit,
            "a new message that ends in `(edited)`",
            Fallback("a new message, as Matterbridge shows it"),
        ),
        Capability::planned(
            &CAPABILITIES,
            Feature::Deletion,
            "a line that reports it; the message stays",
            No("the API does not report them"),
        ),
        Capability {
            what: Feature::Mention,
            to_channel: Fallback(
                "as text: nobody is notified by a mark or the name after it (programs that react to a bare name, as \
                 on IRC, cannot be prevented)",
            ),
            to_room: Fallback("as text: nobody is notified"),
        },
        Capability::planned(
            &CAPABILITIES,
            Feature::Reaction,
            "the API has none",
            No("the API has none"),
        ),
        Capability::planned(
            &CAPABILITIES,
            Feature::File,
            "up to {file}, with its caption; larger files as a line that names them, or links to them with `public_url`",
            Full(
                "what Matterbridge passes on, up to its `MediaDownloadSize` (1 MB by default), or fetched from \
                 `media_hosts`; else a link, or a line that names it",
            ),
        ),
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
