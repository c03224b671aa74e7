//! The data of the simulated service: users, tokens, rooms and members. Messages are in `posts`; their JSON is in
//! `view`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use rand::{SeedableRng, rngs::StdRng};

use super::{
    api_error::ApiError,
    ids::{Ids, well_formed},
    posts::Post,
};

/// A user.
pub(super) struct Person {
    pub(super) id: String,
    pub(super) username: String,
    pub(super) display_name: String,
    /// The URL of their avatar, if it is not one of Gitter's own.
    pub(super) avatar_url: Option<String>,
    pub(super) created_ms: i64,
    /// Everything that this user sends is accepted, but neither stored nor shown.
    pub(super) hellbanned: bool,
    /// The account was deleted: its messages lose their `fromUser`.
    pub(super) removed: bool,
    /// The times at which each text was sent, for the automatic spam ban.
    pub(super) sent_texts: HashMap<String, VecDeque<i64>>,
}

/// A room.
pub(super) struct Channel {
    pub(super) id: String,
    pub(super) uri: String,
    pub(super) topic: String,
    /// The avatar of its group, if it is not Gitter's own.
    pub(super) picture: Option<String>,
    pub(super) public: bool,
    /// The two users of a one-to-one.
    pub(super) pair: Option<(String, String)>,
    /// In the order of joining.
    pub(super) members: Vec<String>,
    pub(super) admins: BTreeSet<String>,
    /// The time of each ban, by user id.
    pub(super) bans: BTreeMap<String, i64>,
    pub(super) tags: Vec<String>,
    pub(super) noindex: bool,
    /// In the order in which they were accepted.
    pub(super) posts: Vec<Post>,
    /// The activity feed, oldest first.
    pub(super) activity: Vec<Activity>,
    pub(super) version: u64,
}

/// One entry of a room's activity feed.
pub(super) struct Activity {
    pub(super) id: String,
    pub(super) text: String,
    pub(super) html: String,
    pub(super) sent_ms: i64,
}

/// The owner and the rights of a token.
#[derive(Clone)]
pub(super) struct AccessToken {
    /// The user id; `None` for an anonymous token.
    pub(super) user: Option<String>,
    pub(super) client: String,
    /// Whether the OAuth client may use `virtualUser`.
    pub(super) approved: bool,
}

/// The unread items of one user in one room.
#[derive(Clone, Default)]
pub(super) struct Unread {
    pub(super) chat: BTreeSet<String>,
    pub(super) mention: BTreeSet<String>,
}

/// A change that listeners must be notified of, in order.
pub(super) enum Event {
    Created {
        room: String,
        post: Post,
    },
    Updated {
        room: String,
        post: Post,
    },
    Removed {
        room: String,
        post: Post,
    },
    FirstRead {
        room: String,
        message: String,
        readers: usize,
        version: u64,
    },
    Joined {
        room: String,
        user: String,
    },
    Left {
        room: String,
        user: String,
    },
    RoomChanged {
        room: String,
    },
    Unread {
        room: String,
        user: String,
        unread: Unread,
    },
    Activity {
        room: String,
        index: usize,
    },
}

/// All data of the service.
pub(super) struct World {
    pub(super) people: BTreeMap<String, Person>,
    pub(super) channels: BTreeMap<String, Channel>,
    pub(super) tokens: HashMap<String, AccessToken>,
    /// By user id, then by room id.
    pub(super) unread: HashMap<(String, String), Unread>,
    /// The room of every message.
    pub(super) homes: HashMap<String, String>,
    pub(super) hidden: BTreeSet<(String, String)>,
    pub(super) events: Vec<Event>,
    pub(super) ids: Ids,
    pub(super) rng: StdRng,
    pub(super) edit_window_ms: i64,
}

impl World {
    pub(super) fn new(seed: u64, processes: usize, edit_window_ms: i64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ids = Ids::new(processes, &mut rng);
        Self {
            people: BTreeMap::new(),
            channels: BTreeMap::new(),
            tokens: HashMap::new(),
            unread: HashMap::new(),
            homes: HashMap::new(),
            hidden: BTreeSet::new(),
            events: Vec::new(),
            ids,
            rng,
            edit_window_ms,
        }
    }

    pub(super) fn next_id(&mut self, now_ms: i64) -> String {
        self.ids.next(now_ms, &mut self.rng)
    }

    pub(super) fn add_person(
        &mut self,
        username: &str,
        display_name: &str,
        created_ms: i64,
    ) -> String {
        let id = self.next_id(created_ms);
        self.people.insert(
            id.clone(),
            Person {
                id: id.clone(),
                username: username.to_owned(),
                display_name: display_name.to_owned(),
                avatar_url: None,
                created_ms,
                hellbanned: false,
                removed: false,
                sent_texts: HashMap::new(),
            },
        );
        id
    }

    pub(super) fn add_channel(&mut self, uri: &str, public: bool, now_ms: i64) -> String {
        let id = self.next_id(now_ms);
        self.channels.insert(
            id.clone(),
            Channel {
                id: id.clone(),
                uri: uri.to_owned(),
                topic: String::new(),
                picture: None,
                public,
                pair: None,
                members: Vec::new(),
                admins: BTreeSet::new(),
                bans: BTreeMap::new(),
                tags: Vec::new(),
                noindex: false,
                posts: Vec::new(),
                activity: Vec::new(),
                version: 1,
            },
        );
        id
    }

    pub(super) fn person(&self, id: &str) -> Result<&Person, ApiError> {
        self.people.get(id).ok_or(ApiError::NOT_FOUND)
    }

    pub(super) fn person_named(&self, username: &str) -> Option<&Person> {
        self.people
            .values()
            .find(|person| !person.removed && person.username.eq_ignore_ascii_case(username))
    }

    pub(super) fn channel(&self, id: &str) -> Result<&Channel, ApiError> {
        self.channels.get(id).ok_or(ApiError::NOT_FOUND)
    }

    pub(super) fn channel_mut(&mut self, id: &str) -> Result<&mut Channel, ApiError> {
        self.channels.get_mut(id).ok_or(ApiError::NOT_FOUND)
    }

    pub(super) fn channel_named(&self, uri: &str) -> Option<&Channel> {
        self.channels
            .values()
            .find(|room| room.pair.is_none() && room.uri.eq_ignore_ascii_case(uri))
    }

    /// The room, if `who` may read it; `None` is an anonymous token.
    pub(super) fn readable(&self, room: &str, who: Option<&str>) -> Result<&Channel, ApiError> {
        if !well_formed(room) {
            return Err(ApiError::BAD_REQUEST);
        }
        let room = self.channel(room)?;
        match who {
            Some(user) if room.bans.contains_key(user) => Err(ApiError::FORBIDDEN),
            Some(user) if room.public || room.members.iter().any(|member| member == user) => {
                Ok(room)
            }
            Some(_) => Err(ApiError::FORBIDDEN),
            None if room.public => Ok(room),
            None => Err(ApiError::UNAUTHORIZED),
        }
    }

    /// The room and the writer, if `who` may write into it.
    pub(super) fn writable<'a>(
        &self,
        room: &str,
        who: Option<&'a str>,
    ) -> Result<(&Channel, &'a str), ApiError> {
        let user = who.ok_or(ApiError::UNAUTHORIZED)?;
        Ok((self.readable(room, who)?, user))
    }

    pub(super) fn is_admin(&self, room: &str, user: &str) -> bool {
        self.channels
            .get(room)
            .is_some_and(|room| room.admins.contains(user))
    }

    /// Adds a user to a room; does nothing if they are a member already.
    pub(super) fn join(&mut self, room: &str, user: &str) -> Result<(), ApiError> {
        self.person(user)?;
        self.hidden.remove(&(user.to_owned(), room.to_owned()));
        let channel = self.channel_mut(room)?;
        if channel.members.iter().any(|member| member == user) {
            return Ok(());
        }
        channel.members.push(user.to_owned());
        channel.version += 1;
        self.events.push(Event::Joined {
            room: room.to_owned(),
            user: user.to_owned(),
        });
        Ok(())
    }

    /// Removes a user from a room, whether they left or were removed: the service does not distinguish the two
    /// anywhere.
    pub(super) fn leave(&mut self, room: &str, user: &str) -> Result<(), ApiError> {
        let channel = self.channel_mut(room)?;
        let before = channel.members.len();
        channel.members.retain(|member| member != user);
        if channel.members.len() == before {
            return Err(ApiError::NOT_FOUND);
        }
        channel.version += 1;
        self.unread.remove(&(user.to_owned(), room.to_owned()));
        self.events.push(Event::Left {
            room: room.to_owned(),
            user: user.to_owned(),
        });
        Ok(())
    }

    /// Bans a user and removes them; the activity feed gets an entry.
    pub(super) fn ban(&mut self, room: &str, user: &str, now_ms: i64) -> Result<(), ApiError> {
        let username = self.person(user)?.username.clone();
        self.channel_mut(room)?.bans.insert(user.to_owned(), now_ms);
        if self.leave(room, user).is_err() {
            // A user who is not a member may be subscribed nevertheless: their feeds must end as well.
            self.events.push(Event::Left {
                room: room.to_owned(),
                user: user.to_owned(),
            });
        }
        self.add_activity(room, &format!("User @{username} was banned"), now_ms)
    }

    pub(super) fn unban(&mut self, room: &str, user: &str) -> Result<(), ApiError> {
        let removed = self.channel_mut(room)?.bans.remove(user);
        removed.map(|_| ()).ok_or(ApiError::NOT_FOUND)
    }

    pub(super) fn add_activity(
        &mut self,
        room: &str,
        text: &str,
        now_ms: i64,
    ) -> Result<(), ApiError> {
        let id = self.next_id(now_ms);
        let html = super::markdown::render(text).html;
        let channel = self.channel_mut(room)?;
        channel.activity.push(Activity {
            id,
            text: text.to_owned(),
            html,
            sent_ms: now_ms,
        });
        let index = channel.activity.len() - 1;
        self.events.push(Event::Activity {
            room: room.to_owned(),
            index,
        });
        Ok(())
    }

    /// The one-to-one room of two users, created if it does not exist.
    pub(super) fn one_to_one(
        &mut self,
        me: &str,
        other: &str,
        now_ms: i64,
    ) -> Result<String, ApiError> {
        let found = self.channels.values().find(|room| {
            room.pair
                .as_ref()
                .is_some_and(|(a, b)| (a == me && b == other) || (a == other && b == me))
        });
        if let Some(room) = found {
            return Ok(room.id.clone());
        }
        let id = self.add_channel("", false, now_ms);
        self.channel_mut(&id)?.pair = Some((me.to_owned(), other.to_owned()));
        self.join(&id, me)?;
        self.join(&id, other)?;
        Ok(id)
    }

    /// Removes a room with everything in it.
    pub(super) fn remove_channel(&mut self, room: &str) -> Result<(), ApiError> {
        let members = self.channel(room)?.members.clone();
        for member in members {
            self.leave(room, &member)?;
        }
        self.channels.remove(room);
        self.homes.retain(|_, home| home != room);
        Ok(())
    }

    /// Marks messages as read; listeners are notified the first time for each message.
    pub(super) fn mark_read(&mut self, room: &str, user: &str, messages: &[String]) {
        let unread = self
            .unread
            .entry((user.to_owned(), room.to_owned()))
            .or_default();
        for message in messages {
            unread.chat.remove(message);
            unread.mention.remove(message);
        }
        let unread = unread.clone();
        let Some(channel) = self.channels.get_mut(room) else {
            return;
        };
        for post in &mut channel.posts {
            if !messages.contains(&post.message.id) || post.message.from_user_id == user {
                continue;
            }
            if post.read_by.insert(user.to_owned()) && post.read_by.len() == 1 {
                self.events.push(Event::FirstRead {
                    room: room.to_owned(),
                    message: post.message.id.clone(),
                    readers: post.read_by.len(),
                    version: post.message.version,
                });
            }
        }
        self.events.push(Event::Unread {
            room: room.to_owned(),
            user: user.to_owned(),
            unread,
        });
    }
}
