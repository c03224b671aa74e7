//! The fields of an event outside of its content, and the display names of senders.

use std::collections::HashMap;

use footbridge_store::RemoteId;
use matrix_sdk::{
    Room,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    ruma::{RoomId, UserId, room_version_rules::RedactionRules},
};
use serde::Deserialize;
use serde_json::Value;

/// The longest id in Matrix, in bytes.
const MAX_ID: usize = 255;

/// The fields of an event that decide what happens with it.
#[derive(Deserialize)]
pub(super) struct EventFields {
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
    /// The event was encrypted, and its type counts only where the homeserver has checked the event.
    #[serde(skip)]
    pub unchecked: bool,
}

/// The fields that the homeserver adds to an event.
#[derive(Default, Deserialize)]
pub(super) struct Unsigned {
    pub transaction_id: Option<String>,
    pub replaces_state: Option<String>,
    pub redacted_because: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    pub prev_content: Value,
}

impl EventFields {
    pub(super) fn open(event: &TimelineEvent) -> Option<Self> {
        let envelope: Self = serde_json::from_str(event.raw().json().get()).ok()?;
        if envelope.sender.len().max(envelope.event_id.len()) > MAX_ID {
            return None;
        }
        Some(match event.kind {
            TimelineEventKind::Decrypted(_) => envelope.mark_unchecked(),
            _ => envelope,
        })
    }

    /// The homeserver never saw what was encrypted: it has not checked whether the sender may change the room's state
    /// or redact another user's event. So nothing inside makes a state event or a redaction.
    fn mark_unchecked(mut self) -> Self {
        let is_state = self.state_key.take().is_some();
        self.redacts = None;
        self.unchecked = is_state || is_never_encrypted(&self.event_type);
        self
    }

    /// The target of a redaction, from the field that the homeserver checks in this room version. If the version is
    /// unknown, the two fields must not contradict each other.
    pub(super) fn redacted(&self, rules: Option<&RedactionRules>) -> Option<RemoteId> {
        let inside = self.content.get("redacts").and_then(Value::as_str);
        let beside = self.redacts.as_deref();
        let target = match rules {
            Some(rules) if rules.content_field_redacts => inside,
            Some(_) => beside,
            None if inside.is_some() && beside.is_some() && inside != beside => None,
            None => inside.or(beside),
        };
        target
            .filter(|id| id.starts_with('$') && id.len() <= MAX_ID)
            .map(RemoteId::from)
    }

    /// Whether the event was redacted: its content is then removed, except for what the room version keeps.
    pub(super) fn is_redacted(&self) -> bool {
        self.unsigned.redacted_because.is_some()
            || self
                .content
                .as_object()
                .is_some_and(serde_json::Map::is_empty)
    }

    /// Whether this user joined the room by this event.
    pub(super) fn is_join_of(&self, user: &UserId) -> bool {
        self.joiner() == Some(user.as_str())
    }

    /// The user who joined the room by this event.
    pub(super) fn joiner(&self) -> Option<&str> {
        fn membership(content: &Value) -> Option<&str> {
            content.get("membership").and_then(Value::as_str)
        }
        let joins = self.event_type == "m.room.member"
            && membership(&self.content) == Some("join")
            && membership(&self.unsigned.prev_content) != Some("join");
        self.state_key.as_deref().filter(|_| joins)
    }

    /// The room that replaces this one, if the event says so.
    pub(super) fn successor(&self) -> Option<&str> {
        let moved = self.event_type == "m.room.tombstone" && self.state_key.as_deref() == Some("");
        let next = self.content.get("replacement_room");
        let next = next.and_then(Value::as_str).filter(|_| moved);
        next.filter(|next| RoomId::parse(*next).is_ok())
    }
}

/// Whether events of this type count only unencrypted: redactions, state events, and doubly encrypted events.
fn is_never_encrypted(event_type: &str) -> bool {
    matches!(event_type, "m.room.redaction" | "m.room.encrypted")
        || super::convert::is_state(event_type)
}

/// Display names of senders, as far as this batch of events has looked them up.
#[derive(Debug, Default)]
pub(super) struct DisplayNames(HashMap<String, String>);

impl DisplayNames {
    /// Records the display name in a member event from a page of history.
    pub(super) fn learn(&mut self, user: &str, name: &str) {
        self.0.insert(user.to_owned(), name.to_owned());
    }

    /// The display name in the room; the user id if there is none. No request is made for it.
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

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::room_version_rules::RoomVersionRules;
    use serde_json::json;

    use super::*;

    fn envelope(event: Value) -> EventFields {
        let mut event = event;
        event["event_id"] = "$e".into();
        event["sender"] = "@a:x".into();
        event["origin_server_ts"] = 1.into();
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn c20_neither_state_nor_a_redaction_is_taken_from_inside_of_an_encrypted_event() {
        for event_type in [
            "m.room.redaction",
            "m.room.encrypted",
            "m.room.encryption",
            "m.room.tombstone",
            "m.room.member",
            "m.room.power_levels",
            "m.space.child",
        ] {
            let inside = envelope(json!({"type": event_type, "content": {}})).mark_unchecked();
            assert!(inside.unchecked, "{event_type}");
        }
        let own = json!({"type": "org.example.state", "state_key": "", "content": {}});
        assert!(envelope(own).mark_unchecked().unchecked);
        for (event_type, content) in [
            ("m.room.tombstone", json!({"replacement_room": "!b:x"})),
            ("m.room.member", json!({"membership": "join"})),
        ] {
            let event = json!({"type": event_type, "state_key": "", "content": content});
            let outside = envelope(event.clone());
            assert!(outside.successor().is_some() || outside.joiner().is_some());
            let inside = envelope(event).mark_unchecked();
            assert_eq!((inside.successor(), inside.joiner()), (None, None));
        }
        let said = json!({"type": "m.room.message", "redacts": "$1", "content": {"body": "x"}});
        let inside = envelope(said).mark_unchecked();
        assert!(!inside.unchecked && inside.redacts.is_none());
    }

    #[test]
    fn c20_a_redaction_names_its_target_where_the_homeserver_has_looked() {
        let both = json!({"type": "m.room.redaction", "redacts": "$beside", "content": {"redacts": "$inside"}});
        let old = json!({"type": "m.room.redaction", "redacts": "$beside", "content": {}});
        let new = json!({"type": "m.room.redaction", "content": {"redacts": "$inside"}});
        let long =
            json!({"type": "m.room.redaction", "redacts": format!("${:0255}", 1), "content": {}});
        let (v10, v11) = (
            RoomVersionRules::V10.redaction,
            RoomVersionRules::V11.redaction,
        );
        for (event, rules, target) in [
            (&both, Some(&v10), Some("$beside")),
            (&both, Some(&v11), Some("$inside")),
            (&both, None, None),
            (&old, Some(&v10), Some("$beside")),
            (&old, Some(&v11), None),
            (&old, None, Some("$beside")),
            (&new, Some(&v10), None),
            (&new, Some(&v11), Some("$inside")),
            (&new, None, Some("$inside")),
            (&long, Some(&v10), None),
        ] {
            let actual = envelope(event.clone()).redacted(rules);
            assert_eq!(actual, target.map(RemoteId::from), "{event} {rules:?}");
        }
    }
}
