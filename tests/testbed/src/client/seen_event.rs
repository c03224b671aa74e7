//! One event as a test client sees it in a room's timeline.

use anyhow::Context;
use matrix_sdk::{deserialized_responses::TimelineEvent, ruma::RoomId};
use serde::Deserialize;
use serde_json::Value;

/// An event of a room's timeline.
#[derive(Clone, Debug)]
pub struct SeenEvent {
    /// The room id.
    pub room: String,
    /// The event id.
    pub event_id: String,
    /// The user id of the sender.
    pub sender: String,
    /// The event type, after decryption.
    pub event_type: String,
    /// The content, decrypted.
    pub content: Value,
    /// Whether the event was encrypted.
    pub encrypted: bool,
    /// Whether the event could not be decrypted. When its room key arrives, it is returned again, decrypted.
    pub undecryptable: bool,
    /// `origin_server_ts`, in milliseconds.
    pub sent_at_ms: i64,
    /// The transaction id, if this device sent the event.
    pub transaction_id: Option<String>,
}

/// The fields of an event that tests use.
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
    /// Converts a timeline event of the SDK.
    pub(super) fn of(room: &RoomId, event: &TimelineEvent) -> anyhow::Result<Self> {
        let fields: Fields = serde_json::from_str(event.raw().json().get())
            .context("an event without its required fields")?;
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
