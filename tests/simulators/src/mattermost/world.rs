//! The state of the server, the operations on it, and who gets their events.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rand::Rng as _;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{
    Faults, Options,
    faults::EventFault,
    records::{Channel, File, Post, PostExtras, Team, User},
};

/// The number of events that wait for a client that does not read; more are skipped, with their numbers.
const QUEUE: usize = 256;

/// An error of the server: the status, the id and the message.
#[derive(Clone, Debug)]
pub struct ApiError(pub u16, pub &'static str, pub &'static str);

impl ApiError {
    pub(super) const PERMISSIONS: Self = Self(
        403,
        "api.context.permissions.app_error",
        "You do not have the appropriate permissions.",
    );
    pub(super) const NO_POST: Self = Self(404, "app.post.get.app_error", "Unable to get the post.");
    pub(super) const NO_CHANNEL: Self = Self(
        404,
        "app.channel.get.existing.app_error",
        "Unable to find the existing channel.",
    );
    pub(super) const NO_USER: Self = Self(
        404,
        "app.user.missing_account.const",
        "Unable to find the user.",
    );
    pub(super) const TOO_LONG: Self = Self(
        400,
        "model.post.is_valid.msg.app_error",
        "Post Message property is longer than the maximum permitted length.",
    );
    pub(super) const PENDING: Self = Self(
        400,
        "api.post.deduplicate_create_post.pending",
        "Unable to dedupe create post: another request is already in progress.",
    );
}

/// Whether this is the name of a Mattermost emoji, which may have a skin tone.
fn is_emoji(name: &str) -> bool {
    const NAMES: &str = include_str!("../../../../src/silo/mattermost/emoji.txt");
    let mut plain = name;
    while let Some(rest) = plain.strip_suffix("_skin_tone") {
        let tones = [
            "_medium_light",
            "_medium_dark",
            "_light",
            "_medium",
            "_dark",
        ];
        let Some(bare) = tones.iter().find_map(|tone| rest.strip_suffix(tone)) else {
            return false;
        };
        plain = bare;
    }
    let lines = NAMES.lines().filter(|line| !line.starts_with("# "));
    lines
        .flat_map(|line| line.split(' ').skip(1))
        .any(|known| known == plain)
}

/// A WebSocket connection.
struct Subscriber {
    number: u64,
    user: String,
    seq: u64,
    sender: mpsc::Sender<String>,
    held: Option<(u64, Value)>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub users: Vec<User>,
    /// The user of each token.
    pub tokens: HashMap<String, String>,
    pub teams: Vec<Team>,
    pub channels: Vec<Channel>,
    /// In the order in which they were created.
    pub posts: Vec<Post>,
    pub files: HashMap<String, File>,
    pending: HashMap<(String, String), (Instant, String)>,
    listeners: Vec<Subscriber>,
    next_listener: u64,
    /// Whether apps show the names that integrations choose.
    pub overrides: bool,
    /// Whether a post keeps its files whatever an edit says of them.
    pub keeps_files: bool,
    /// Whether posts list only the ids of their files.
    pub is_terse: bool,
}

/// The state behind the API.
pub(super) struct World {
    knows_emoji: bool,
    hardened: bool,
    edit_limit: Option<Duration>,
    remembered: Duration,
    inner: Mutex<Inner>,
}

/// A new id: 26 characters of Mattermost's alphabet.
pub(super) fn new_id() -> String {
    const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
    let mut rng = rand::rng();
    let letters = (0..26).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())]);
    letters.map(char::from).collect()
}

pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl World {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            knows_emoji: options.knows_emoji,
            hardened: options.hardened,
            edit_limit: options.edit_limit,
            remembered: options.remembered,
            inner: Mutex::new(Inner {
                overrides: options.overrides,
                ..Inner::default()
            }),
        }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn who(&self, token: &str) -> Option<String> {
        self.inner().tokens.get(token).cloned()
    }

    pub(super) fn forget_pending(&self) {
        self.inner().pending.clear();
    }

    /// Stores a post. `pending_post_id` is an idempotency key for a while.
    pub(super) fn write(&self, mut post: Post, faults: &Faults) -> Result<Value, ApiError> {
        let mut inner = self.inner();
        let author = inner.user(&post.user_id).ok_or(ApiError::NO_USER)?.clone();
        let channel = inner
            .channel(&post.channel_id)
            .ok_or(ApiError::PERMISSIONS)?;
        if !channel.members.contains(&post.user_id) {
            return Err(ApiError::PERMISSIONS);
        }
        if channel.delete_at != 0 {
            return Err(ApiError(
                400,
                "api.post.create_post.can_not_post_to_deleted.error",
                "Can not post to deleted channel.",
            ));
        }
        let key = (post.user_id.clone(), post.pending_post_id.clone());
        if !key.1.is_empty()
            && let Some((when, id)) = inner.pending.get(&key)
            && when.elapsed() < self.remembered
        {
            let first = inner.post(id).ok_or(ApiError::PENDING)?.clone();
            return Ok(inner.json(&first));
        }
        if post.message.chars().count() > super::LONGEST {
            return Err(ApiError::TOO_LONG);
        }
        let in_thread = inner.post(&post.root_id).is_some_and(|root| {
            root.root_id.is_empty() && root.channel_id == post.channel_id && root.delete_at == 0
        });
        if !post.root_id.is_empty() && !in_thread {
            return Err(ApiError(
                400,
                "api.post.create_post.root_id.app_error",
                "Invalid RootId parameter.",
            ));
        }
        let now = now_ms();
        (post.id, post.create_at, post.update_at) = (new_id(), now, now);
        // The server stores these fields, whoever wrote them; it refuses them in hardened mode only.
        let reserved = ["override_username", "override_icon_url", "from_webhook"];
        if self.hardened
            && !author.is_bot
            && reserved.iter().any(|key| post.props.contains_key(*key))
        {
            return Err(ApiError(
                400,
                "api.context.invalid_body_param.app_error",
                "Invalid or missing props in request body.",
            ));
        }
        if author.is_bot {
            post.props.insert("from_bot".to_owned(), json!("true"));
        }
        if !key.1.is_empty() {
            inner.pending.insert(key, (Instant::now(), post.id.clone()));
        }
        inner.posts.push(post.clone());
        if let Some(root) = inner.post_mut(&post.root_id.clone()) {
            root.update_at = now;
        }
        inner.tell("posted", &post, &author, faults);
        Ok(inner.json(&post))
    }

    /// Changes the text of a post, and stores the old version as a row of its own.
    pub(super) fn edit(
        &self,
        user: &str,
        id: &str,
        (message, files): (Option<String>, Option<Vec<String>>),
        faults: &Faults,
    ) -> Result<Value, ApiError> {
        let mut inner = self.inner();
        // The server does not distinguish a deleted post from one that is not the caller's.
        let post = inner.post(id).filter(|post| post.delete_at == 0);
        let post = post.ok_or(ApiError::PERMISSIONS)?.clone();
        let author = inner.user(&post.user_id).ok_or(ApiError::NO_USER)?.clone();
        let is_member = inner
            .channel(&post.channel_id)
            .is_some_and(|channel| channel.members.contains(user));
        if post.user_id != user || !is_member {
            return Err(ApiError::PERMISSIONS);
        }
        if inner.is_archived(&post.channel_id) {
            return Err(ApiError(
                400,
                "api.post.patch_post.can_not_update_post_in_deleted.error",
                "Can not update a post in a deleted channel.",
            ));
        }
        let now = now_ms();
        let limit = self.edit_limit.map_or(i64::MAX, |limit| {
            i64::try_from(limit.as_millis()).unwrap_or(i64::MAX)
        });
        if now - post.create_at > limit {
            return Err(ApiError(
                400,
                "api.post.update_post.permissions_time_limit.app_error",
                "Post edit is only allowed for a limited time. Please ask your System Administrator for details.",
            ));
        }
        let Some(message) = message else {
            return Ok(inner.json(&post));
        };
        if message.chars().count() > super::LONGEST {
            return Err(ApiError::TOO_LONG);
        }
        let mut old = post.clone();
        (old.id, old.original_id, old.delete_at, old.update_at) =
            (new_id(), post.id.clone(), now, now);
        inner.posts.push(old);
        let keeps_files = inner.keeps_files;
        let Some(changed) = inner.post_mut(id) else {
            return Err(ApiError::NO_POST);
        };
        if let Some(files) = files.filter(|_| !keeps_files) {
            // Only files that the post has already: it accepts no others.
            changed.file_ids.retain(|file| files.contains(file));
        }
        (changed.message, changed.edit_at, changed.update_at) = (message, now, now);
        let changed = changed.clone();
        inner.tell("post_edited", &changed, &author, faults);
        Ok(inner.json(&changed))
    }

    /// Deletes a post and the replies in its thread. Only the deletion of the post itself is sent as an event.
    pub(super) fn delete(&self, user: &str, id: &str, faults: &Faults) -> Result<(), ApiError> {
        let mut inner = self.inner();
        let post = inner.post(id).filter(|post| post.delete_at == 0);
        let post = post.ok_or(ApiError::PERMISSIONS)?.clone();
        let channel = inner
            .channel(&post.channel_id)
            .ok_or(ApiError::NO_CHANNEL)?;
        let may = post.user_id == user || channel.admins.contains(user);
        if !may || !channel.members.contains(user) {
            return Err(ApiError::PERMISSIONS);
        }
        if inner.is_archived(&post.channel_id) {
            return Err(ApiError(
                400,
                "api.post.delete_post.can_not_delete_post_in_deleted.error",
                "Can not delete a post in a deleted channel.",
            ));
        }
        let author = inner.user(&post.user_id).ok_or(ApiError::NO_USER)?.clone();
        let now = now_ms();
        for other in &mut inner.posts {
            let falls = other.id == id || (other.root_id == id && !id.is_empty());
            // Also replies that were deleted before: the server selects by the thread alone.
            if falls {
                (other.delete_at, other.update_at) = (now, now);
            }
        }
        let gone = inner.post(id).cloned().unwrap_or_default();
        inner.tell("post_deleted", &gone, &author, faults);
        Ok(())
    }

    pub(super) fn react(
        &self,
        user: &str,
        id: &str,
        emoji: &str,
        added: bool,
        faults: &Faults,
    ) -> Result<Value, ApiError> {
        let mut inner = self.inner();
        let channel = inner.post(id).map(|post| post.channel_id.clone());
        if channel.is_some_and(|channel| inner.is_archived(&channel)) {
            return Err(if added {
                ApiError(
                    403,
                    "api.reaction.save.archived_channel.app_error",
                    "You can not react in an archived channel.",
                )
            } else {
                ApiError(
                    403,
                    "api.reaction.delete.archived_channel.app_error",
                    "You can not remove a reaction in an archived channel.",
                )
            });
        }
        let post = inner.post_mut(id).filter(|post| post.delete_at == 0);
        let post = post.ok_or(ApiError::NO_POST)?;
        if added && self.knows_emoji && !is_emoji(emoji) {
            return Err(ApiError(
                404,
                "app.emoji.get_by_name.no_result",
                "We couldn't find the emoji.",
            ));
        }
        let now = now_ms();
        let users = post.reactions.entry(emoji.to_owned()).or_default();
        // The first time is kept; the event of a removal has no time.
        let at = if added {
            *users.entry(user.to_owned()).or_insert(now)
        } else {
            users.remove(user);
            0
        };
        post.reactions.retain(|_, users| !users.is_empty());
        post.update_at = now;
        let reaction =
            json!({"user_id": user, "post_id": id, "emoji_name": emoji, "create_at": at});
        let place = post.channel_id.clone();
        let event = if added {
            "reaction_added"
        } else {
            "reaction_removed"
        };
        inner.broadcast(
            event,
            &json!({"reaction": reaction.to_string()}),
            &place,
            faults,
        );
        Ok(reaction)
    }

    /// Archives or unarchives a channel; its members get an event.
    pub(super) fn archive(&self, channel: &str, is_archived: bool, faults: &Faults) {
        let mut inner = self.inner();
        let Some(place) = inner.channels.iter_mut().find(|place| place.id == channel) else {
            return;
        };
        place.delete_at = if is_archived { now_ms() } else { 0 };
        let data = json!({"channel_id": channel, "delete_at": place.delete_at});
        let event = if is_archived {
            "channel_deleted"
        } else {
            "channel_restored"
        };
        inner.broadcast(event, &data, channel, faults);
    }

    /// Sets whether apps show the names that integrations choose; everybody gets an event.
    pub(super) fn allow_overrides(&self, allowed: bool, faults: &Faults) {
        let mut inner = self.inner();
        inner.overrides = allowed;
        let config = json!({"EnablePostUsernameOverride": allowed.to_string()});
        let data = json!({ "config": config });
        inner.broadcast_to("config_changed", &data, "", |_| true, faults);
    }

    /// Adds a user to a channel or removes them; the channel's members get an event.
    pub(super) fn set_member(&self, channel: &str, user: &str, sits: bool, faults: &Faults) {
        let mut inner = self.inner();
        let Some(place) = inner.channels.iter_mut().find(|place| place.id == channel) else {
            return;
        };
        let event = if sits {
            place.members.insert(user.to_owned());
            "user_added"
        } else {
            place.members.remove(user);
            "user_removed"
        };
        let data = json!({"user_id": user, "team_id": place.team_id, "channel_id": channel});
        inner.broadcast(event, &data, channel, faults);
        if !sits {
            // The removed user gets the event separately.
            inner.broadcast_to(event, &data, "", |listener| listener.user == user, faults);
        }
    }

    /// Adds a connection of a user: its number, and the receiver of its events.
    pub(super) fn listen(&self, user: &str) -> (u64, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut inner = self.inner();
        inner.next_listener += 1;
        let number = inner.next_listener;
        inner.listeners.push(Subscriber {
            number,
            user: user.to_owned(),
            // Number 0 is the greeting.
            seq: 1,
            sender,
            held: None,
        });
        (number, receiver)
    }

    pub(super) fn leave(&self, number: u64) {
        self.inner()
            .listeners
            .retain(|other| other.number != number);
    }

    pub(super) fn open_sockets(&self) -> usize {
        let mut inner = self.inner();
        inner.listeners.retain(|other| !other.sender.is_closed());
        inner.listeners.len()
    }

    /// Sends a short-lived event: who types, who is online.
    pub(super) fn broadcast_ephemeral(
        &self,
        event: &str,
        user: &str,
        channel: &str,
        faults: &Faults,
    ) {
        let data = json!({"parent_id": "", "user_id": user});
        self.inner().broadcast(event, &data, channel, faults);
    }
}

impl Inner {
    pub(super) fn user(&self, id: &str) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    pub(super) fn channel(&self, id: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.id == id)
    }

    fn is_archived(&self, channel: &str) -> bool {
        let channel = self.channel(channel);
        channel.is_some_and(|channel| channel.delete_at != 0)
    }

    pub(super) fn post(&self, id: &str) -> Option<&Post> {
        self.posts.iter().rev().find(|post| post.id == id)
    }

    pub(super) fn post_mut(&mut self, id: &str) -> Option<&mut Post> {
        self.posts.iter_mut().rev().find(|post| post.id == id)
    }

    /// The JSON of the API.
    pub(super) fn json(&self, post: &Post) -> Value {
        let replies = self.posts.iter().filter(|other| {
            !other.root_id.is_empty() && other.root_id == post.id && other.delete_at == 0
        });
        let replies: Vec<&Post> = replies.collect();
        let described = post.file_ids.iter().filter(|_| !self.is_terse);
        let files = described.filter_map(|id| self.files.get(id));
        post.json(&PostExtras {
            replies: replies.len(),
            last_reply_at: replies
                .iter()
                .map(|reply| reply.create_at)
                .max()
                .unwrap_or(0),
            files: files.map(|file| file.json(post)).collect(),
        })
    }

    fn tell(&mut self, event: &str, post: &Post, author: &User, faults: &Faults) {
        let text = |key: &str| {
            post.props
                .get(key)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let mut data = Map::new();
        data.insert("post".to_owned(), json!(self.json(post).to_string()));
        if event == "posted"
            && let Some(channel) = self.channel(&post.channel_id)
        {
            let is_hook = text("from_webhook").as_deref() == Some("true");
            let shown = text("override_username").filter(|_| is_hook && self.overrides);
            let name = shown.unwrap_or_else(|| format!("@{}", author.username));
            data.insert(
                "channel_display_name".to_owned(),
                json!(channel.display_name),
            );
            data.insert("channel_name".to_owned(), json!(channel.name));
            data.insert("channel_type".to_owned(), json!(channel.kind));
            data.insert("sender_name".to_owned(), json!(name));
            data.insert("set_online".to_owned(), json!(true));
            data.insert("team_id".to_owned(), json!(channel.team_id));
        }
        self.broadcast(event, &Value::Object(data), &post.channel_id, faults);
    }

    fn broadcast(&mut self, event: &str, data: &Value, channel: &str, faults: &Faults) {
        let Some(place) = self.channel(channel) else {
            return;
        };
        let members = place.members.clone();
        self.broadcast_to(
            event,
            data,
            channel,
            |listener| members.contains(&listener.user),
            faults,
        );
    }

    fn broadcast_to(
        &mut self,
        event: &str,
        data: &Value,
        channel: &str,
        hears: impl Fn(&Subscriber) -> bool,
        faults: &Faults,
    ) {
        let mut listeners: Vec<&mut Subscriber> = self
            .listeners
            .iter_mut()
            .filter(|listener| !listener.sender.is_closed() && hears(listener))
            .collect();
        if listeners.is_empty() {
            return;
        }
        // All connections get the same fault of an event, so that a test can count on it.
        let (fate, swaps) = (faults.fate(), faults.swaps());
        for listener in &mut listeners {
            listener.hear(event, data, channel, fate, swaps);
        }
    }
}

impl Subscriber {
    fn hear(&mut self, event: &str, data: &Value, channel: &str, fate: EventFault, swaps: bool) {
        if fate == EventFault::Lost {
            return;
        }
        let seq = self.seq;
        self.seq += 1;
        if fate == EventFault::Skipped {
            return;
        }
        let broadcast =
            json!({"omit_users": null, "user_id": "", "channel_id": channel, "team_id": ""});
        let frame = json!({"event": event, "data": data, "broadcast": broadcast, "seq": seq});
        if fate == EventFault::Garbled {
            self.say("{\"event\": \"posted\", \"data\": {\"post\"".to_owned());
        }
        if fate == EventFault::Twice {
            self.say(frame.to_string());
        }
        match self.held.take() {
            None if swaps => self.held = Some((seq, frame)),
            held => {
                // The numbers stay in order; the events are swapped.
                let mut both = vec![frame];
                if let Some((earlier, mut first)) = held {
                    first["seq"] = json!(seq);
                    both[0]["seq"] = json!(earlier);
                    both.push(first);
                }
                for one in both {
                    self.say(one.to_string());
                }
            }
        }
    }

    fn say(&self, text: String) {
        // A full queue drops it, and its number is missing, as on the real server.
        drop(self.sender.try_send(text));
    }
}

/// The posts that match, newest first.
pub(super) fn newest_first(posts: &[Post], is_meant: impl Fn(&Post) -> bool) -> Vec<&Post> {
    let mut found: Vec<&Post> = posts.iter().rev().filter(|post| is_meant(post)).collect();
    found.sort_by_key(|post| std::cmp::Reverse(post.create_at));
    found
}

/// The JSON of a list of posts.
pub(super) fn list(inner: &Inner, order: &[&Post], (newer, older): (&str, &str)) -> Value {
    let mut posts = BTreeMap::new();
    for post in order {
        posts.insert(post.id.clone(), inner.json(post));
        if let Some(root) = inner.post(&post.root_id) {
            posts.insert(root.id.clone(), inner.json(root));
        }
    }
    let ids: Vec<&str> = order.iter().map(|post| post.id.as_str()).collect();
    json!({"order": ids, "posts": posts, "next_post_id": newer, "prev_post_id": older})
}
