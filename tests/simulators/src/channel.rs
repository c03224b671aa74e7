//! What a test needs of a simulated silo, whatever its kind: a server with one channel, in which the bridge's account and
//! another person, Bob, are. Each simulator implements it in its own folder.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::file_server::FileServer;

/// A kind of simulated silo.
pub struct SimulatorKind {
    /// The `kind` in the bridge's configuration.
    pub name: &'static str,
    /// Starts a server with default options and one channel.
    pub open: fn() -> BoxFuture<'static, anyhow::Result<Arc<dyn SimulatedChannel>>>,
}

/// The URL at which the bridge reaches a URL of the server: another one if a proxy stands between them.
pub type Route<'a> = &'a (dyn Fn(&str) -> String + Sync);

/// A channel of a simulated silo. What a network does not have does nothing, or is `None`.
#[async_trait]
pub trait SimulatedChannel: Any + Send + Sync {
    /// The kind of the silo.
    fn kind(&self) -> &'static SimulatorKind;

    /// The URL of the API.
    fn url(&self) -> String;

    /// The URL of the WebSocket's server.
    fn feed_url(&self) -> String {
        self.url()
    }

    /// The lines of the bridge's `[[silo]]` section that say where the server is. `api` routes the URLs of the API,
    /// `feed` those of the live feed; where both are one URL, both apply.
    fn section(&self, api: Route<'_>, feed: Route<'_>) -> String;

    /// The token of the bridge's account.
    fn token(&self) -> String;

    /// Adds another account that a bridge can use, to the channel as well; returns its token.
    fn add_account(&self) -> Option<String>;

    /// The server with files that the network stores as links only.
    fn file_server(&self) -> &FileServer;

    /// The channel, as a portal names it.
    fn name(&self) -> String;

    /// Adds a channel in which the same accounts are; returns its name and its id.
    fn add_channel(&self) -> (String, String);

    /// Performs an action of Bob's. Returns the id of the result, or `None` if the network does not support the action
    /// or reports no id.
    fn act(&self, action: UserAction<'_>) -> Option<String>;

    /// Bob posts in the channel with this id.
    fn say_in(&self, channel: &str, text: &str);

    /// A person posts with the bridge's account; returns the id.
    fn say_as_bridge(&self, text: &str) -> Option<String>;

    /// What people see in the channel, in order: an id for each message, its author, and its content with its position,
    /// files and reactions.
    fn shown(&self) -> Vec<(String, String)>;

    /// The current texts of the bridge's messages.
    fn bridge_texts(&self) -> Vec<String>;

    /// The text of every message that the bridge ever posted, in order.
    fn bridge_texts_ever(&self) -> Vec<String>;

    /// Sets the name, the topic and the avatar of the channel, and allows the bridge to change the topic.
    fn set_profile(&self, name: &str, topic: &str, avatar: Vec<u8>);

    /// The channel's topic.
    fn topic(&self) -> Option<String>;

    /// Sets Bob's avatar, a PNG.
    fn set_bob_avatar(&self, content: Vec<u8>);

    /// Bans the bridge's account from the channel.
    fn ban(&self);

    /// The token of the bridge's account becomes invalid.
    fn revoke_token(&self);

    /// The token of the bridge's account becomes valid again.
    fn accept_token(&self);

    /// The server stops listening, on all ports.
    async fn stop(&self);

    /// The server listens again, on the same ports.
    async fn restart(&self) -> anyhow::Result<()>;

    /// Resets every connection of the live feed; returns how many there were.
    fn cut(&self) -> usize;

    /// The server performs the next post of the bridge, and its response is lost.
    fn lose_response(&self);

    /// The next post of the bridge is lost before the server performs it.
    fn lose_request(&self);

    /// From now on a post arrives on the live feed before the response to the request that made it.
    fn respond_after_feed(&self);

    /// The feed sends a frame that is not JSON before the next event.
    fn garble(&self);

    /// Texts that the silo itself lost: it sent them to nobody, or the receiver had the only copy.
    fn lost_by_itself(&self) -> Vec<String> {
        Vec::new()
    }
}

impl dyn SimulatedChannel {
    /// The channel as its own type, if it is of this kind.
    #[must_use]
    pub fn of<T: SimulatedChannel>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// An action of Bob's.
#[derive(Clone, Copy)]
pub enum UserAction<'a> {
    /// Posts this, in the network's own dialect.
    Say(&'a str),
    /// `/me does something`
    Emote(&'a str),
    /// Replies to a message; in its thread if the network has no replies.
    Reply(&'a str, &'a str),
    /// Posts in the thread of this message.
    Thread(&'a str, &'a str),
    /// Edits this message to this text.
    Edit(&'a str, &'a str),
    /// Deletes this message.
    Delete(&'a str),
    /// Reacts to this message with this emoji, by its name.
    React(&'a str, &'a str),
    /// Removes this reaction.
    Unreact(&'a str, &'a str),
    /// Sends a file of this name, with a text.
    File(&'a str, &'a str),
    /// Adds a user to the channel.
    Join,
    /// Posts as a bot.
    Notice(&'a str),
    /// Posts as an integration, with this attachment in JSON.
    Attach(&'a str),
    /// Edits this message to this text, and adds a file of this name.
    AddFile(&'a str, &'a str, &'a str),
}

/// A picture of one pixel, as PNG: what Bob's files contain.
pub(crate) const PIXEL: &[u8] = &[
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, b'I', b'H', b'D', b'R', 0, 0, 0,
    1, 0, 0, 0, 1, 8, 6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89,
];
/// The same in Base64.
pub(crate) const PIXEL_BASE64: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ";

/// A TOML string. JSON strings are TOML strings.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
