//! The message object of the API: its keys, their order, and Go's JSON encoding.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A message, as the API sends and accepts it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Message {
    /// Its text.
    pub text: String,
    /// The channel of origin.
    pub channel: String,
    /// The formatted name of its author.
    pub username: String,
    /// The author's id in the network.
    pub userid: String,
    /// The URL of the author's avatar.
    pub avatar: String,
    /// `protocol.name` of the origin.
    pub account: String,
    /// The kind of event.
    pub event: String,
    /// The network of origin.
    pub protocol: String,
    /// The name of the gateway.
    pub gateway: String,
    /// The id of the message that it replies to.
    pub parent_id: String,
    /// When Matterbridge accepted it.
    pub timestamp: String,
    /// Always empty in messages that the API sends.
    pub id: String,
    /// Attachments.
    #[serde(rename = "Extra", alias = "extra")]
    pub extra: Value,
}

impl Message {
    /// A message of an IRC user.
    pub fn from_irc(gateway: &str, nick: &str, text: &str) -> Self {
        Self {
            text: text.to_owned(),
            channel: "#test".to_owned(),
            username: nick.to_owned(),
            userid: format!("~{nick}@127.0.0.1"),
            account: "irc.local".to_owned(),
            protocol: "irc".to_owned(),
            gateway: gateway.to_owned(),
            ..Self::default()
        }
    }

    /// The same message as another kind of event.
    #[must_use]
    pub fn event(mut self, event: &str) -> Self {
        event.clone_into(&mut self.event);
        self
    }

    /// One line of JSON, escaped for HTML as Go does.
    pub(super) fn json(&self) -> String {
        escaped(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// Escapes JSON as Go does, which makes it safe inside an HTML page.
pub(super) fn escaped(json: &str) -> String {
    json.replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}
