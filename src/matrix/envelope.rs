//! What an event says outside of its content, and what its sender is called.

use std::collections::HashMap;

use matrix_sdk::{
    Room,
    deserialized_responses::TimelineEvent,
    ruma::{RoomId, UserId},
};
use serde::Deserialize;
use serde_json::Value;

/// The fields of an event that decide about it.
#[derive(Deserialize)]
pub(super) struct Envelope {
    pub event_id: String,
    pub sender: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub origin_server_ts: i64,
    #[serde(default)]
    pub content: Value,
    pub state_key: Option<String>,
    pub redacts: Option<String>,
    #[serde(default)]
    pub unsigned: Unsigned,
}

/// What the server adds to an event.
#[derive(Default, Deserialize)]
pub(super) struct Unsigned {
    pub transaction_id: Option<String>,
    pub replaces_state: Option<String>,
    pub redacted_because: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    pub prev_content: Value,
}

impl Envelope {
    pub(super) fn open(event: &TimelineEvent) -> Option<Self> {
        /// No id of Matrix is longer, in bytes.
        const LONGEST: usize = 255;
        let read: Self = serde_json::from_str(event.raw().json().get()).ok()?;
        (read.sender.len().max(read.event_id.len()) <= LONGEST).then_some(read)
    }

    /// Whether this user entered the room by this event.
    pub(super) fn is_join_of(&self, user: &UserId) -> bool {
        self.joiner() == Some(user.as_str())
    }

    /// Who entered the room by this event.
    pub(super) fn joiner(&self) -> Option<&str> {
        fn membership(content: &Value) -> Option<&str> {
            content.get("membership").and_then(Value::as_str)
        }
        let joins = self.event_type == "m.room.member"
            && membership(&self.content) == Some("join")
            && membership(&self.unsigned.prev_content) != Some("join");
        self.state_key.as_deref().filter(|_| joins)
    }

    /// The room that takes this one's place, if the event says so.
    pub(super) fn successor(&self) -> Option<&str> {
        let moved = self.event_type == "m.room.tombstone" && self.state_key.as_deref() == Some("");
        let next = self.content.get("replacement_room");
        let next = next.and_then(Value::as_str).filter(|_| moved);
        next.filter(|next| RoomId::parse(*next).is_ok())
    }
}

/// The names of senders, as far as one walk has looked them up.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, String>);

impl Names {
    /// Takes in what a page of history says about members.
    pub(super) fn learn(&mut self, user: &str, name: &str) {
        self.0.insert(user.to_owned(), name.to_owned());
    }

    /// The name people see in the room; the user id when there is none. No request is made for it.
    pub(super) async fn of(&mut self, room: &Room, user: &str) -> String {
        if let Some(name) = self.0.get(user) {
            return name.clone();
        }
        let member = match <&UserId>::try_from(user) {
            Ok(user) => room.get_member_no_sync(user).await.ok().flatten(),
            Err(_) => None,
        };
        let name = member
            .and_then(|member| member.display_name().map(str::to_owned))
            .unwrap_or_else(|| user.to_owned());
        self.learn(user, &name);
        name
    }
}
