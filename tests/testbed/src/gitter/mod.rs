//! A Gitter that answers as the real one did until it was switched off: REST, HTTP stream and Bayeux, each on a port of its own, and a
//! control port apart from them, so that a client cannot tell. `GitterSim` is the same control for tests in this process.

mod auth;
mod bayeux;
mod control;
mod faults;
mod ids;
mod inline;
mod listing;
mod markdown;
mod posts;
mod rate;
mod refusal;
mod rest;
mod shared;
mod stream;
mod time;
mod view;
mod wire;
mod world;

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use axum::Router;
use rand::Rng;
use tokio::{net::TcpListener, sync::broadcast, task::JoinHandle};
use tokio_util::sync::DropGuard;

pub use faults::{Echo, Fault, Faults, Framing};
pub use posts::Message;
pub use refusal::Refusal;
pub use shared::{Change, Operation};
pub use view::Compatibility;
pub use wire::Cut;

use self::{
    posts::Draft,
    shared::{LateNotices, Shared, lock},
    wire::{Switch, WireListener, Wires},
    world::{Grant, World},
};

/// How old accounts are unless told: past the age at which the automatic ban looks at them.
const SETTLED: Duration = Duration::from_secs(365 * 86_400);

/// What a simulator is started with. The defaults are the real service's values where they are known.
#[derive(Clone, Debug)]
pub struct Options {
    /// Calls per window, user and OAuth client.
    pub rate_limit: u64,
    /// Length of the fixed window.
    pub rate_window: Duration,
    /// Period of the HTTP stream's keep-alives; unknown in reality.
    pub keepalive: Duration,
    /// Server processes making ids.
    pub processes: usize,
    /// How long a message may be edited.
    pub edit_window: Duration,
    /// Order of echo and answer.
    pub echo: Echo,
    /// Idle timeout of `/bayeux`.
    pub connect_timeout: Duration,
    /// Idle timeout of `/faye`.
    pub legacy_connect_timeout: Duration,
    /// Period of websocket pings.
    pub socket_ping: Duration,
    /// Whether opening a stream counts against the rate limit; not known.
    pub streams_cost: bool,
    /// Whether thread replies are on the HTTP stream; not known.
    pub threads_on_stream: bool,
    /// Which of the service's dialects is spoken.
    pub compatibility: Compatibility,
    /// Decides ids, tokens and which calls fail.
    pub seed: u64,
    /// Ports; 0 takes a free one.
    pub api_port: u16,
    /// See `api_port`.
    pub stream_port: u16,
    /// See `api_port`.
    pub realtime_port: u16,
    /// See `api_port`.
    pub control_port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rate_limit: 100,
            rate_window: Duration::from_mins(1),
            keepalive: Duration::from_secs(15),
            processes: 3,
            edit_window: Duration::from_secs(600),
            echo: Echo::With,
            connect_timeout: Duration::from_mins(2),
            legacy_connect_timeout: Duration::from_mins(5),
            socket_ping: Duration::from_secs(40),
            streams_cost: false,
            threads_on_stream: true,
            compatibility: Compatibility::default(),
            seed: 1,
            api_port: 0,
            stream_port: 0,
            realtime_port: 0,
            control_port: 0,
        }
    }
}

/// A person as the test sees them.
#[derive(Clone)]
pub struct User {
    /// 24 hexadecimal digits.
    pub id: String,
    /// The name in mentions.
    pub username: String,
    /// The name as shown.
    pub display_name: String,
    /// A personal token: 40 hexadecimal digits.
    pub token: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A room as the test sees it.
#[derive(Clone, Debug)]
pub struct Room {
    /// 24 hexadecimal digits.
    pub id: String,
    /// Its name, such as `org/repo`.
    pub uri: String,
}

/// How a room starts out.
#[derive(Clone, Debug)]
pub struct RoomOptions {
    /// Whether anyone may read and write.
    pub public: bool,
    /// User ids.
    pub members: Vec<String>,
    /// User ids; admins are members too.
    pub admins: Vec<String>,
    /// The topic line.
    pub topic: String,
}

impl Default for RoomOptions {
    fn default() -> Self {
        Self {
            public: true,
            members: Vec::new(),
            admins: Vec::new(),
            topic: String::new(),
        }
    }
}

/// Addresses, fixed at the first start and kept over a restart.
#[derive(Clone, Copy)]
struct Addresses {
    api: SocketAddr,
    stream: SocketAddr,
    realtime: SocketAddr,
    control: SocketAddr,
}

struct House {
    shared: Arc<Shared>,
    addresses: Addresses,
    /// The servers of the three ports; empty while they do not listen.
    servers: Mutex<Vec<JoinHandle<()>>>,
    _stop: DropGuard,
}

/// A running simulator. Clones share it; it stops with the last one.
#[derive(Clone)]
pub struct GitterSim(Arc<House>);

/// Starts a task that ends by itself when the simulator stops.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulator stands for another machine; its tasks are none of the bridge's"
)]
fn start<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(task)
}

async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("listening on port {port} for the Gitter simulator"))
}

fn serve(
    shared: &Arc<Shared>,
    inner: TcpListener,
    wires: &Wires,
    router: Router,
) -> JoinHandle<()> {
    let listener = WireListener {
        inner,
        wires: wires.clone(),
    };
    let service = router.into_make_service_with_connect_info::<Switch>();
    let stop = shared.stop.clone();
    let wires = wires.clone();
    start(async move {
        let server = axum::serve(listener, service);
        let ended = stop.run_until_cancelled(async move { server.await }).await;
        // Cancelled, or an error nobody could act on: either way no connection outlives its port.
        drop(ended);
        wires.cut_all(Cut::Close);
    })
}

/// Tells what was held back, in order, each when it is due.
async fn tell_late(shared: Arc<Shared>, mut late: LateNotices) {
    loop {
        let next = tokio::select! {
            () = shared.stop.cancelled() => return,
            next = late.recv() => next,
        };
        let Some((due, notices)) = next else { return };
        tokio::time::sleep_until(due).await;
        shared.deliver(notices);
    }
}

impl GitterSim {
    /// Starts listening on the loopback interface.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let listeners = [
            bind(options.api_port).await?,
            bind(options.stream_port).await?,
            bind(options.realtime_port).await?,
        ];
        let control = bind(options.control_port).await?;
        let [api, stream, realtime] = &listeners;
        let addresses = Addresses {
            api: api.local_addr()?,
            stream: stream.local_addr()?,
            realtime: realtime.local_addr()?,
            control: control.local_addr()?,
        };
        let (shared, late) = Shared::new(options);
        let shared = Arc::new(shared);
        let stop = shared.stop.clone().drop_guard();
        start(tell_late(Arc::clone(&shared), late));
        let sim = Self(Arc::new(House {
            shared,
            addresses,
            servers: Mutex::default(),
            _stop: stop,
        }));
        sim.serve_all(listeners);
        // Held weakly: the control port must not keep the simulator alive.
        let router = control::router(Arc::downgrade(&sim.0));
        serve(&sim.0.shared, control, &Wires::default(), router);
        Ok(sim)
    }

    fn serve_all(&self, listeners: [TcpListener; 3]) {
        let shared = &self.0.shared;
        let [api, stream, realtime] = listeners;
        let faults = &shared.faults;
        let servers = vec![
            serve(shared, api, &faults.api, rest::router(Arc::clone(shared))),
            serve(
                shared,
                stream,
                &faults.stream,
                stream::router(Arc::clone(shared)),
            ),
            serve(
                shared,
                realtime,
                &faults.realtime,
                bayeux::router(Arc::clone(shared)),
            ),
        ];
        *lock(&self.0.servers) = servers;
    }

    /// An outage: the ports close and every connection drops. The world stays; people in it can go on talking.
    pub async fn stop_listening(&self) {
        let servers = std::mem::take(&mut *lock(&self.0.servers));
        for server in servers {
            server.abort();
            // Aborted: there is no result to look at.
            drop(server.await);
        }
        let faults = &self.0.shared.faults;
        for wires in [&faults.api, &faults.stream, &faults.realtime] {
            wires.cut_all(Cut::Close);
        }
        self.0.shared.sessions.clear();
    }

    /// Ends an outage, on the same ports.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop_listening().await;
        let addresses = self.0.addresses;
        self.serve_all([
            bind(addresses.api.port()).await?,
            bind(addresses.stream.port()).await?,
            bind(addresses.realtime.port()).await?,
        ]);
        Ok(())
    }

    /// Base of the REST API.
    pub fn api_url(&self) -> String {
        format!("http://{}/v1", self.0.addresses.api)
    }

    /// Base of the HTTP stream.
    pub fn stream_url(&self) -> String {
        format!("http://{}/v1", self.0.addresses.stream)
    }

    /// The Bayeux endpoint.
    pub fn realtime_url(&self) -> String {
        format!("ws://{}/bayeux", self.0.addresses.realtime)
    }

    /// The control port, with a page for people at its root.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.0.addresses.control)
    }

    fn change<T>(&self, act: impl FnOnce(&mut World, i64) -> T) -> T {
        let now_ms = self.0.shared.clock.now_ms();
        self.0.shared.with_world(|world| act(world, now_ms))
    }

    /// Adds a person with an account that is a year old, and a personal token for them.
    pub fn add_user(&self, username: &str, display_name: &str) -> User {
        self.add_user_aged(username, display_name, SETTLED)
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

    fn grant(&self, prefix: &str, grant: Grant) -> String {
        self.change(|world, _| {
            let digits: [u8; 20] = world.rng.random();
            let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
            let token = format!("{prefix}{digits}");
            world.tokens.insert(token.clone(), grant);
            token
        })
    }

    /// One more token for someone, through an OAuth client of this name; an approved one may use `virtualUser`.
    pub fn add_token(&self, user_id: &str, client: &str, approved: bool) -> String {
        let grant = Grant {
            user: Some(user_id.to_owned()),
            client: client.to_owned(),
            approved,
        };
        self.grant("", grant)
    }

    /// A token that reads public rooms and does nothing else.
    pub fn add_anonymous_token(&self) -> String {
        let grant = Grant {
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
    pub fn join(&self, room_id: &str, user_id: &str) -> Result<(), Refusal> {
        self.change(|world, _| world.join(room_id, user_id))
    }

    /// Someone leaves.
    pub fn leave(&self, room_id: &str, user_id: &str) -> Result<(), Refusal> {
        self.change(|world, _| world.leave(room_id, user_id))
    }

    /// Someone is put out of a room: the service shows it exactly as a leave.
    pub fn kick(&self, room_id: &str, user_id: &str) -> Result<(), Refusal> {
        self.leave(room_id, user_id)
    }

    /// Someone is banned from a room.
    pub fn ban(&self, room_id: &str, user_id: &str) -> Result<(), Refusal> {
        self.change(|world, now_ms| world.ban(room_id, user_id, now_ms))
    }

    /// A ban is lifted; the person is not put back in.
    pub fn unban(&self, room_id: &str, user_id: &str) -> Result<(), Refusal> {
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

    fn post(&self, room_id: &str, user_id: &str, draft: Draft) -> Result<Message, Refusal> {
        self.change(|world, now_ms| {
            world.writable(room_id, Some(user_id))?;
            let post = world.create(room_id, user_id, draft, now_ms)?;
            Ok(post.message)
        })
    }

    /// Someone says something, through the code that serves `POST`. Refused as that would be.
    pub fn try_say(&self, room_id: &str, user_id: &str, text: &str) -> Result<Message, Refusal> {
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
    pub fn say_status(&self, room_id: &str, user_id: &str, text: &str) -> Result<Message, Refusal> {
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
    pub fn edit(&self, room_id: &str, message_id: &str, text: &str) -> Result<Message, Refusal> {
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
    pub fn delete(&self, room_id: &str, message_id: &str) -> Result<(), Refusal> {
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
    pub fn add_activity(&self, room_id: &str, text: &str) -> Result<(), Refusal> {
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

    /// What is made to go wrong.
    pub fn faults(&self) -> &Faults {
        &self.0.shared.faults
    }

    /// Calls per route since the start.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.0.shared.calls()
    }

    /// Open HTTP streams.
    pub fn open_streams(&self) -> usize {
        self.0.shared.streams.count()
    }

    /// Live Bayeux sessions.
    pub fn open_sessions(&self) -> usize {
        self.0.shared.sessions.count()
    }
}
