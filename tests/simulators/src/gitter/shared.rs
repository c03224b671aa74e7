//! The state that all ports share, and the only way to change it: every listener is notified of a change before the
//! next one can happen.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    bayeux::Sessions,
    faults::{Echo, Faults},
    posts::{Message, Post},
    rate::Windows,
    stream::Streams,
    time::SimClock,
    view::{self, ViewOptions},
    world::{Event, World},
};

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It was created.
    Create,
    /// It was saved again: edited, emptied, or its thread counter changed.
    Update,
    /// It was deleted.
    Remove,
}

/// A change of a message.
#[derive(Clone, Debug)]
pub struct Change {
    /// When it was stored.
    pub at: Instant,
    /// What happened.
    pub operation: Operation,
    /// The message after the change (before it, if deleted).
    pub message: Message,
}

/// A notification for listeners.
pub(super) enum Notice {
    /// An event on a Bayeux channel.
    Push { channel: String, body: Value },
    /// A line of a room's HTTP stream: the last part of its path, and the object.
    Line {
        room: String,
        feed: &'static str,
        body: Value,
    },
    /// This user gets no more events of this room.
    Silence { room: String, user: String },
}

/// The state behind all ports.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) clock: SimClock,
    world: Mutex<World>,
    pub(super) windows: Mutex<Windows>,
    calls: Mutex<BTreeMap<String, u64>>,
    pub(super) faults: Faults,
    pub(super) sessions: Sessions,
    pub(super) streams: Streams,
    pub(super) changes: broadcast::Sender<Change>,
    late: mpsc::UnboundedSender<(tokio::time::Instant, Vec<Notice>)>,
    /// Cancelled when the simulator is dropped.
    pub(super) stop: CancellationToken,
}

/// Notices that are delayed until the response was sent.
pub(super) type LateNotices = mpsc::UnboundedReceiver<(tokio::time::Instant, Vec<Notice>)>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(options: Options) -> (Self, LateNotices) {
        let (late, late_notices) = mpsc::unbounded_channel();
        let edit_window_ms = i64::try_from(options.edit_window.as_millis()).unwrap_or(i64::MAX);
        let shared = Self {
            world: Mutex::new(World::new(options.seed, options.processes, edit_window_ms)),
            faults: Faults::new(options.seed, options.echo),
            options,
            clock: SimClock::default(),
            windows: Mutex::default(),
            calls: Mutex::default(),
            sessions: Sessions::default(),
            streams: Streams::default(),
            changes: broadcast::Sender::new(16_384),
            late,
            stop: CancellationToken::new(),
        };
        (shared, late_notices)
    }

    pub(super) fn count(&self, route: &str) {
        *lock(&self.calls).entry(route.to_owned()).or_insert(0) += 1;
    }

    pub(super) fn calls(&self) -> BTreeMap<String, u64> {
        lock(&self.calls).clone()
    }

    pub(super) fn look<'a>(&self, viewer: Option<&'a str>) -> ViewOptions<'a> {
        ViewOptions {
            viewer,
            compatibility: self.options.compatibility,
            ..ViewOptions::default()
        }
    }

    /// Reads or changes the world. Listeners are notified while the world is still locked, so they see changes in their
    /// order.
    pub(super) fn with_world<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = lock(&self.world);
        let result = act(&mut world);
        let events = std::mem::take(&mut world.events);
        if events.is_empty() {
            return result;
        }
        let mut notices = Vec::new();
        for event in &events {
            self.announce(event);
            self.tell(&world, event, &mut notices);
        }
        match self.faults.echo() {
            Echo::After { ms } => {
                let due = tokio::time::Instant::now() + Duration::from_millis(ms);
                // Fails only while the simulator shuts down.
                drop(self.late.send((due, notices)));
            }
            Echo::Before { .. } | Echo::With => self.deliver(notices),
        }
        result
    }

    fn announce(&self, event: &Event) {
        let (operation, post) = match event {
            Event::Created { post, .. } => (Operation::Create, post),
            Event::Updated { post, .. } => (Operation::Update, post),
            Event::Removed { post, .. } => (Operation::Remove, post),
            _ => return,
        };
        // Fails if nobody is subscribed.
        drop(self.changes.send(Change {
            at: Instant::now(),
            operation,
            message: post.message.clone(),
        }));
    }

    pub(super) fn deliver(&self, notices: Vec<Notice>) {
        for notice in notices {
            match notice {
                Notice::Push { channel, body } => {
                    self.sessions.publish(&self.faults, &channel, &body);
                }
                Notice::Line { room, feed, body } => {
                    self.streams.send(self.faults.framing(), &room, feed, &body);
                }
                Notice::Silence { room, user } => {
                    self.sessions.silence(&room, &user);
                    self.streams.silence(&room, &user);
                }
            }
        }
    }

    fn chat(&self, world: &World, room: &str, operation: &str, post: &Post) -> (Notice, Value) {
        let model = view::message(world, post, self.look(None));
        let push = Notice::Push {
            channel: format!("/api/v1/rooms/{room}/chatMessages"),
            body: json!({"operation": operation, "model": model}),
        };
        (push, model)
    }

    fn tell(&self, world: &World, event: &Event, notices: &mut Vec<Notice>) {
        match event {
            Event::Created { room, post } => {
                let (push, model) = self.chat(world, room, "create", post);
                notices.push(push);
                if post.message.parent_id.is_none() || self.options.threads_on_stream {
                    notices.push(Notice::Line {
                        room: room.clone(),
                        feed: "chatMessages",
                        body: model,
                    });
                }
            }
            Event::Updated { room, post } => notices.push(self.chat(world, room, "update", post).0),
            Event::Removed { room, post } => notices.push(Notice::Push {
                channel: format!("/api/v1/rooms/{room}/chatMessages"),
                body: json!({"operation": "remove", "model": {"id": post.message.id}}),
            }),
            Event::FirstRead { room, message, readers, version } => notices.push(Notice::Push {
                channel: format!("/api/v1/rooms/{room}/chatMessages"),
                body: json!({"operation": "patch", "model": {"id": message, "readBy": readers, "v": version}}),
            }),
            Event::Unread { room, user, unread } => notices.push(Notice::Push {
                channel: format!("/api/v1/user/{user}/rooms/{room}/unreadItems"),
                body: json!({"notification": "unread_items", "items": view::unread(unread)}),
            }),
            Event::Activity { room, index } => {
                let entry = world.channels.get(room).and_then(|room| room.activity.get(*index));
                if let Some(entry) = entry {
                    let model = view::activity(entry);
                    notices.push(Notice::Push {
                        channel: format!("/api/v1/rooms/{room}/events"),
                        body: json!({"operation": "create", "model": model}),
                    });
                    notices.push(Notice::Line { room: room.clone(), feed: "events", body: model });
                }
            }
            Event::Joined { .. } | Event::Left { .. } | Event::RoomChanged { .. } => {
                tell_membership(world, event, notices);
            }
        }
    }
}

/// Rooms with more members than this do not announce who joins.
const ANNOUNCED_MEMBERS: usize = 100;

fn tell_membership(world: &World, event: &Event, notices: &mut Vec<Notice>) {
    match event {
        Event::Joined { room, user } => {
            let (Some(channel), Some(person)) = (world.channels.get(room), world.people.get(user))
            else {
                return;
            };
            if channel.members.len() <= ANNOUNCED_MEMBERS {
                notices.push(Notice::Push {
                    channel: format!("/api/v1/rooms/{room}/users"),
                    body: json!({"operation": "create", "model": view::user(person)}),
                });
            }
            notices.push(Notice::Push {
                channel: format!("/api/v1/user/{user}/rooms"),
                body: json!({"operation": "create", "model": view::room(world, channel, Some(user))}),
            });
        }
        Event::Left { room, user } => {
            notices.push(Notice::Push {
                channel: format!("/api/v1/rooms/{room}/users"),
                body: json!({"operation": "remove", "model": {"id": user}}),
            });
            notices.push(Notice::Push {
                channel: format!("/api/v1/user/{user}/rooms"),
                body: json!({"operation": "remove", "model": {"id": room}}),
            });
            notices.push(Notice::Silence {
                room: room.clone(),
                user: user.clone(),
            });
        }
        Event::RoomChanged { room } => {
            if let Some(channel) = world.channels.get(room) {
                let model = view::room(world, channel, None);
                notices.push(Notice::Push {
                    channel: format!("/api/v1/rooms/{room}"),
                    body: json!({"operation": "update", "model": model}),
                });
            }
        }
        _ => {}
    }
}
