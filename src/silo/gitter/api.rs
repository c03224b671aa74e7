//! Gitter's JSON as the bridge reads it. Only ids are required: any other field may be missing, null, or of another
//! type than documented, and then counts as missing.

use footbridge_store::{Millis, RemoteId};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// A message, in a listing, a response or an event.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatMessage {
    /// 24 hex digits.
    pub id: String,
    /// Markdown, as sent. Empty after some kinds of deletion.
    #[serde(default, deserialize_with = "lenient")]
    pub text: Option<String>,
    /// The server's rendering.
    #[serde(default, deserialize_with = "lenient")]
    pub html: Option<String>,
    /// Whether it is an emote (`/me`).
    #[serde(default, deserialize_with = "lenient")]
    pub status: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    sent: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    edited_at: Option<String>,
    /// The root of its thread.
    #[serde(default, deserialize_with = "lenient")]
    pub parent_id: Option<String>,
    /// The author; absent when the account was deleted.
    #[serde(default, deserialize_with = "lenient")]
    pub from_user: Option<User>,
    /// The real author, when another bridge posted it.
    #[serde(default, deserialize_with = "lenient")]
    pub virtual_user: Option<VirtualUser>,
    /// Grows with every save, also of thread counters. Absent from a message that was never stored.
    #[serde(default, deserialize_with = "lenient")]
    pub v: Option<i64>,
}

impl ChatMessage {
    /// When Gitter accepted it; if missing, the second of its id.
    pub fn sent_at(&self) -> Millis {
        self.sent
            .as_deref()
            .and_then(moment)
            .or_else(|| time_of_id(&self.id))
            .unwrap_or_default()
    }

    /// When its text was last changed.
    pub fn edited_at(&self) -> Option<Millis> {
        self.edited_at.as_deref().and_then(moment)
    }

    /// Its id in its channel.
    pub fn remote(&self) -> RemoteId {
        RemoteId(self.id.clone())
    }

    /// The raw text, empty when there is none.
    pub fn raw(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Whether this account wrote it.
    pub fn is_from(&self, user_id: &str) -> bool {
        self.from_user
            .as_ref()
            .is_some_and(|user| user.id == user_id)
    }
}

/// An account.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// 24 hex digits, or made up for virtual users.
    pub id: String,
    /// The login name, without `@`.
    #[serde(default, deserialize_with = "lenient")]
    pub username: Option<String>,
    /// The display name.
    #[serde(default, deserialize_with = "lenient")]
    pub display_name: Option<String>,
    /// The address of their avatar: on an avatar host, or behind a path of the website.
    #[serde(default, deserialize_with = "lenient")]
    pub avatar_url: Option<String>,
    /// `admin` for an admin of the room, in its list of users.
    #[serde(default, deserialize_with = "lenient")]
    pub role: Option<String>,
}

/// A user of another bridge.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualUser {
    /// The user's id in the other network.
    #[serde(default, deserialize_with = "lenient")]
    pub external_id: Option<String>,
    /// The display name.
    #[serde(default, deserialize_with = "lenient")]
    pub display_name: Option<String>,
}

/// A channel.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Room {
    /// 24 hex digits.
    pub id: String,
    /// `org/room`; absent for one-to-one rooms.
    #[serde(default, deserialize_with = "lenient")]
    pub uri: Option<String>,
    /// The display name.
    #[serde(default, deserialize_with = "lenient")]
    pub name: Option<String>,
    /// The topic.
    #[serde(default, deserialize_with = "lenient")]
    pub topic: Option<String>,
    /// The address of its group's avatar.
    #[serde(default, deserialize_with = "lenient")]
    #[serde(rename = "avatarUrl")]
    pub avatar_url: Option<String>,
    /// Whether the bridge's account is in it.
    #[serde(default, deserialize_with = "lenient")]
    #[serde(rename = "roomMember")]
    pub member: Option<bool>,
    /// Whether everybody can read it.
    #[serde(default, deserialize_with = "lenient")]
    pub public: Option<bool>,
}

/// Reads a value of the expected type; any other counts as missing.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// Reads the valid messages of a list, in its order, and counts the rest.
pub fn messages_from_values(values: Vec<Value>) -> (Vec<ChatMessage>, usize) {
    let all = values.len();
    let messages: Vec<ChatMessage> = values
        .into_iter()
        .filter_map(|value| serde_json::from_value(value).ok())
        .collect();
    let unreadable = all - messages.len();
    (messages, unreadable)
}

/// Parses an ISO 8601 time.
fn moment(text: &str) -> Option<Millis> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    Some(Millis(stamp.as_millisecond()))
}

/// The second in which an id was made.
pub fn time_of_id(id: &str) -> Option<Millis> {
    let seconds = i64::from_str_radix(id.get(..8)?, 16).ok()?;
    Some(Millis(seconds.saturating_mul(1000)))
}

/// An id that no message has, less than all ids of that second and greater than all earlier ones: listings filter by
/// id, so this is how a request names a time.
pub fn id_at_time(moment: Millis) -> String {
    let seconds = (moment.0 / 1000).clamp(0, i64::from(u32::MAX));
    format!("{seconds:08x}0000000000000000")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_id_of_a_message_is_required() {
        let message: ChatMessage = serde_json::from_value(json!({
            "id": "5f1e00000000000000000001", "text": 7, "sent": {"a": 1}, "editedAt": null,
            "fromUser": "nobody", "v": "x", "meta": [1], "status": "yes", "unheard": {"of": []}
        }))
        .unwrap();
        assert_eq!(message.raw(), "");
        assert_eq!(message.sent_at(), Millis(0x5f1e_0000 * 1000));
        assert!(message.edited_at().is_none() && message.v.is_none());
        assert!(message.from_user.is_none());
    }

    #[test]
    fn moments_keep_their_milliseconds() {
        let message: ChatMessage = serde_json::from_value(json!({
            "id": "5f1e00000000000000000001", "sent": "2020-07-27T10:00:00.123Z",
            "editedAt": "2020-07-27T10:00:01.004Z"
        }))
        .unwrap();
        assert_eq!(message.sent_at(), Millis(1_595_844_000_123));
        assert_eq!(message.edited_at(), Some(Millis(1_595_844_001_004)));
    }

    #[test]
    fn an_unreadable_message_does_not_hide_its_neighbours() {
        let (messages, unreadable) = messages_from_values(vec![
            json!({"id": "a"}),
            json!(3),
            json!({"no": 1}),
            json!({"id": "b"}),
        ]);
        assert_eq!(messages.len(), 2);
        assert_eq!(unreadable, 2);
    }

    #[test]
    fn a_generated_id_sorts_before_every_id_of_its_second() {
        let id = id_at_time(Millis(1_595_844_000_999));
        assert_eq!(id.len(), 24);
        assert_eq!(time_of_id(&id), Some(Millis(1_595_844_000_000)));
        assert_eq!(id_at_time(Millis(-5)), "0".repeat(24));
        assert_eq!(time_of_id("é"), None);
    }
}
