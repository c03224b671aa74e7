//! What tests in this process can make users of the simulated service do. Each action runs the code that serves the
//! same action over HTTP.

use std::time::Duration;

use rand::Rng;
use tokio::sync::broadcast;

use super::{
    GitterSim,
    api_error::ApiError,
    ids::hex,
    options::{Room, RoomOptions, User},
    posts::{Draft, Message},
    shared::Change,
    world::{AccessToken, World},
};

/// The default age of accounts: old enough that the automatic spam ban ignores them.
pub(super) const DEFAULT_ACCOUNT_AGE: Duration = Duration::from_hours(365 * 24);

impl GitterSim {
    pub(super) fn change<T>(&self, act: impl FnOnce(&mut World, i64) -> T) -> T {
        let now_ms = self.0.shared.clock.now_ms();
        self.0.shared.with_world(|world| act(world, now_ms))
    }

    /// Adds a user with an account that is a year old, and a personal token.
    pub fn add_user(&self, username: &str, display_name: &str) -> User {
        self.add_user_aged(username, display_name, DEFAULT_ACCOUNT_AGE)
    }

    /// Adds a user whose account is this old: below 14 days the service checks it for repeated texts.
    pub fn add_user_aged(&self, username: &str, display_name: &str, age: Duration) -> User {
        let age = i64::try_from(age.as_millis()).unwrap_or(0);
        let id =
            self.change(|world, now_ms| world.add_person(username, display_name, now_ms - age));
        User {
            token: self.add_token(&id, "personal", false),
            id,
            username: username.to_owned(),
            display_name: display_name.to_owned(),
        }
    }

    /// Sets the URL of a user's avatar.
    pub fn set_avatar(&self, user_id: &str, url: &str) {
        self.change(|world, _| {
            if let Some(person) = world.people.get_mut(user_id) {
                person.avatar_url = Some(url.to_owned());
            }
        });
    }

    /// Sets a room's topic and its group's avatar.
    pub fn head(&self, room_id: &str, topic: &str, picture: Option<&str>) {
        self.change(|world, _| {
            if let Ok(room) = world.channel_mut(room_id) {
                topic.clone_into(&mut room.topic);
                room.picture = picture.map(str::to_owned);
            }
        });
    }

    /// A room's topic.
    #[must_use]
    pub fn topic(&self, room_id: &str) -> Option<String> {
        self.change(|world, _| Some(world.channel(room_id).ok()?.topic.clone()))
    }

    /// Makes a user an admin of a room.
    pub fn make_admin(&self, room_id: &str, user_id: &str) {
        self.change(|world, _| {
            if let Ok(room) = world.channel_mut(room_id) {
                room.admins.insert(user_id.to_owned());
            }
        });
    }

    fn grant(&self, prefix: &str, grant: AccessToken) -> String {
        self.change(|world, _| {
            let digits: [u8; 20] = world.rng.random();
            let digits = hex(&digits);
            let token = format!("{prefix}{digits}");
            world.tokens.insert(token.clone(), grant);
            token
        })
    }

    /// Adds another token for a user, from an OAuth client of this name; an approved client may use `virtualUser`.
    pub fn add_token(&self, user_id: &str, client: &str, approved: bool) -> String {
        let grant = AccessToken {
            user: Some(user_id.to_owned()),
            client: client.to_owned(),
            approved,
        };
        self.grant("", grant)
    }

    /// Adds a token that can read public rooms and do nothing else.
    pub fn add_anonymous_token(&self) -> String {
        let grant = AccessToken {
            user: None,
            client: "web".to_owned(),
            approved: false,
        };
        self.grant("$", grant)
    }

    /// Revokes a token at once.
    pub fn revoke_token(&self, token: &str) {
        self.change(|world, _| world.tokens.remove(token));
    }

    /// Restores a user's revoked token.
    pub fn accept_token(&self, user: &User) {
        let grant = AccessToken {
            user: Some(user.id.clone()),
            client: "personal".to_owned(),
            approved: false,
        };
        self.change(|world, _| world.tokens.insert(user.token.clone(), grant));
    }

    /// Adds a room.
    pub fn add_room(&self, uri: &str, options: RoomOptions) -> Room {
        let id = self.change(|world, now_ms| {
            let id = world.add_channel(uri, options.public, now_ms);
            if let Some(channel) = world.channels.get_mut(&id) {
                channel.topic = options.topic;
                channel.admins = options.admins.iter().cloned().collect();
            }
            for user in options.admins.iter().chain(&options.members) {
                // Unknown ids are skipped: such users cannot be in a room.
                world.join(&id, user).ok();
            }
            id
        });
        Room {
            id,
            uri: uri.to_owned(),
        }
    }

    /// Adds a user to a room.
    pub fn join(&self, room_id: &str, user_id: &str) -> Result<(), ApiError> {
        self.change(|world, _| world.join(room_id, user_id))
    }

    /// Makes a user leave a room.
    pub fn leave(&self, room_id: &str, user_id: &str) -> Result<(), ApiError> {
        self.change(|world, _| world.leave(room_id, user_id))
    }

    /// Removes a user from a room: clients see exactly the same as for a leave.
    pub fn kick(&self, room_id: &str, user_id: &str) -> Result<(), ApiError> {
        self.leave(room_id, user_id)
    }

    /// Bans a user from a room.
    pub fn ban(&self, room_id: &str, user_id: &str) -> Result<(), ApiError> {
        self.change(|world, now_ms| world.ban(room_id, user_id, now_ms))
    }

    /// Lifts a ban; the user does not rejoin.
    pub fn unban(&self, room_id: &str, user_id: &str) -> Result<(), ApiError> {
        self.change(|world, _| world.unban(room_id, user_id))
    }

    /// Accepts everything that this user sends from now on, and drops it.
    pub fn hellban(&self, user_id: &str) {
        self.change(|world, _| {
            if let Some(person) = world.people.get_mut(user_id) {
                person.hellbanned = true;
            }
        });
    }

    /// Deletes an account: its tokens stop working, and its messages lose their `fromUser`.
    pub fn delete_user(&self, user_id: &str) {
        self.change(|world, _| {
            if let Some(person) = world.people.get_mut(user_id) {
                person.removed = true;
            }
        });
    }

    pub(super) fn post(
        &self,
        room_id: &str,
        user_id: &str,
        draft: Draft,
    ) -> Result<Message, ApiError> {
        self.change(|world, now_ms| {
            world.writable(room_id, Some(user_id))?;
            let post = world.create(room_id, user_id, draft, now_ms)?;
            Ok(post.message)
        })
    }

    /// Sends a message as this user, through the code that serves `POST`, with its errors.
    pub fn try_say(&self, room_id: &str, user_id: &str, text: &str) -> Result<Message, ApiError> {
        let draft = Draft {
            text: text.to_owned(),
            ..Draft::default()
        };
        self.post(room_id, user_id, draft)
    }

    /// Sends a message as this user. See `try_say`.
    ///
    /// # Panics
    /// If the service refuses it: a mistake in the calling test.
    #[track_caller]
    pub fn say(&self, room_id: &str, user_id: &str, text: &str) -> Message {
        self.try_say(room_id, user_id, text)
            .unwrap_or_else(|refusal| panic!("sending a message in {room_id}: {refusal}"))
    }

    /// Sends a `/me` message as this user.
    pub fn say_status(
        &self,
        room_id: &str,
        user_id: &str,
        text: &str,
    ) -> Result<Message, ApiError> {
        let draft = Draft {
            text: text.to_owned(),
            status: true,
            ..Draft::default()
        };
        self.post(room_id, user_id, draft)
    }

    /// Replies in a thread as this user.
    ///
    /// # Panics
    /// If the service refuses it: a mistake in the calling test.
    #[track_caller]
    pub fn say_in_thread(
        &self,
        room_id: &str,
        user_id: &str,
        parent_id: &str,
        text: &str,
    ) -> Message {
        let draft = Draft {
            text: text.to_owned(),
            parent_id: Some(parent_id.to_owned()),
            ..Draft::default()
        };
        self.post(room_id, user_id, draft)
            .unwrap_or_else(|refusal| panic!("replying in {room_id}: {refusal}"))
    }

    /// Edits a message as its author; the edit window applies.
    pub fn edit(&self, room_id: &str, message_id: &str, text: &str) -> Result<Message, ApiError> {
        self.change(|world, now_ms| {
            let author = world
                .post(room_id, message_id)?
                .message
                .from_user_id
                .clone();
            let post = world.edit(room_id, &author, message_id, text, now_ms)?;
            Ok(post.message)
        })
    }

    /// Deletes a message as its author.
    pub fn delete(&self, room_id: &str, message_id: &str) -> Result<(), ApiError> {
        self.change(|world, _| {
            let author = world
                .post(room_id, message_id)?
                .message
                .from_user_id
                .clone();
            world.delete(room_id, &author, message_id)
        })
    }

    /// Marks messages as read by this user, for which listeners get `patch` events.
    pub fn read(&self, room_id: &str, user_id: &str, message_ids: &[String]) {
        self.change(|world, _| world.mark_read(room_id, user_id, message_ids));
    }

    /// Adds an entry of an integration to the activity feed.
    pub fn add_activity(&self, room_id: &str, text: &str) -> Result<(), ApiError> {
        self.change(|world, now_ms| world.add_activity(room_id, text, now_ms))
    }

    /// Everything stored in a room, in the order in which it was accepted, with thread replies.
    pub fn messages(&self, room_id: &str) -> Vec<Message> {
        self.change(|world, _| {
            world.channel(room_id).map_or_else(
                |_| Vec::new(),
                |room| room.posts.iter().map(|post| post.message.clone()).collect(),
            )
        })
    }

    /// Receives every create, update and remove from now on, at the moment it is stored.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.shared.changes.subscribe()
    }

    /// The simulated time in milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.0.shared.clock.now_ms()
    }

    /// Sets the simulated time, from which it runs on.
    pub fn set_clock(&self, now_ms: i64) {
        self.0.shared.clock.set(now_ms);
    }

    /// Moves the simulated time forward; it affects rate windows, edit windows and `sent`.
    pub fn advance(&self, by: Duration) {
        self.0.shared.clock.advance(by);
    }
}
