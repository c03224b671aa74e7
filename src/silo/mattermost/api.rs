//! The parts of Mattermost's JSON that the bridge reads (API reference v4). Any field may be missing.

use std::collections::HashMap;

use footbridge_store::{Millis, RemoteId};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// The property that marks the bridge's posts; its value is the key of the step that made the post. Mattermost stores
/// it with the post.
pub const STEP_KEY_PROP: &str = "footbridge";

/// A post. Times are milliseconds since the epoch, 0 for never.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Post {
    /// 26 characters.
    pub id: String,
    /// When it was written.
    pub create_at: i64,
    /// When anything about it last changed.
    pub update_at: i64,
    /// When its text last changed.
    pub edit_at: i64,
    /// When it was deleted.
    pub delete_at: i64,
    /// The author.
    pub user_id: String,
    /// The channel.
    pub channel_id: String,
    /// The first post of its thread.
    pub root_id: String,
    /// The number of replies in its thread.
    #[serde(deserialize_with = "lenient")]
    pub reply_count: u64,
    /// Not empty if this is the old text of another post.
    pub original_id: String,
    /// Markdown.
    pub message: String,
    /// Empty for a message, `me` for an emote, `system_…` for a message of the server.
    #[serde(rename = "type")]
    pub kind: String,
    /// Free properties.
    #[serde(deserialize_with = "lenient")]
    pub props: Props,
    /// Files and reactions.
    #[serde(deserialize_with = "lenient")]
    pub metadata: Metadata,
    /// The ids of its files. [`Metadata::files`] describes them, but not in every response.
    #[serde(deserialize_with = "lenient")]
    pub file_ids: Option<Vec<String>>,
}

/// The free properties that the bridge reads.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Props {
    /// See [`STEP_KEY_PROP`].
    #[serde(rename = "footbridge", deserialize_with = "lenient")]
    pub mark: Option<String>,
    /// The name shown instead of the account's.
    #[serde(deserialize_with = "lenient")]
    pub override_username: Option<String>,
    /// Whether the post claims to be from an integration: a webhook's post does, and its author is whoever created the
    /// webhook. Anybody may set these properties outside of the server's hardened mode.
    #[serde(deserialize_with = "lenient")]
    pub from_webhook: Value,
    /// The same for a plugin.
    #[serde(deserialize_with = "lenient")]
    pub from_plugin: Value,
    /// The text of an emote, without the marks around it.
    #[serde(deserialize_with = "lenient")]
    pub message: Option<String>,
    /// Attachments of an integration.
    #[serde(deserialize_with = "lenient")]
    pub attachments: Vec<Attachment>,
}

impl Props {
    /// The name that the post claims instead of the account's.
    pub fn claimed_name(&self) -> Option<&str> {
        let claimed = self.override_username.as_deref().map(str::trim);
        claimed.filter(|claimed| !claimed.is_empty())
    }

    /// Whether somebody other than the account's owner may have written it.
    pub fn speaks_for_another(&self) -> bool {
        let says =
            |value: &Value| matches!(value.as_str(), Some("true")) || value.as_bool() == Some(true);
        self.claimed_name().is_some() || says(&self.from_webhook) || says(&self.from_plugin)
    }
}

/// An attachment of an integration.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// The text above it.
    #[serde(deserialize_with = "lenient")]
    pub pretext: String,
    /// The author, as the integration names them.
    #[serde(deserialize_with = "lenient")]
    pub author_name: String,
    /// The link of that name.
    #[serde(deserialize_with = "lenient")]
    pub author_link: String,
    /// Its heading.
    #[serde(deserialize_with = "lenient")]
    pub title: String,
    /// The link of the heading.
    #[serde(deserialize_with = "lenient")]
    pub title_link: String,
    /// Its text.
    #[serde(deserialize_with = "lenient")]
    pub text: String,
    /// Names and values.
    #[serde(deserialize_with = "lenient")]
    pub fields: Vec<Field>,
    /// The address of an image below it.
    #[serde(deserialize_with = "lenient")]
    pub image_url: String,
    /// The address of a small image next to it.
    #[serde(deserialize_with = "lenient")]
    pub thumb_url: String,
    /// The text below it.
    #[serde(deserialize_with = "lenient")]
    pub footer: String,
    /// Buttons and menus.
    #[serde(deserialize_with = "lenient")]
    pub actions: Vec<Button>,
    /// All of it in one line of plain text.
    #[serde(deserialize_with = "lenient")]
    pub fallback: String,
}

/// A button or menu below an attachment.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Button {
    /// Its label.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
}

/// A name and a value.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Field {
    /// The name.
    #[serde(deserialize_with = "lenient")]
    pub title: String,
    /// The value: a text, a number, anything.
    pub value: Value,
}

/// The files and reactions of a post.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Files.
    #[serde(deserialize_with = "lenient")]
    pub files: Vec<File>,
    /// Its reactions.
    #[serde(deserialize_with = "lenient")]
    pub reactions: Vec<Reaction>,
}

/// A reaction to a post.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Reaction {
    /// Who reacted.
    pub user_id: String,
    /// The post.
    pub post_id: String,
    /// Without the colons.
    pub emoji_name: String,
    /// When it was added.
    #[serde(deserialize_with = "lenient")]
    pub create_at: i64,
}

/// A file.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct File {
    /// 26 characters.
    pub id: String,
    /// Its name.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// Its MIME type.
    pub mime_type: String,
    /// Whether the server has a smaller image of it.
    pub has_preview_image: bool,
    /// The width of an image in pixels; 0 for anything else.
    pub width: u32,
    /// The height of an image in pixels; 0 for anything else.
    pub height: u32,
}

/// A list of posts.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Listing {
    /// Ids, newest first.
    #[serde(deserialize_with = "lenient")]
    pub order: Vec<String>,
    /// The posts, and the first ones of their threads.
    pub posts: HashMap<String, Value>,
}

/// A user.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct User {
    /// 26 characters.
    pub id: String,
    /// The name after an `@`.
    pub username: String,
    /// Their preferred name.
    pub nickname: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// Words, separated by spaces.
    pub roles: String,
    /// Whether it is a bot account.
    pub is_bot: bool,
    /// When they chose an avatar, in milliseconds; 0 with the default avatar.
    pub last_picture_update: i64,
}

/// A channel.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Channel {
    /// 26 characters.
    pub id: String,
    /// `O` for open, `P` for private.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was archived, in milliseconds; 0 while it is not.
    #[serde(deserialize_with = "lenient")]
    pub delete_at: i64,
    /// The display name.
    pub display_name: String,
    /// The topic, in Markdown, shown next to its name.
    pub header: String,
}

/// The membership of a user in a channel.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Words, separated by spaces.
    pub roles: String,
    /// Whether they are an admin of it.
    pub scheme_admin: bool,
}

/// The settings that the server shows its clients.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `"true"` if integrations may override the username of an author.
    #[serde(rename = "EnablePostUsernameOverride")]
    pub names: String,
}

/// An event of the WebSocket.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Its kind; empty in responses.
    #[serde(rename = "event")]
    pub word: String,
    /// Its contents.
    pub data: Data,
    /// Its recipients.
    pub broadcast: Broadcast,
    /// The number of the event, counted per connection from 0.
    pub seq: Option<u64>,
    /// In responses: the number of the request.
    pub seq_reply: Option<u64>,
}

/// The contents of an event.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Data {
    /// A post as JSON inside JSON.
    #[serde(deserialize_with = "lenient")]
    pub post: String,
    /// A reaction as JSON inside JSON.
    #[serde(deserialize_with = "lenient")]
    pub reaction: String,
    /// The author as the apps show it.
    #[serde(deserialize_with = "lenient")]
    pub sender_name: String,
    /// The user that it is about.
    #[serde(deserialize_with = "lenient")]
    pub user_id: String,
    /// The channel, if the broadcast does not name it.
    #[serde(deserialize_with = "lenient")]
    pub channel_id: String,
}

/// The recipients of an event.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Broadcast {
    /// The channel.
    #[serde(deserialize_with = "lenient")]
    pub channel_id: String,
}

/// Reads a field leniently: an unexpected value must not lose the rest.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

impl Post {
    /// Its id as the id of a message.
    pub fn remote(&self) -> RemoteId {
        RemoteId::from(self.id.as_str())
    }

    /// The first message of its thread.
    pub fn thread(&self) -> Option<RemoteId> {
        (!self.root_id.is_empty()).then(|| RemoteId::from(self.root_id.as_str()))
    }

    /// When it was written.
    pub fn sent_at(&self) -> Millis {
        Millis(self.create_at)
    }

    /// Whether it is a message of a person that still exists.
    pub fn is_said(&self) -> bool {
        !self.is_deleted() && !self.is_old_text() && !self.kind.starts_with("system_")
    }

    /// Whether it has files.
    pub fn has_files(&self) -> bool {
        let listed = self.file_ids.as_ref();
        !self.metadata.files.is_empty() || listed.is_some_and(|files| !files.is_empty())
    }

    /// Whether it was deleted.
    pub fn is_deleted(&self) -> bool {
        self.delete_at != 0
    }

    /// Whether it is the old text of another post.
    pub fn is_old_text(&self) -> bool {
        !self.original_id.is_empty()
    }
}

impl User {
    /// Their display name.
    pub fn name(&self) -> String {
        let whole = format!("{} {}", self.first_name.trim(), self.last_name.trim());
        let names = [self.nickname.trim(), whole.trim(), self.username.trim()];
        let name = names.into_iter().find(|name| !name.is_empty());
        name.unwrap_or_default().to_owned()
    }
}

impl Listing {
    /// The posts in the order of their time, oldest first, and how many could not be read.
    pub fn oldest_first(mut self) -> (Vec<Post>, usize) {
        let (mut posts, mut unreadable) = (Vec::new(), 0);
        for id in self.order.iter().rev() {
            match self.posts.remove(id).map(serde_json::from_value::<Post>) {
                Some(Ok(post)) if !post.id.is_empty() => posts.push(post),
                _ => unreadable += 1,
            }
        }
        // A stable sort: posts of the same millisecond stay in the server's order.
        posts.sort_by_key(|post| post.create_at);
        (posts, unreadable)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_of_an_unexpected_form_does_not_cost_the_post() {
        let post = json!({
            "id": "a", "create_at": 5, "message": "hi", "props": [], "metadata": null,
        });
        let post: Post = serde_json::from_value(post).unwrap();
        assert_eq!((post.id.as_str(), post.message.as_str()), ("a", "hi"));
        let post = json!({"id": "a", "props": {"attachments": "none", "footbridge": "k"}});
        let post: Post = serde_json::from_value(post).unwrap();
        assert_eq!(post.props.mark.as_deref(), Some("k"));
    }

    #[test]
    fn a_listing_is_read_from_its_oldest_end_without_what_hangs_on_it() {
        let listing = json!({
            "order": ["c", "b", "a", "broken"],
            "posts": {
                "a": {"id": "a", "create_at": 1}, "b": {"id": "b", "create_at": 2},
                "c": {"id": "c", "create_at": 2}, "root": {"id": "root"}, "broken": {"create_at": "x"},
            },
        });
        let listing: Listing = serde_json::from_value(listing).unwrap();
        let (posts, unreadable) = listing.oldest_first();
        let ids: Vec<&str> = posts.iter().map(|post| post.id.as_str()).collect();
        assert_eq!((ids, unreadable), (vec!["a", "b", "c"], 1));
    }

    #[test]
    fn people_are_named_as_they_choose() {
        let user = |nickname: &str, first: &str| User {
            nickname: nickname.to_owned(),
            first_name: first.to_owned(),
            username: "ann".to_owned(),
            ..User::default()
        };
        assert_eq!(user(" Annie ", "Ann").name(), "Annie");
        assert_eq!(user("", "Ann").name(), "Ann");
        assert_eq!(user("", "").name(), "ann");
    }
}
