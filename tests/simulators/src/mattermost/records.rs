//! What a server stores, and its JSON: users, teams, channels, posts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// A user or a bot.
#[derive(Clone, Debug)]
pub struct User {
    /// 26 characters.
    pub id: String,
    /// The name after the @ in mentions.
    pub username: String,
    /// The nickname, which clients show if they are set to.
    pub nickname: String,
    /// Whether it is a bot account.
    pub is_bot: bool,
    /// Its token.
    pub token: String,
    /// Its avatar and when it was set, if it was. Milliseconds.
    pub picture: Option<(Vec<u8>, i64)>,
}

/// A team.
#[derive(Clone, Debug)]
pub struct Team {
    /// 26 characters.
    pub id: String,
    /// The name in URLs.
    pub name: String,
}

/// A channel.
#[derive(Clone, Debug)]
pub struct Channel {
    /// 26 characters.
    pub id: String,
    /// The team it belongs to; empty for direct channels.
    pub team_id: String,
    /// The name in URLs.
    pub name: String,
    /// The display name.
    pub display_name: String,
    /// The header, shown next to the name.
    pub header: String,
    /// `O` for open, `P` for private, `D` for direct.
    pub kind: &'static str,
    /// Milliseconds; 0 while it is not archived.
    pub delete_at: i64,
    /// The ids of its members.
    pub members: BTreeSet<String>,
    /// The ids of its admins.
    pub admins: BTreeSet<String>,
}

/// A post. Times are milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Post {
    /// 26 characters.
    pub id: String,
    /// When it was written.
    pub create_at: i64,
    /// When anything about it last changed.
    pub update_at: i64,
    /// When its text last changed; 0 if never.
    pub edit_at: i64,
    /// When it was deleted; 0 if not.
    pub delete_at: i64,
    /// The id of its author.
    pub user_id: String,
    /// The id of its channel.
    pub channel_id: String,
    /// The root of its thread; empty if it is in none.
    pub root_id: String,
    /// If this is an old version: the id of the post.
    pub original_id: String,
    /// The text.
    pub message: String,
    /// Empty, `me` or `system_…`.
    pub kind: String,
    /// Free properties.
    pub props: Map<String, Value>,
    /// The ids of its files.
    pub file_ids: Vec<String>,
    /// The id that its author gave it before the server did.
    pub pending_post_id: String,
    /// Who reacted and when, by emoji name.
    pub reactions: BTreeMap<String, BTreeMap<String, i64>>,
}

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    /// 26 characters.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its type.
    pub mime_type: String,
    /// Its content.
    pub content: Vec<u8>,
    /// The id of the user who uploaded it.
    pub owner: String,
    /// The channel that it was uploaded to.
    pub channel_id: String,
}

impl User {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "create_at": 1, "update_at": 1, "delete_at": 0, "username": self.username,
            "auth_service": "", "email": "", "nickname": self.nickname, "first_name": "", "last_name": "",
            "position": "", "roles": "system_user", "locale": "en", "is_bot": self.is_bot,
            "last_picture_update": self.picture.as_ref().map_or(0, |(_, at)| *at),
        })
    }
}

impl Team {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "create_at": 1, "update_at": 1, "delete_at": 0, "display_name": self.name,
            "name": self.name, "type": "O", "allow_open_invite": false,
        })
    }
}

impl Channel {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "create_at": 1, "update_at": 1, "delete_at": self.delete_at, "team_id": self.team_id,
            "type": self.kind, "display_name": self.display_name, "name": self.name, "header": self.header, "purpose": "",
            "last_post_at": 1, "total_msg_count": 0, "creator_id": "",
        })
    }

    pub(super) fn member(&self, user: &str) -> Value {
        let is_admin = self.admins.contains(user);
        let roles = if is_admin {
            "channel_user channel_admin"
        } else {
            "channel_user"
        };
        json!({
            "channel_id": self.id, "user_id": user, "roles": roles, "last_viewed_at": 0, "msg_count": 0,
            "mention_count": 0, "notify_props": {}, "last_update_at": 1, "scheme_user": true,
            "scheme_admin": is_admin,
        })
    }
}

impl File {
    /// The simulator does not parse files; it treats every PNG as an image of this size.
    pub(super) fn is_picture(&self) -> bool {
        self.mime_type == "image/png"
    }

    pub(super) fn json(&self, post: &Post) -> Value {
        let extension = self.name.rsplit_once('.').map_or("", |(_, end)| end);
        json!({
            "id": self.id, "user_id": self.owner, "post_id": post.id, "channel_id": self.channel_id, "create_at": post.create_at,
            "update_at": post.create_at, "delete_at": 0, "name": self.name, "extension": extension,
            "size": self.content.len(), "mime_type": self.mime_type, "has_preview_image": self.is_picture(),
            "width": if self.is_picture() { 3_840 } else { 0 }, "height": if self.is_picture() { 2_160 } else { 0 },
        })
    }
}

impl Post {
    /// The JSON of the API; reactions and files come from the world.
    pub(super) fn json(&self, hanging: &PostExtras) -> Value {
        let deleted = self.delete_at != 0 && self.original_id.is_empty();
        let reactions: Vec<Value> = self
            .reactions
            .iter()
            .flat_map(|(emoji, users)| users.iter().map(move |(user, at)| (emoji, user, at)))
            .map(|(emoji, user, at)| {
                json!({"user_id": user, "post_id": self.id, "emoji_name": emoji, "create_at": at})
            })
            .collect();
        let mut metadata = json!({});
        if !hanging.files.is_empty() {
            metadata["files"] = json!(hanging.files);
        }
        if !reactions.is_empty() {
            metadata["reactions"] = json!(reactions);
        }
        let mut post = json!({
            "id": self.id, "create_at": self.create_at, "update_at": self.update_at, "edit_at": self.edit_at,
            "delete_at": self.delete_at, "is_pinned": false, "user_id": self.user_id,
            "channel_id": self.channel_id, "root_id": self.root_id, "parent_id": self.root_id,
            "original_id": self.original_id, "message": if deleted { "" } else { &self.message },
            "type": self.kind, "props": self.props, "hashtags": "", "pending_post_id": self.pending_post_id,
            "reply_count": hanging.replies, "last_reply_at": hanging.last_reply_at, "participants": null,
            "metadata": metadata,
        });
        if !self.file_ids.is_empty() && !deleted {
            post["file_ids"] = json!(self.file_ids);
        }
        post
    }
}

/// The reactions and files of a post.
#[derive(Default)]
pub(super) struct PostExtras {
    pub replies: usize,
    pub last_reply_at: i64,
    pub files: Vec<Value>,
}
