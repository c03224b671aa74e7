//! Messages: the rules for creating, editing, deleting and listing them. `sent` is taken before the id is made; lists
//! filter by id and sort by `sent`.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{
    api_error::ApiError,
    ids::well_formed,
    markdown::{self, Issue},
    world::{Event, Unread, World},
};

/// Longest text, in UTF-16 code units.
const MAX_UTF16: usize = 4096;
/// The automatic spam ban looks back this far, at accounts younger than `YOUNG_MS`.
const SPAM_MEMORY_MS: i64 = 12 * 3_600_000;
const YOUNG_MS: i64 = 14 * 86_400_000;

/// A message as the service stores it.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// 24 hexadecimal digits.
    pub id: String,
    /// The id of its room.
    pub room_id: String,
    /// The user id of its author.
    pub from_user_id: String,
    /// The author's user name when it was sent.
    pub from_username: String,
    /// Markdown, as sent.
    pub text: String,
    /// The HTML that the service rendered.
    pub html: String,
    /// Whether it is a `/me` message.
    pub status: bool,
    /// Milliseconds since the epoch.
    pub sent_ms: i64,
    /// Milliseconds since the epoch of the last edit.
    pub edited_ms: Option<i64>,
    /// The message it is a thread reply to.
    pub parent_id: Option<String>,
    /// The number of replies, once there has been one.
    pub thread_message_count: Option<u64>,
    /// Increased on every save; 0 means it was never saved.
    pub version: u64,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("room_id", &self.room_id)
            .finish_non_exhaustive()
    }
}

/// The person for whom an approved bridge posts.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VirtualUser {
    pub(super) r#type: String,
    pub(super) external_id: String,
    pub(super) display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) avatar_url: Option<String>,
}

/// A mention, resolved when the message was saved.
#[derive(Clone)]
pub(super) struct Mention {
    pub(super) screen_name: String,
    pub(super) user_id: Option<String>,
    pub(super) group: bool,
    pub(super) announcement: bool,
    pub(super) user_ids: Vec<String>,
}

/// A message with the data that only some of its views show.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) message: Message,
    pub(super) virtual_user: Option<VirtualUser>,
    pub(super) mentions: Vec<Mention>,
    pub(super) urls: Vec<String>,
    pub(super) issues: Vec<Issue>,
    pub(super) read_by: BTreeSet<String>,
}

/// A message to create.
#[derive(Clone, Default)]
pub(super) struct Draft {
    pub(super) text: String,
    pub(super) status: bool,
    pub(super) parent_id: Option<String>,
    pub(super) virtual_user: Option<VirtualUser>,
}

impl World {
    /// The index of a message in its room; 404 if it is not in this room.
    fn index(&self, room: &str, message: &str) -> Result<usize, ApiError> {
        self.channel(room)?
            .posts
            .iter()
            .rposition(|post| post.message.id == message)
            .ok_or(ApiError::NOT_FOUND)
    }

    pub(super) fn post(&self, room: &str, message: &str) -> Result<&Post, ApiError> {
        let index = self.index(room, message)?;
        self.channel(room)?
            .posts
            .get(index)
            .ok_or(ApiError::NOT_FOUND)
    }

    fn save(
        &mut self,
        room: &str,
        message: &str,
        change: impl FnOnce(&mut Post),
    ) -> Result<Post, ApiError> {
        let index = self.index(room, message)?;
        let post = self
            .channel_mut(room)?
            .posts
            .get_mut(index)
            .ok_or(ApiError::NOT_FOUND)?;
        change(post);
        post.message.version += 1;
        let post = post.clone();
        self.events.push(Event::Updated {
            room: room.to_owned(),
            post: post.clone(),
        });
        Ok(post)
    }

    /// Stores a message whose author may write in the room; the caller checks the author.
    pub(super) fn create(
        &mut self,
        room: &str,
        user: &str,
        draft: Draft,
        sent_ms: i64,
    ) -> Result<Post, ApiError> {
        if draft.text.is_empty() || draft.text.encode_utf16().count() > MAX_UTF16 {
            return Err(ApiError::BAD_REQUEST);
        }
        if let Some(parent) = &draft.parent_id
            && (!well_formed(parent) || self.homes.get(parent).map(String::as_str) != Some(room))
        {
            return Err(ApiError::BAD_REQUEST);
        }
        let mut post = self.compose(room, user, draft, sent_ms)?;
        if self.drops(user, &post.message.text, sent_ms) {
            return Ok(post);
        }
        if let Some(parent) = post.message.parent_id.clone() {
            self.save(room, &parent, |root| {
                let count = &mut root.message.thread_message_count;
                *count = Some(count.unwrap_or(0) + 1);
            })?;
        }
        post.message.version = 1;
        self.homes.insert(post.message.id.clone(), room.to_owned());
        self.channel_mut(room)?.posts.push(post.clone());
        self.events.push(Event::Created {
            room: room.to_owned(),
            post: post.clone(),
        });
        self.note_unread(&post);
        Ok(post)
    }

    fn compose(
        &mut self,
        room: &str,
        user: &str,
        draft: Draft,
        sent_ms: i64,
    ) -> Result<Post, ApiError> {
        let from_username = self.person(user)?.username.clone();
        let rendered = markdown::render(&draft.text);
        let mentions = self.resolve(room, user, &rendered);
        Ok(Post {
            message: Message {
                id: self.next_id(sent_ms),
                room_id: room.to_owned(),
                from_user_id: user.to_owned(),
                from_username,
                text: draft.text,
                html: rendered.html,
                status: draft.status,
                sent_ms,
                edited_ms: None,
                parent_id: draft.parent_id,
                thread_message_count: None,
                version: 0,
            },
            virtual_user: draft.virtual_user,
            mentions,
            urls: rendered.urls,
            issues: rendered.issues,
            read_by: BTreeSet::new(),
        })
    }

    fn resolve(&self, room: &str, user: &str, rendered: &markdown::Rendered) -> Vec<Mention> {
        rendered
            .mentions
            .iter()
            .map(|mention| {
                let announcement = mention.group && self.is_admin(room, user);
                let user_ids = if announcement {
                    self.channel(room)
                        .map(|room| room.members.clone())
                        .unwrap_or_default()
                } else {
                    Vec::new()
                };
                Mention {
                    screen_name: mention.screen_name.clone(),
                    user_id: self
                        .person_named(&mention.screen_name)
                        .filter(|_| !mention.group)
                        .map(|person| person.id.clone()),
                    group: mention.group,
                    announcement,
                    user_ids,
                }
            })
            .collect()
    }

    /// Whether the service accepts this message and shows it to nobody. May ban the sender permanently.
    fn drops(&mut self, user: &str, text: &str, now_ms: i64) -> bool {
        let Some(person) = self.people.get_mut(user) else {
            return false;
        };
        if person.hellbanned {
            return true;
        }
        if now_ms - person.created_ms >= YOUNG_MS {
            return false;
        }
        let allowed = match text.encode_utf16().count() {
            0..10 => 100,
            10..20 => 20,
            _ => 10,
        };
        let times = person.sent_texts.entry(text.to_owned()).or_default();
        times.retain(|sent| now_ms - sent < SPAM_MEMORY_MS);
        times.push_back(now_ms);
        person.hellbanned = times.len() > allowed;
        person.hellbanned
    }

    fn note_unread(&mut self, post: &Post) {
        let room = post.message.room_id.clone();
        let Some(channel) = self.channels.get(&room) else {
            return;
        };
        let readers: Vec<String> = channel
            .members
            .iter()
            .filter(|member| **member != post.message.from_user_id)
            .cloned()
            .collect();
        for user in readers {
            let mentioned = post.mentions.iter().any(|mention| {
                mention.user_id.as_ref() == Some(&user) || mention.user_ids.contains(&user)
            });
            let unread: &mut Unread = self.unread.entry((user.clone(), room.clone())).or_default();
            unread.chat.insert(post.message.id.clone());
            if mentioned {
                unread.mention.insert(post.message.id.clone());
            }
        }
    }

    /// Edits the user's own message, within the edit window.
    pub(super) fn edit(
        &mut self,
        room: &str,
        user: &str,
        message: &str,
        text: &str,
        now_ms: i64,
    ) -> Result<Post, ApiError> {
        let post = self.post(room, message)?;
        if post.message.from_user_id != user {
            return Err(ApiError::FORBIDDEN);
        }
        if now_ms - post.message.sent_ms > self.edit_window_ms
            || text.encode_utf16().count() > MAX_UTF16
        {
            return Err(ApiError::BAD_REQUEST);
        }
        let rendered = markdown::render(text);
        let mentions = self.resolve(room, user, &rendered);
        self.save(room, message, |post| {
            text.clone_into(&mut post.message.text);
            post.message.html = rendered.html;
            post.message.edited_ms = Some(now_ms);
            post.mentions = mentions;
            post.urls = rendered.urls;
            post.issues = rendered.issues;
        })
    }

    /// Deletes the user's own message, or any message as an admin of the room. A thread root with replies is emptied
    /// instead.
    pub(super) fn delete(&mut self, room: &str, user: &str, message: &str) -> Result<(), ApiError> {
        let post = self.post(room, message)?.clone();
        if post.message.from_user_id != user && !self.is_admin(room, user) {
            return Err(ApiError::FORBIDDEN);
        }
        if post.message.thread_message_count.unwrap_or(0) > 0 {
            self.save(room, message, |post| {
                post.message.text.clear();
                post.message.html.clear();
                post.mentions.clear();
                post.urls.clear();
                post.issues.clear();
            })?;
            return Ok(());
        }
        self.channel_mut(room)?
            .posts
            .retain(|post| post.message.id != message);
        self.homes.remove(message);
        for unread in self.unread.values_mut() {
            unread.chat.remove(message);
            unread.mention.remove(message);
        }
        if let Some(parent) = &post.message.parent_id
            && self.index(room, parent).is_ok()
        {
            self.save(room, parent, |root| {
                let count = &mut root.message.thread_message_count;
                *count = Some(count.unwrap_or(0).saturating_sub(1));
            })?;
        }
        self.events.push(Event::Removed {
            room: room.to_owned(),
            post,
        });
        Ok(())
    }
}
