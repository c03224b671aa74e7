//! What every silo must do, whatever it talks to: one line per kind at the end.  Store, inbox and lanes are the real ones.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use footbridge::config::Config;
use footbridge_core::{
    budget::Budget,
    clock::Clock,
    inbox::{Arrival, ArrivalContent, Batch, Inbox, Signals},
    lane::{Lane, LaneEnd, OutletHealth, RelayFilter, RelayFilters, RetryLimits},
    message::{Action, Message, Sender, Style},
    outlet::{Done, Outgoing, Plan, SendError},
    text::Body,
};
use footbridge_silo::{Channel, FeedState, Silo, SiloError};
use footbridge_simulators::channel::{SimulatedChannel, UserAction};
use footbridge_store::{
    LaneCounters, LaneId, Place, Portal, PortalSpec, QueueHead, RemoteId, Side, Store, StoreKey,
};

use crate::faulty_server::{ConnectionBehavior, FaultyServer};
use async_trait::async_trait;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long anything may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A network that a test controls, and how the silo is configured for it.
#[async_trait]
pub trait Network: Send + Sync {
    /// The channel in the network.
    fn channel(&self) -> &dyn SimulatedChannel;
    /// A new silo on the bridge's account.
    fn silo(&self) -> Arc<dyn Silo>;
    /// From now on the silo reaches the live feed through this address.
    fn pass_through(&mut self, proxy_address: SocketAddr);

    /// The other person sends a message; its id.
    fn say(&self, text: &str) -> String {
        self.act(UserAction::Say(text)).unwrap()
    }
    /// A person sends a message with the bridge's own account.
    fn say_on_our_account(&self, text: &str) -> String {
        self.channel().say_as_bridge(text).unwrap()
    }
    /// The other person performs an action; its id. `None` where the network has no such action.
    fn act(&self, act: UserAction<'_>) -> Option<String> {
        self.channel().act(act)
    }
    /// What people see in the channel now: author, kind and text.
    fn read(&self) -> Vec<String> {
        let shown = self.channel().shown().into_iter();
        shown.map(|(_, line)| line).collect()
    }
    /// The network becomes unreachable.
    async fn stop(&self) {
        self.channel().stop().await;
    }
    /// The network becomes reachable again.
    async fn restart(&self) {
        self.channel().restart().await.unwrap();
    }
    /// All open connections of the feed break.
    fn cut(&self) {
        self.channel().cut();
    }
    /// The network accepts the next message, and its response is lost.
    fn lose_response(&self) {
        self.channel().lose_response();
    }
    /// The next message is lost before it reaches the network.
    fn lose_request(&self) {
        self.channel().lose_request();
    }
    /// The account's token becomes invalid.
    fn sign_out(&self) {
        self.channel().revoke_token();
    }
    /// The account's token becomes valid again.
    fn sign_in(&self) {
        self.channel().accept_token();
    }
}

/// A URL, with the port of a proxy if there is one.
pub fn through(url: &str, proxy_address: Option<SocketAddr>) -> String {
    let mut url: url::Url = url.parse().unwrap();
    if let Some(proxy_address) = proxy_address {
        url.set_port(Some(proxy_address.port())).unwrap();
    }
    url.to_string()
}

/// A network of the simulators' register, in a configuration that only says where it is.
pub struct Registered {
    channel: Arc<dyn SimulatedChannel>,
    lines: &'static str,
    proxy_address: Option<SocketAddr>,
}

impl Registered {
    /// A network of this kind; `lines` are more lines of its section.
    pub async fn open(kind: &str, lines: &'static str) -> Self {
        let mut kinds = footbridge_simulators::KINDS.iter();
        let kind = kinds.find(|known| known.name == kind);
        let kind = kind.expect("the register has a simulator of this kind");
        Self {
            channel: (kind.open)().await.unwrap(),
            lines,
            proxy_address: None,
        }
    }
}

impl Network for Registered {
    fn channel(&self) -> &dyn SimulatedChannel {
        &*self.channel
    }
    fn silo(&self) -> Arc<dyn Silo> {
        let section = self
            .channel
            .section(&str::to_owned, &|url| through(url, self.proxy_address));
        let (kind, token) = (self.channel.kind().name, self.channel.token());
        let text = format!(
            "[store]\npath = \"data\"\n\n[matrix]\nhomeserver = \"http://127.0.0.1:1\"\n\
             user = \"@bridge:example.org\"\npassword_file = \"password.txt\"\n\n\
             [[silo]]\nname = \"{kind}\"\nkind = \"{kind}\"\ntoken = \"{token}\"\n{section}\n{}\n",
            self.lines
        );
        let config = Config::parse(Path::new("config.toml"), text.into_bytes());
        let config = config.unwrap_or_else(|report| panic!("{report}"));
        let http = footbridge_core::http_client::client().unwrap();
        config.silos[0].build(&http, Clock::start()).unwrap()
    }
    fn pass_through(&mut self, proxy_address: SocketAddr) {
        self.proxy_address = Some(proxy_address);
    }
}

/// A bridge with one portal and one silo.
pub struct TestBridge {
    home: tempfile::TempDir,
    pub silo: Arc<dyn Silo>,
    pub inbox: Inbox,
    signals: Signals,
    clock: Clock,
    pub portal: Portal,
    pub channel: Channel,
    more: Vec<Channel>,
    pub stop: CancellationToken,
    listening: JoinSet<Result<(), SiloError>>,
}

impl TestBridge {
    /// A new bridge that does not listen yet.
    pub async fn build(network: &dyn Network) -> Self {
        Self::build_in(tempfile::tempdir().unwrap(), network).await
    }

    /// A new bridge that listens.
    pub async fn start(network: &dyn Network) -> Self {
        let mut bridge = Self::build(network).await;
        bridge.listen().await;
        bridge
    }

    /// The same bridge after a crash.
    pub async fn rebuild(mut self, network: &dyn Network) -> Self {
        self.listening.shutdown().await;
        let Self {
            home,
            silo,
            inbox,
            listening,
            ..
        } = self;
        drop((silo, inbox, listening));
        Self::build_in(home, network).await
    }

    async fn build_in(home: tempfile::TempDir, network: &dyn Network) -> Self {
        let key = StoreKey::read_or_create(&home.path().join("footbridge.key")).unwrap();
        let directory = home.path().join("data");
        let opened = Instant::now();
        let store = loop {
            match Store::open(&directory, &key).await {
                Ok(store) => break store,
                // A thread of the crashed bridge may still be working.
                Err(footbridge_store::Error::Locked { .. }) if opened.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let clock = Clock::start();
        let silo = network.silo();
        let channel = silo.resolve(&network.channel().name()).await.unwrap();
        let spec = PortalSpec {
            room: "!room:example.org".to_owned(),
            silo: channel.place.network().to_owned(),
            channel: channel.name.clone(),
        };
        let room = Place::room("!room:example.org");
        let portal = store
            .open_portal(&spec, &room, &channel.place, clock.now())
            .await
            .unwrap();
        let signals = Signals::default();
        Self {
            home,
            silo,
            inbox: Inbox::new(store, signals.clone(), clock),
            signals,
            clock,
            portal,
            channel,
            more: Vec::new(),
            stop: CancellationToken::new(),
            listening: JoinSet::new(),
        }
    }

    /// Adds one more portal; returns its lane toward the room.
    pub async fn add_portal(&mut self, name: &str, room: &str) -> LaneId {
        let channel = self.silo.resolve(name).await.unwrap();
        let spec = PortalSpec {
            room: room.to_owned(),
            silo: channel.place.network().to_owned(),
            channel: channel.name.clone(),
        };
        let (store, now) = (self.store(), self.clock.now());
        let portal = store
            .open_portal(&spec, &Place::room(room), &channel.place, now)
            .await
            .unwrap();
        self.more.push(channel);
        LaneId {
            portal: portal.id,
            toward: Side::Matrix,
        }
    }

    /// Removes the portal of this lane. Other portals from [`TestBridge::add_portal`] stay.
    pub async fn remove_portal(&mut self, lane: LaneId) {
        let (store, now) = (self.store().clone(), self.clock.now());
        let gone = [lane.portal];
        let removed = store.remove_portals(&gone, None, |_| None, now);
        assert_eq!(removed.await.unwrap().portals, 1);
        let portals = store.portals().await.unwrap();
        let is_joined = |channel: &Channel| {
            let mut joined = portals.iter().filter(|portal| portal.active);
            joined.any(|portal| portal.channel == channel.place)
        };
        self.more.retain(is_joined);
    }

    /// Listens again, as the bridge does after a portal was added or removed.
    pub async fn restart_listening(&mut self) {
        self.stop.cancel();
        self.until_ended().await.unwrap();
        self.stop = CancellationToken::new();
        self.listen().await;
    }

    /// Listens, and waits until the feed is live.
    pub async fn listen(&mut self) {
        self.start_listening();
        self.until_live().await;
    }

    pub fn start_listening(&mut self) {
        let silo = self.silo.clone();
        let channels = [vec![self.channel.clone()], self.more.clone()].concat();
        let (inbox, stop) = (self.inbox.clone(), self.stop.clone());
        self.listening
            .spawn(async move { silo.listen(channels, inbox, stop).await });
    }

    pub async fn until_live(&self) {
        self.until("the feed is live", || self.silo.feed() == FeedState::Live)
            .await;
    }

    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The result of listening, which must end.
    pub async fn until_ended(&mut self) -> Result<(), SiloError> {
        let ended = tokio::time::timeout(PATIENCE, self.listening.join_next()).await;
        ended
            .expect("listening ends")
            .expect("listening had begun")
            .expect("the listener does not panic")
    }

    pub fn store(&self) -> &Store {
        self.inbox.store()
    }

    fn lane(&self, toward: Side) -> LaneId {
        LaneId {
            portal: self.portal.id,
            toward,
        }
    }

    /// The next `count` messages toward the room, in the order in which they would be delivered.
    pub async fn received(&self, count: usize) -> Vec<Message> {
        self.drain(self.lane(Side::Matrix), count).await
    }

    /// The same for another portal's lane, as texts.
    pub async fn received_in(&self, lane: LaneId, count: usize) -> Vec<String> {
        self.drain(lane, count).await.iter().map(text).collect()
    }

    async fn drain(&self, lane: LaneId, count: usize) -> Vec<Message> {
        let mut received = Vec::new();
        let began = Instant::now();
        while received.len() < count {
            let now = self.clock.now();
            if let QueueHead::Ready(delivery) = self.store().queue_head(lane, now).await.unwrap() {
                received.push(Message::from_bytes(&delivery.payload).unwrap());
                let done = self
                    .store()
                    .complete_step(delivery.id, None, None, true, now);
                done.await.unwrap();
                continue;
            }
            let arrived = received.len();
            assert!(
                began.elapsed() < PATIENCE,
                "{arrived} of {count} messages arrived"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        received
    }

    /// The texts of the next `count` messages.
    pub async fn received_texts(&self, count: usize) -> Vec<String> {
        self.received(count).await.iter().map(text).collect()
    }

    /// No more deliveries to the room are pending, now and a moment later.
    pub async fn receives_nothing_more(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let head = self
            .store()
            .queue_head(self.lane(Side::Matrix), self.clock.now())
            .await
            .unwrap();
        assert!(matches!(head, QueueHead::Empty), "something more arrived");
    }

    /// An event in the room is accepted for the channel.
    pub async fn room_event(&self, event: &str, action: Action) {
        self.room_event_by(event, "Ann", action).await;
    }

    /// The same by a sender with this name.
    pub async fn room_event_by(&self, event: &str, name: &str, action: Action) {
        let mut message = self.spoken(action);
        let by_nobody = matches!(
            message.action,
            Action::System { .. } | Action::Bridge { .. }
        );
        if by_nobody {
            message.sender = Sender::bridge();
        } else {
            name.clone_into(&mut message.sender.name);
        }
        let post = matches!(message.action, Action::Post { .. });
        let arrival = Arrival {
            place: self.portal.room.clone(),
            event_id: RemoteId::from(event),
            message: post.then(|| RemoteId::from(event)),
            thread: None,
            sent_at: self.clock.now(),
            payload: ArrivalContent::from(message),
        };
        let batch = Batch {
            arrivals: vec![arrival],
            ..Batch::default()
        };
        self.inbox.accept(batch).await.unwrap();
    }

    /// A message in the room.
    pub async fn room_message(&self, event: &str, words: &str) {
        self.room_event(event, post(words)).await;
    }

    /// Sends all pending deliveries to the channel.
    pub async fn deliver(&self) -> LaneEnd {
        let stop = CancellationToken::new();
        let lane = Lane {
            id: self.lane(Side::Silo),
            outlet: self.silo.clone(),
            sender: footbridge_core::lane::LaneSender::default(),
            source: self.silo.clone(),
            spool: footbridge_core::spool::Spool::new(std::env::temp_dir(), 1 << 20),
            store: self.store().clone(),
            signals: self.signals.clone(),
            clock: self.clock,
            limits: RetryLimits {
                attempts: 8,
                give_up: Duration::from_hours(24),
            },
            health: OutletHealth::default(),
            budget: Budget::windowed(),
            coalesce: false,
            people: footbridge_core::persons::People::default(),
            links: None,
            peer_bridges: footbridge_core::peer_bridges::PeerBridges::default(),
            filters: RelayFilters::only(
                self.lane(Side::Silo).portal,
                RelayFilter {
                    notices: true,
                    ..RelayFilter::default()
                },
            ),
        };
        let run = lane.run(stop.clone());
        tokio::pin!(run);
        let paid = async {
            let began = Instant::now();
            while self.lane_counters(Side::Silo).await.pending > 0 {
                assert!(
                    began.elapsed() < 3 * PATIENCE,
                    "a delivery is still pending"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            end = &mut run => return end.unwrap(),
            () = paid => stop.cancel(),
        }
        run.await.unwrap()
    }

    /// The counters of one lane.
    pub async fn lane_counters(&self, toward: Side) -> LaneCounters {
        let lane = self.lane(toward);
        let all = self.store().lane_counters().await.unwrap();
        let found = all.into_iter().find(|tally| tally.lane == lane);
        found.expect("each lane has a row")
    }

    /// The silo's result for one message, without the retries of a lane.
    pub async fn attempt(&self, words: &str) -> Result<Done, SendError> {
        let outgoing = Outgoing {
            key: "an attempt".to_owned(),
            to: self.channel.place.clone(),
            message: self.spoken(post(words)),
            copies: Vec::new(),
            permalink: None,
            late: false,
        };
        let Plan::Steps(steps) = self.silo.plan(&outgoing, self.clock.now()) else {
            panic!("a post has a plan of steps");
        };
        self.silo
            .perform(&outgoing.to, &outgoing.key, &steps[0])
            .await
    }

    fn spoken(&self, action: Action) -> Message {
        Message {
            sender: Sender {
                id: "@ann:example.org".to_owned(),
                name: "Ann".to_owned(),
                avatar: None,
            },
            sent_at: self.clock.now(),
            files: Vec::new(),
            action,
        }
    }
}

/// A plain message.
pub fn post(words: &str) -> Action {
    Action::Post {
        body: Body::plain(words),
        style: Style::Text,
        reply_to: None,
        thread: None,
    }
}

/// The text of a message.
pub fn text(message: &Message) -> String {
    match &message.action {
        Action::Post { body, .. } | Action::Edit { body, .. } => body.to_plain(),
        _ => String::new(),
    }
}

fn numbered(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("message {number}"))
        .collect()
}

pub async fn messages_arrive_once_and_in_order(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    let texts = numbered(30);
    for text in &texts {
        network.say(text);
    }
    assert_eq!(bridge.received_texts(30).await, texts);
    bridge.receives_nothing_more().await;
}

/// The bridge crashes at any moment while people talk: what the cursor has passed must have been stored.
pub async fn nothing_is_lost_in_crashes(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    let texts = numbered(120);
    for (index, text) in texts.iter().enumerate() {
        network.say(text);
        if index % 20 == 10 {
            tokio::time::sleep(Duration::from_millis(u64::try_from(index % 7).unwrap())).await;
            bridge = bridge.rebuild(network).await;
            bridge.start_listening();
        }
    }
    assert_eq!(bridge.received_texts(texts.len()).await, texts);
    bridge.receives_nothing_more().await;
}

/// More than a page of messages, many in the same second, while nobody listens.
pub async fn catch_up_leaves_nothing_out(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    network.say("before");
    assert_eq!(bridge.received_texts(1).await, ["before"]);
    bridge = bridge.rebuild(network).await;
    let texts = numbered(450);
    for text in &texts {
        network.say(text);
    }
    bridge.listen().await;
    network.say("after");
    let received = bridge.received_texts(texts.len() + 1).await;
    assert_eq!(received[..texts.len()], texts);
    assert_eq!(received.last().unwrap(), "after");
    bridge.receives_nothing_more().await;
}

/// The server that answers for the WebSocket redirects: the silo does not follow, with a token or without one.
pub async fn b16_a_redirect_takes_no_token_along(mut network: Registered) {
    let honest = network.channel().feed_url();
    let elsewhere = FaultyServer::in_front_of(&honest, vec![ConnectionBehavior::HalfOpen]).await;
    let mut to: url::Url = honest.parse().unwrap();
    to.set_scheme("http").unwrap();
    to.set_port(Some(elsewhere.address.port())).unwrap();
    let faulty_server = FaultyServer::in_front_of(
        &honest,
        vec![ConnectionBehavior::RedirectWebSocket(to.to_string())],
    )
    .await;
    network.pass_through(faulty_server.address);
    let mut bridge = TestBridge::build(&network).await;
    bridge.start_listening();
    let refused = || faulty_server.redirected.load(Ordering::SeqCst) > 1;
    bridge.until("it was redirected twice", refused).await;
    assert_eq!(elsewhere.connection_count.load(Ordering::SeqCst), 0);
    assert_ne!(bridge.silo.feed(), FeedState::Live);
    bridge.stop.cancel();
    bridge.until_ended().await.unwrap();
}

/// A cursor that an earlier version set to a future time hides nothing.
pub async fn b13_a_cursor_from_the_future_is_repaired(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    network.say("before");
    assert_eq!(bridge.received_texts(1).await, ["before"]);
    bridge = bridge.rebuild(network).await;
    // It has the channel's name, alone or with a word behind a slash.
    let place = &bridge.channel.place;
    let mut name = None;
    for candidate in [place.to_string(), format!("{place}/since")] {
        let stored = bridge.store().cursor(&candidate).await.unwrap();
        if name.is_none() && stored.is_some() {
            name = Some(candidate);
        }
    }
    let name = name.expect("a cursor that is a time");
    let ahead = bridge.clock.now().plus(Duration::from_hours(24));
    let batch = Batch {
        cursors: vec![(name.clone(), ahead.0.to_string())],
        ..Batch::default()
    };
    bridge.inbox.accept(batch).await.unwrap();
    network.say("during the absence");
    bridge.listen().await;
    assert_eq!(bridge.received_texts(1).await, ["during the absence"]);
    bridge.receives_nothing_more().await;
    let stored = bridge.store().cursor(&name).await.unwrap().unwrap();
    let now = bridge.clock.now().plus(Duration::from_secs(5));
    assert!(stored.parse::<i64>().unwrap() <= now.0, "{stored}");
}

/// Two rooms are linked to one channel: both receive everything once, live and after an absence.
pub async fn b11_two_portals_on_one_channel_both_hear_it(network: &dyn Network) {
    let mut bridge = TestBridge::build(network).await;
    let second = bridge
        .add_portal(&network.channel().name(), "!second:example.org")
        .await;
    bridge.listen().await;
    network.say("live");
    assert_eq!(bridge.received_texts(1).await, ["live"]);
    assert_eq!(bridge.received_in(second, 1).await, ["live"]);

    bridge = bridge.rebuild(network).await;
    let again = bridge
        .add_portal(&network.channel().name(), "!second:example.org")
        .await;
    assert_eq!(again, second, "the same portal");
    network.say("during the absence");
    bridge.listen().await;
    network.say("after");
    let said = ["during the absence", "after"];
    assert_eq!(bridge.received_texts(2).await, said);
    assert_eq!(bridge.received_in(second, 2).await, said);
    bridge.receives_nothing_more().await;
}

/// A broken connection to a channel with two portals has the same effect.
pub async fn b11_two_portals_on_one_channel_outlive_a_connection(network: &dyn Network) {
    let mut bridge = TestBridge::build(network).await;
    let second = bridge
        .add_portal(&network.channel().name(), "!second:example.org")
        .await;
    bridge.listen().await;
    network.cut();
    network.say("behind a new connection");
    for lane in [bridge.lane(Side::Matrix), second] {
        let received = bridge.received_in(lane, 1).await;
        assert_eq!(received, ["behind a new connection"]);
    }
    bridge.until_live().await;
}

/// A second portal is added while the first runs, and either is removed while the other stays.
pub async fn b11_portals_on_one_channel_come_and_go(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    network.say("before");
    assert_eq!(bridge.received_texts(1).await, ["before"]);
    let second = bridge
        .add_portal(&network.channel().name(), "!second:example.org")
        .await;
    bridge.restart_listening().await;
    network.say("to both");
    assert_eq!(bridge.received_texts(1).await, ["to both"]);
    // A message of one room appears in the channel once, and in the other room.
    bridge.room_message("$1", "from a room").await;
    bridge.deliver().await;
    let said = network.read();
    let said = said.iter().filter(|text| text.contains("from a room"));
    assert_eq!(said.count(), 1);
    assert_eq!(
        bridge.received_in(second, 2).await,
        ["to both", "from a room"]
    );
    bridge.receives_nothing_more().await;

    bridge.remove_portal(second).await;
    bridge.restart_listening().await;
    network.say("to the first");
    assert_eq!(bridge.received_texts(1).await, ["to the first"]);
    bridge.receives_nothing_more().await;
    let third = bridge
        .add_portal(&network.channel().name(), "!third:example.org")
        .await;
    bridge.remove_portal(bridge.lane(Side::Matrix)).await;
    bridge.restart_listening().await;
    network.say("to the third");
    assert_eq!(bridge.received_in(third, 1).await, ["to the third"]);
}

/// Two channels of one silo are linked to one room: each receives the other's messages, and one that is unlinked is
/// forgotten.
pub async fn b11_two_channels_in_one_room_hear_each_other(network: &dyn Network) {
    let mut bridge = TestBridge::build(network).await;
    let (name, other) = network.channel().add_channel();
    let lane = bridge.add_portal(&name, "!room:example.org").await;
    bridge.listen().await;
    network.say("here");
    assert_eq!(bridge.received_texts(1).await, ["here"]);
    network.channel().say_in(&other, "there");
    assert_eq!(bridge.received_in(lane, 1).await, ["there"]);
    let toward = Side::Silo;
    let beside = LaneId { toward, ..lane };
    assert_eq!(bridge.received_in(beside, 1).await, ["here"]);
    assert_eq!(bridge.received_in(bridge.lane(toward), 1).await, ["there"]);

    bridge.remove_portal(lane).await;
    bridge.restart_listening().await;
    assert_eq!(bridge.silo.waiting(), [""; 0]);
    network.channel().say_in(&other, "to nobody");
    network.say("still here");
    assert_eq!(bridge.received_texts(1).await, ["still here"]);
    bridge.receives_nothing_more().await;
}

pub async fn messages_from_before_the_link_are_not_relayed(network: &dyn Network) {
    network.say("history");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let bridge = TestBridge::start(network).await;
    network.say("news");
    assert_eq!(bridge.received_texts(1).await, ["news"]);
    bridge.receives_nothing_more().await;
}

pub async fn a_storm_of_broken_connections_loses_nothing(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    let texts = numbered(60);
    for (index, text) in texts.iter().enumerate() {
        network.say(text);
        tokio::time::sleep(Duration::from_millis(15)).await;
        if index % 12 == 5 {
            network.cut();
        }
    }
    assert_eq!(bridge.received_texts(texts.len()).await, texts);
    bridge.receives_nothing_more().await;
}

pub async fn an_outage_ends_by_itself(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    network.stop().await;
    network.say("into the void");
    bridge
        .until("the outage is noticed", || {
            bridge.silo.feed() != FeedState::Live
        })
        .await;
    network.restart().await;
    bridge.until_live().await;
    assert_eq!(bridge.received_texts(1).await, ["into the void"]);
}

pub async fn listening_stops_on_request(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    bridge.stop.cancel();
    bridge.until_ended().await.unwrap();

    bridge.stop = CancellationToken::new();
    bridge.listen().await;
    network.stop().await;
    bridge
        .until("the outage is noticed", || {
            bridge.silo.feed() != FeedState::Live
        })
        .await;
    bridge.stop.cancel();
    bridge.until_ended().await.unwrap();
}

/// The same message, once with its response lost and once with its request lost: sent once.
pub async fn a_step_of_unknown_outcome_is_made_once(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    bridge.room_message("$1", "first").await;
    network.lose_response();
    bridge.room_message("$2", "second").await;
    bridge.deliver().await;
    network.lose_request();
    bridge.room_message("$3", "third").await;
    bridge.room_message("$4", "third").await;
    bridge.deliver().await;
    let texts = network.read();
    let said: Vec<&str> = ["first", "second", "third", "third"].into();
    assert_eq!(
        texts.len(),
        said.len(),
        "{} messages were made",
        texts.len()
    );
    for (text, said) in texts.iter().zip(said) {
        assert!(text.ends_with(said) && text.contains("Ann"));
    }
    bridge.receives_nothing_more().await;
}

/// The bridge's own messages come back over the feed, before the response with their ids.
pub async fn echoes_are_held_until_they_are_known(network: &dyn Network) {
    network.channel().respond_after_feed();
    let bridge = TestBridge::start(network).await;
    for number in 0..5 {
        bridge
            .room_message(&format!("${number}"), "an echo to be")
            .await;
    }
    bridge.deliver().await;
    network.say("from somebody else");
    assert_eq!(bridge.received_texts(1).await, ["from somebody else"]);
    bridge.receives_nothing_more().await;
}

/// A message of the bridge's account whose response was lost is held; a message of somebody else after it is not lost.
pub async fn an_echo_without_an_answer_is_no_news(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    network.lose_response();
    bridge.room_message("$1", "an echo to be").await;
    bridge.deliver().await;
    network.say("from somebody else");
    assert_eq!(bridge.received_texts(1).await, ["from somebody else"]);
    bridge.receives_nothing_more().await;
    assert_eq!(network.read().len(), 2);
}

pub async fn messages_of_a_person_on_the_bridges_account_are_relayed(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    bridge.room_message("$1", "by the bridge").await;
    bridge.deliver().await;
    network.say_on_our_account("by hand");
    assert_eq!(bridge.received_texts(1).await, ["by hand"]);
    bridge.receives_nothing_more().await;
}

pub async fn a_dead_token_stops_the_whole_side(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    network.sign_out();
    bridge.room_message("$1", "too late").await;
    assert_eq!(bridge.deliver().await, LaneEnd::SignedOut);
    assert_eq!(
        bridge.lane_counters(Side::Silo).await.pending,
        1,
        "it is still pending"
    );
    assert_eq!(bridge.silo.feed(), FeedState::Down);
    network.cut();
    assert!(matches!(
        bridge.until_ended().await,
        Err(SiloError::SignedOut(_))
    ));
    assert!(matches!(
        bridge.silo.whoami().await,
        Err(SiloError::SignedOut(_))
    ));
}

pub async fn a_token_that_is_accepted_again_needs_no_new_bridge(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    network.sign_out();
    bridge.room_message("$1", "while it was off").await;
    assert_eq!(bridge.deliver().await, LaneEnd::SignedOut);
    network.cut();
    assert!(matches!(
        bridge.until_ended().await,
        Err(SiloError::SignedOut(_))
    ));
    assert!(bridge.silo.account().is_signed_out());
    network.sign_in();
    // The bridge checks the account before it lets any task send or listen.
    bridge.silo.whoami().await.unwrap();
    assert!(bridge.silo.account().is_signed_out());
    bridge.silo.account().note_signed_in();
    bridge.listen().await;
    network.say("back again");
    // After the notices that the room got meanwhile.
    while text(&bridge.received(1).await[0]) != "back again" {}
    assert!(bridge.attempt("we as well").await.is_ok());
    bridge.stop.cancel();
    bridge.until_ended().await.unwrap();
}

pub async fn a_ban_closes_the_channel_only(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    network.channel().ban();
    assert!(matches!(
        bridge.attempt("too late").await,
        Err(SendError::Closed { .. })
    ));
    network.cut();
    bridge
        .until("the ban is shown", || bridge.silo.feed() == FeedState::Down)
        .await;
    assert!(bridge.silo.whoami().await.is_ok());
}

pub async fn an_unknown_channel_is_no_outage(network: &dyn Network) {
    let silo = network.silo();
    let missing = silo.resolve("no/such-channel").await;
    assert!(matches!(missing, Err(SiloError::NoChannel(_))));
    network.stop().await;
    assert!(matches!(
        silo.resolve("no/such-channel").await,
        Err(SiloError::Unavailable(_))
    ));
}

/// Runs the functions of these groups as tests on a network of the register.
macro_rules! contract {
    ($($test:ident = $kind:literal $(with $lines:literal)?: $($group:ident)+;)+) => {
        $(mod $test {
            async fn network() -> super::Registered {
                super::Registered::open($kind, concat!($($lines)?)).await
            }
            $(contract!(@ $group);)+
        })+
    };
    (@ every_silo) => {
        contract!(@
            messages_arrive_once_and_in_order,
            catch_up_leaves_nothing_out,
            messages_from_before_the_link_are_not_relayed,
            b11_two_portals_on_one_channel_both_hear_it,
            b11_portals_on_one_channel_come_and_go,
            b11_two_channels_in_one_room_hear_each_other,
            an_outage_ends_by_itself,
            listening_stops_on_request,
            echoes_are_held_until_they_are_known,
            a_dead_token_stops_the_whole_side,
            a_token_that_is_accepted_again_needs_no_new_bridge,
        );
    };
    // A cursor of a channel is a time.
    (@ time_cursor) => {
        contract!(@ b13_a_cursor_from_the_future_is_repaired,);
    };
    // The feed is a WebSocket.
    (@ websocket) => {
        #[tokio::test]
        async fn b16_a_redirect_takes_no_token_along() {
            super::b16_a_redirect_takes_no_token_along(network().await).await;
        }
    };
    // The silo's history is whole, and can be read again.
    (@ history) => {
        contract!(@
            nothing_is_lost_in_crashes,
            b11_two_portals_on_one_channel_outlive_a_connection,
            a_storm_of_broken_connections_loses_nothing,
        );
    };
    // A message of unknown outcome can be found.
    (@ reconciliation) => {
        contract!(@
            a_step_of_unknown_outcome_is_made_once,
            an_echo_without_an_answer_is_no_news,
        );
    };
    // The account is a member of channels that exist, and receives its own messages.
    (@ membership) => {
        contract!(@
            messages_of_a_person_on_the_bridges_account_are_relayed,
            a_ban_closes_the_channel_only,
            an_unknown_channel_is_no_outage,
        );
    };
    (@ $($name:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $name() {
            super::$name(&network().await).await;
        })+
    };
}

contract! {
    gitter = "gitter": every_silo time_cursor websocket history reconciliation membership;
    gitter_stream = "gitter" with "feed = \"stream\"": every_silo time_cursor history reconciliation membership;
    matterbridge = "matterbridge": every_silo time_cursor websocket;
    mattermost = "mattermost": every_silo time_cursor websocket history reconciliation membership;
}

/// A kind without a line above would be tested by nothing.
#[test]
fn every_silo_has_a_simulator_and_a_line_of_the_contract() {
    let source = include_str!("silo_contract.rs");
    for kind in footbridge_silo::KINDS {
        let word = kind.word;
        let mut simulators = footbridge_simulators::KINDS.iter();
        assert!(simulators.any(|simulator| simulator.name == word), "{word}");
        assert!(
            source.contains(&format!("= \"{word}\": every_silo")),
            "{word}"
        );
    }
}
