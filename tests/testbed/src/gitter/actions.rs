//! What people in the simulated world do, for tests in this process: each act goes through the code that serves the same act over HTTP.

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

/// How old accounts are unless told: past the age at which the automatic ban looks at them.
pub(super) const DEFAULT_ACCOUNT_AGE: Duration = Duration::from_hours(365 * 24);

impl GitterSim {
    pub(super) fn change<T>(&self, act: impl FnOnce(&mut World, i64) -> T) -> T {
        let now_ms = self.0.shared.clock.now_ms();
        self.0.shared.with_world(|world| act(world, now_ms))
    }

    /// Adds a person with an account that is a year old, and a personal token for them.
    pub fn add_user(&self, username: &str, display_name: &str) -> User {
        self.add_user_aged(username, display_name, DEFAULT_ACCOUNT_AGE)
    }

    /// Adds a person whose account is this old: below 14 days it is watched for repeated texts.
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

    /// Somebody's picture is here from now on.
    pub fn set_avatar(&self, user_id: &str, url: &str) {
        self.change(|world, _| {
            if let Some(person) = world.people.get_mut(user_id) {
                person.avatar_url = Some(url.to_owned());
            }
        });
    }

    /// A room's topic and its group's picture are these from now on.
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

    /// Somebody decides about a room from now on.
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

    /// One more token for someone, through an OAuth client of this name; an approved one may use `virtualUser`.
    pub fn add_token(&self, user_id: &str, client: &str, approved: bool) -> String {
        let grant = AccessToken {
            user: Some(user_id.to_owned()),
            client: client.to_owned(),
            approved,
        };
        self.grant("", grant)
    }

    /// A token that reads public rooms and does nothing else.
    pub fn add_anonymous_token(&self) -> String {
        let grant = AccessToken {
            user: None,
            client: "web".to_owned(),
            approved: false,
        };
        self.grant("$", grant)
    }

    /// The token stops working at once.
    pub fn revoke_token(&self, token: &str) {
        self.change(|world, _| world.tokens.remove(token));
    }

    /// A person's token works as before.
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
                // Unknown ids are left out, as they could not be anywhere.
                world.join(&id, user).ok();
            }
            id
        });
        Room {
            id,
            uri: uri.to_owned(),
        }
    }

    /// Adds someone to a room.
    pub fn join(&self, room_id: &str, user_id: &str) -> Result<(), ApiError> {
        self.change(|world, _| world.join(room_id, user_id))
    }

    /// Someone leaves.
    pub fn leave(&self, room_id: &str, user_id: &str) -> Result<(), ApiError> {
        self.change(|world, _| world.leave(room_id, user_id))
    }

    /// Someone is put out of a room: the service shows it exactly as a leave.
    pub fn kick(&self, room_id: &str, user_id: &str) -> Result<(), ApiError> {
        self.leave(room_id, user_id)
    }

    /// Someone is banned from a room.
    pub fn ban(&self, room_id: &str, user_id: &str) -> Result<(), ApiError> {
        self.change(|world, now_ms| world.ban(room_id, user_id, now_ms))
    }

    /// A ban is lifted; the person is not put back in.
    pub fn unban(&self, room_id: &str, user_id: &str) -> Result<(), ApiError> {
        self.change(|world, _| world.unban(room_id, user_id))
    }

    /// Everything this person sends from now on is answered and dropped.
    pub fn hellban(&self, user_id: &str) {
        self.change(|world, _| {
            if let Some(person) = world.people.get_mut(user_id) {
                person.hellbanned = true;
            }
        });
    }

    /// Deletes an account: its tokens die, its messages lose their `fromUser`.
    pub fn delete_user(&self, user_id: &str) {
        self.change(|world, _| {
            if let Some(person) = world.people.get_mut(user_id) {
                person.gone = true;
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

    /// Someone says something, through the code that serves `POST`. Refused as that would be.
    pub fn try_say(&self, room_id: &str, user_id: &str, text: &str) -> Result<Message, ApiError> {
        let draft = Draft {
            text: text.to_owned(),
            ..Draft::default()
        };
        self.post(room_id, user_id, draft)
    }

    /// Someone says something. See `try_say`.
    ///
    /// # Panics
    /// If the service would refuse it: a mistake in the test that calls.
    #[track_caller]
    pub fn say(&self, room_id: &str, user_id: &str, text: &str) -> Message {
        self.try_say(room_id, user_id, text)
            .unwrap_or_else(|refusal| panic!("saying something in {room_id}: {refusal}"))
    }

    /// Someone says `/me …`.
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

    /// Someone replies in a thread.
    ///
    /// # Panics
    /// If the service would refuse it: a mistake in the test that calls.
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

    /// The author edits a message; the edit window applies.
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

    /// The author deletes a message.
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

    /// Someone reads messages, which listeners hear as `patch` noise.
    pub fn read(&self, room_id: &str, user_id: &str, message_ids: &[String]) {
        self.change(|world, _| world.mark_read(room_id, user_id, message_ids));
    }

    /// An integration writes to the activity feed.
    pub fn add_activity(&self, room_id: &str, text: &str) -> Result<(), ApiError> {
        self.change(|world, now_ms| world.add_activity(room_id, text, now_ms))
    }

    /// Everything stored in a room in the order of acceptance, thread replies included.
    pub fn messages(&self, room_id: &str) -> Vec<Message> {
        self.change(|world, _| {
            world.channel(room_id).map_or_else(
                |_| Vec::new(),
                |room| room.posts.iter().map(|post| post.message.clone()).collect(),
            )
        })
    }

    /// Every create, update and remove from now on, at the moment it is stored.
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

    /// Moves the simulated time forward: rate windows, edit windows, `sent`.
    pub fn advance(&self, by: Duration) {
        self.0.shared.clock.advance(by);
    }
}
