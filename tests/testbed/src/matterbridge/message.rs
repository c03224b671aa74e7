//! The one object of the API: its keys, their order, and how Go writes them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A message, as it is handed out and taken in.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Message {
    /// What it says.
    pub text: String,
    /// The channel of origin.
    pub channel: String,
    /// Who says it, formatted.
    pub username: String,
    /// Who says it, by the network's own id.
    pub userid: String,
    /// Where their picture is.
    pub avatar: String,
    /// `protocol.name` of the origin.
    pub account: String,
    /// What kind of event it is.
    pub event: String,
    /// The network of origin.
    pub protocol: String,
    /// The gateway.
    pub gateway: String,
    /// What it answers.
    pub parent_id: String,
    /// When it was taken.
    pub timestamp: String,
    /// Always empty on the way out.
    pub id: String,
    /// What is attached.
    #[serde(rename = "Extra", alias = "extra")]
    pub extra: Value,
}

impl Message {
    /// Somebody on IRC says this.
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

    /// The same as another kind of event.
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

/// Go's JSON is safe inside a page.
pub(super) fn escaped(json: &str) -> String {
    json.replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}
