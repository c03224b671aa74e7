//! What a Matrix room can do.

use footbridge_core::{
    capabilities::{
        Attribution, Capabilities, Deletes, EditHistory, Edits, FileText, Files, Idempotency,
        LengthUnit, Limits, Reactions, Replies, TextLimit,
    },
    render::Html,
};

/// The largest content that is sent, in bytes of JSON. Encryption makes it a third larger, and 64 KiB is the limit of
/// the whole event (C12).
const MAX_BYTES: usize = 45_000;

const fn bytes(max: usize) -> TextLimit {
    TextLimit {
        max,
        unit: LengthUnit::Bytes,
    }
}

/// What a room can do.
pub const CAPABILITIES: Capabilities = Capabilities {
    renderer: &Html,
    limits: Limits {
        text: bytes(MAX_BYTES),
        // The event of an edit contains the text twice, and with a caption also the fields of the file.
        edit: bytes(MAX_BYTES / 2),
        caption: bytes(MAX_BYTES / 3),
    },
    empty_messages: true,
    attribution: Attribution::Both,
    replies: Replies::Native,
    threads: true,
    edits: Edits::Always,
    edit_history: EditHistory::Kept,
    deletes: Deletes::Native,
    reactions: Reactions::Any,
    files: Files::Upload {
        max: None,
        text: FileText::Apart,
    },
    bundles: true,
    idempotency: Idempotency::ByKey,
};
