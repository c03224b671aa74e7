//! What a person sees of a room's timeline.

use anyhow::Context;
use matrix_sdk::{deserialized_responses::TimelineEvent, ruma::RoomId};
use serde::Deserialize;
use serde_json::Value;

/// Something that appeared in a room.
#[derive(Clone, Debug)]
pub struct SeenEvent {
    /// The room.
    pub room: String,
    /// Its id.
    pub event_id: String,
    /// Who sent it.
    pub sender: String,
    /// Its type, after decryption.
    pub event_type: String,
    /// Its content, decrypted.
    pub content: Value,
    /// Whether it came encrypted.
    pub encrypted: bool,
    /// Whether it could not be read. It is seen again, readable, when its key comes.
    pub undecryptable: bool,
    /// When the server says it was sent.
    pub sent_at_ms: i64,
    /// The transaction id, for what this device sent itself.
    pub transaction_id: Option<String>,
}

/// The fields of an event that a test looks at.
#[derive(Deserialize)]
struct Fields {
    event_id: String,
    sender: String,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    content: Value,
    origin_server_ts: i64,
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Default, Deserialize)]
struct Unsigned {
    transaction_id: Option<String>,
}

impl SeenEvent {
    /// What a person sees of an event.
    pub(super) fn of(room: &RoomId, event: &TimelineEvent) -> anyhow::Result<Self> {
        let fields: Fields = serde_json::from_str(event.raw().json().get())
            .context("an event without its fields")?;
        Ok(Self {
            room: room.to_string(),
            event_id: fields.event_id,
            sender: fields.sender,
            event_type: fields.event_type,
            content: fields.content,
            encrypted: event.encryption_info().is_some() || event.kind.is_utd(),
            undecryptable: event.kind.is_utd(),
            sent_at_ms: fields.origin_server_ts,
            transaction_id: fields.unsigned.transaction_id,
        })
    }
}
