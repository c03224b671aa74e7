//! What every silo must do, whatever it talks to. A silo's own test file says how to control its network and calls the
//! functions here. Store, inbox and lanes are the real ones.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

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
use footbridge_store::{
    LaneCounters, LaneId, Place, Portal, PortalSpec, QueueHead, RemoteId, Side, Store, StoreKey,
};
use footbridge_testbed::multi_silo::UserAction;

use crate::faulty_server::{ConnectionBehavior, FaultyServer};
use async_trait::async_trait;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long anything may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A network that a test controls.
#[async_trait]
pub trait Network: Send + Sync {
    /// A new silo on the bridge's account.
    fn silo(&self) -> Arc<dyn Silo>;
    /// The channel's name in the configuration.
    fn channel(&self) -> String;
    /// From now on the silo reaches the network through this address.
    fn pass_through(&mut self, proxy_address: std::net::SocketAddr);
    /// The real URL of the network's WebSocket.
    fn socket_url(&self) -> String;
    /// The suffix that, after a place, names the cursor before which nothing is read.
    fn watermark(&self) -> &'static str {
        ""
    }
    /// Creates another channel in which the bridge's account and the other person are: its name in the configuration
    /// and its id.
    fn open_another(&self) -> (String, String);
    /// The other person sends a message in the channel with this id.
    fn say_in(&self, channel: &str, text: &str);
    /// Another person sends a message; its id.
    fn say(&self, text: &str) -> String;
    /// A person sends a message with the bridge's own account.
    fn say_on_our_account(&self, text: &str) -> String;
    /// Another person performs an action; its id. `None` where the network has no such action.
    fn act(&self, act: UserAction<'_>) -> Option<String>;
    /// All texts of the channel, in the order in which they were accepted.
    fn texts(&self) -> Vec<String>;
    /// What people see in the channel now: author, kind and text.
    fn read(&self) -> Vec<String>;
    /// The network becomes unreachable.
    async fn stop(&self);
    /// The network becomes reachable again.
    async fn restart(&self);
    /// All open connections break.
    fn cut(&self);
    /// The network accepts the next message, and its response is lost.
    fn lose_answer(&self);
    /// The next message is lost before it reaches the network.
    fn lose_request(&self);
    /// Events arrive before the responses to the requests that caused them.
    fn echo_first(&self);
    /// The account's token becomes invalid.
    fn sign_out(&self);
    /// The account's token becomes valid again.
    fn sign_in(&self);
    /// The account is banned from the channel.
    fn ban(&self);
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
        let channel = silo.resolve(&network.channel()).await.unwrap();
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
    pub async fn also(&mut self, name: &str, room: &str) -> LaneId {
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

    /// Removes the portal of this lane. Other portals from [`TestBridge::also`] stay.
    pub async fn without(&mut self, lane: LaneId) {
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
    pub async fn listen_anew(&mut self) {
        self.stop.cancel();
        self.ended().await.unwrap();
        self.stop = CancellationToken::new();
        self.listen().await;
    }

    /// Listens, and waits until the feed is live.
    pub async fn listen(&mut self) {
        self.begin_to_listen();
        self.live().await;
    }

    pub fn begin_to_listen(&mut self) {
        let silo = self.silo.clone();
        let channels = [vec![self.channel.clone()], self.more.clone()].concat();
        let (inbox, stop) = (self.inbox.clone(), self.stop.clone());
        self.listening
            .spawn(async move { silo.listen(channels, inbox, stop).await });
    }

    pub async fn live(&self) {
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
    pub async fn ended(&mut self) -> Result<(), SiloError> {
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
    pub async fn heard(&self, count: usize) -> Vec<Message> {
        self.drain(self.lane(Side::Matrix), count).await
    }

    /// The same for another portal's lane, as texts.
    pub async fn heard_in(&self, lane: LaneId, count: usize) -> Vec<String> {
        self.drain(lane, count).await.iter().map(text).collect()
    }

    async fn drain(&self, lane: LaneId, count: usize) -> Vec<Message> {
        let mut heard = Vec::new();
        let began = Instant::now();
        while heard.len() < count {
            let now = self.clock.now();
            if let QueueHead::Ready(delivery) = self.store().queue_head(lane, now).await.unwrap() {
                heard.push(Message::from_bytes(&delivery.payload).unwrap());
                let done = self
                    .store()
                    .complete_step(delivery.id, None, None, true, now);
                done.await.unwrap();
                continue;
            }
            let arrived = heard.len();
            assert!(
                began.elapsed() < PATIENCE,
                "{arrived} of {count} messages arrived"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        heard
    }

    /// The texts of the next `count` messages.
    pub async fn heard_texts(&self, count: usize) -> Vec<String> {
        self.heard(count).await.iter().map(text).collect()
    }

    /// No more deliveries to the room are pending, now and a moment later.
    pub async fn hears_nothing_more(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let head = self
            .store()
            .queue_head(self.lane(Side::Matrix), self.clock.now())
            .await
            .unwrap();
        assert!(matches!(head, QueueHead::Empty), "something more arrived");
    }

    /// An event in the room is accepted for the channel.
    pub async fn happens(&self, event: &str, action: Action) {
        self.happens_by(event, "Ann", action).await;
    }

    /// The same by a sender with this name.
    pub async fn happens_by(&self, event: &str, name: &str, action: Action) {
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
    pub async fn said(&self, event: &str, words: &str) {
        self.happens(event, post(words)).await;
    }

    /// Sends all pending deliveries to the channel.
    pub async fn deliver(&self) -> LaneEnd {
        let stop = CancellationToken::new();
        let lane = Lane {
            id: self.lane(Side::Silo),
            outlet: self.silo.clone(),
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
            while self.tally(Side::Silo).await.pending > 0 {
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
    pub async fn tally(&self, toward: Side) -> LaneCounters {
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
        let Plan::Steps(steps) = self.silo.plan(&outgoing, self.clock.now())? else {
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

pub async fn what_is_said_arrives_once_and_in_order(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    let texts = numbered(30);
    for text in &texts {
        network.say(text);
    }
    assert_eq!(bridge.heard_texts(30).await, texts);
    bridge.hears_nothing_more().await;
}

/// The bridge crashes at any moment while people talk: what the cursor has passed must have been stored.
pub async fn nothing_is_lost_when_the_house_falls_down(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    let texts = numbered(120);
    for (index, text) in texts.iter().enumerate() {
        network.say(text);
        if index % 20 == 10 {
            tokio::time::sleep(Duration::from_millis(u64::try_from(index % 7).unwrap())).await;
            bridge = bridge.rebuild(network).await;
            bridge.begin_to_listen();
        }
    }
    assert_eq!(bridge.heard_texts(texts.len()).await, texts);
    bridge.hears_nothing_more().await;
}

/// More than a page of messages, many in the same second, while nobody listens.
pub async fn catch_up_leaves_nothing_out(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    network.say("before");
    assert_eq!(bridge.heard_texts(1).await, ["before"]);
    bridge = bridge.rebuild(network).await;
    let texts = numbered(450);
    for text in &texts {
        network.say(text);
    }
    bridge.listen().await;
    network.say("after");
    let heard = bridge.heard_texts(texts.len() + 1).await;
    assert_eq!(heard[..texts.len()], texts);
    assert_eq!(heard.last().unwrap(), "after");
    bridge.hears_nothing_more().await;
}

/// The server that answers for the WebSocket redirects: the silo does not follow, with a token or without one.
pub async fn b16_a_redirect_takes_no_token_along(network: &mut dyn Network) {
    let honest = network.socket_url();
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
    let mut bridge = TestBridge::build(network).await;
    bridge.begin_to_listen();
    let refused = || faulty_server.redirected.load(Ordering::SeqCst) > 1;
    bridge.until("it was redirected twice", refused).await;
    assert_eq!(elsewhere.connection_count.load(Ordering::SeqCst), 0);
    assert_ne!(bridge.silo.feed(), FeedState::Live);
    bridge.stop.cancel();
    bridge.ended().await.unwrap();
}

/// A cursor that an earlier version set to a future time hides nothing.
pub async fn b13_a_cursor_from_the_future_is_repaired(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    network.say("before");
    assert_eq!(bridge.heard_texts(1).await, ["before"]);
    bridge = bridge.rebuild(network).await;
    let name = format!("{}{}", bridge.channel.place, network.watermark());
    let ahead = bridge.clock.now().plus(Duration::from_hours(24));
    let batch = Batch {
        cursors: vec![(name.clone(), ahead.0.to_string())],
        ..Batch::default()
    };
    bridge.inbox.accept(batch).await.unwrap();
    network.say("during the absence");
    bridge.listen().await;
    assert_eq!(bridge.heard_texts(1).await, ["during the absence"]);
    bridge.hears_nothing_more().await;
    let stored = bridge.store().cursor(&name).await.unwrap().unwrap();
    let now = bridge.clock.now().plus(Duration::from_secs(5));
    assert!(stored.parse::<i64>().unwrap() <= now.0, "{stored}");
}

/// Two rooms are linked to one channel: both receive everything once, live and after an absence.
pub async fn b11_two_portals_on_one_channel_both_hear_it(network: &dyn Network) {
    let mut bridge = TestBridge::build(network).await;
    let second = bridge.also(&network.channel(), "!second:example.org").await;
    bridge.listen().await;
    network.say("live");
    assert_eq!(bridge.heard_texts(1).await, ["live"]);
    assert_eq!(bridge.heard_in(second, 1).await, ["live"]);

    bridge = bridge.rebuild(network).await;
    let again = bridge.also(&network.channel(), "!second:example.org").await;
    assert_eq!(again, second, "the same portal");
    network.say("during the absence");
    bridge.listen().await;
    network.say("after");
    let said = ["during the absence", "after"];
    assert_eq!(bridge.heard_texts(2).await, said);
    assert_eq!(bridge.heard_in(second, 2).await, said);
    bridge.hears_nothing_more().await;
}

/// A broken connection to a channel with two portals has the same effect.
pub async fn b11_two_portals_on_one_channel_outlive_a_connection(network: &dyn Network) {
    let mut bridge = TestBridge::build(network).await;
    let second = bridge.also(&network.channel(), "!second:example.org").await;
    bridge.listen().await;
    network.cut();
    network.say("behind a new connection");
    for lane in [bridge.lane(Side::Matrix), second] {
        let heard = bridge.heard_in(lane, 1).await;
        assert_eq!(heard, ["behind a new connection"]);
    }
    bridge.live().await;
}

/// A second portal is added while the first runs, and either is removed while the other stays.
pub async fn b11_portals_on_one_channel_come_and_go(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    network.say("before");
    assert_eq!(bridge.heard_texts(1).await, ["before"]);
    let second = bridge.also(&network.channel(), "!second:example.org").await;
    bridge.listen_anew().await;
    network.say("to both");
    assert_eq!(bridge.heard_texts(1).await, ["to both"]);
    // A message of one room appears in the channel once, and in the other room.
    bridge.said("$1", "from a room").await;
    bridge.deliver().await;
    let said = network.texts();
    let said = said.iter().filter(|text| text.contains("from a room"));
    assert_eq!(said.count(), 1);
    assert_eq!(bridge.heard_in(second, 2).await, ["to both", "from a room"]);
    bridge.hears_nothing_more().await;

    bridge.without(second).await;
    bridge.listen_anew().await;
    network.say("to the first");
    assert_eq!(bridge.heard_texts(1).await, ["to the first"]);
    bridge.hears_nothing_more().await;
    let third = bridge.also(&network.channel(), "!third:example.org").await;
    bridge.without(bridge.lane(Side::Matrix)).await;
    bridge.listen_anew().await;
    network.say("to the third");
    assert_eq!(bridge.heard_in(third, 1).await, ["to the third"]);
}

/// Two channels of one silo are linked to one room: each receives the other's messages, and one that is unlinked is
/// forgotten.
pub async fn b11_two_channels_in_one_room_hear_each_other(network: &dyn Network) {
    let mut bridge = TestBridge::build(network).await;
    let (name, other) = network.open_another();
    let lane = bridge.also(&name, "!room:example.org").await;
    bridge.listen().await;
    network.say("here");
    assert_eq!(bridge.heard_texts(1).await, ["here"]);
    network.say_in(&other, "there");
    assert_eq!(bridge.heard_in(lane, 1).await, ["there"]);
    let toward = Side::Silo;
    let beside = LaneId { toward, ..lane };
    assert_eq!(bridge.heard_in(beside, 1).await, ["here"]);
    assert_eq!(bridge.heard_in(bridge.lane(toward), 1).await, ["there"]);

    bridge.without(lane).await;
    bridge.listen_anew().await;
    assert_eq!(bridge.silo.waiting(), [""; 0]);
    network.say_in(&other, "to nobody");
    network.say("still here");
    assert_eq!(bridge.heard_texts(1).await, ["still here"]);
    bridge.hears_nothing_more().await;
}

pub async fn what_was_said_before_the_channel_was_linked_is_not_relayed(network: &dyn Network) {
    network.say("history");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let bridge = TestBridge::start(network).await;
    network.say("news");
    assert_eq!(bridge.heard_texts(1).await, ["news"]);
    bridge.hears_nothing_more().await;
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
    assert_eq!(bridge.heard_texts(texts.len()).await, texts);
    bridge.hears_nothing_more().await;
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
    bridge.live().await;
    assert_eq!(bridge.heard_texts(1).await, ["into the void"]);
}

pub async fn listening_stops_on_request(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    bridge.stop.cancel();
    bridge.ended().await.unwrap();

    bridge.stop = CancellationToken::new();
    bridge.listen().await;
    network.stop().await;
    bridge
        .until("the outage is noticed", || {
            bridge.silo.feed() != FeedState::Live
        })
        .await;
    bridge.stop.cancel();
    bridge.ended().await.unwrap();
}

/// The same message, once with its response lost and once with its request lost: sent once.
pub async fn a_step_of_unknown_outcome_is_made_once(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    bridge.said("$1", "first").await;
    network.lose_answer();
    bridge.said("$2", "second").await;
    bridge.deliver().await;
    network.lose_request();
    bridge.said("$3", "third").await;
    bridge.said("$4", "third").await;
    bridge.deliver().await;
    let texts = network.texts();
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
    bridge.hears_nothing_more().await;
}

/// The bridge's own messages come back over the feed, before the response with their ids.
pub async fn echoes_are_held_until_they_are_known(network: &dyn Network) {
    network.echo_first();
    let bridge = TestBridge::start(network).await;
    for number in 0..5 {
        bridge.said(&format!("${number}"), "an echo to be").await;
    }
    bridge.deliver().await;
    network.say("from somebody else");
    assert_eq!(bridge.heard_texts(1).await, ["from somebody else"]);
    bridge.hears_nothing_more().await;
}

/// A message of the bridge's account whose response was lost is held; a message of somebody else after it is not lost.
pub async fn an_echo_without_an_answer_is_no_news(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    network.lose_answer();
    bridge.said("$1", "an echo to be").await;
    bridge.deliver().await;
    network.say("from somebody else");
    assert_eq!(bridge.heard_texts(1).await, ["from somebody else"]);
    bridge.hears_nothing_more().await;
    assert_eq!(network.texts().len(), 2);
}

pub async fn messages_of_a_person_on_the_bridges_account_are_relayed(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    bridge.said("$1", "by the bridge").await;
    bridge.deliver().await;
    network.say_on_our_account("by hand");
    assert_eq!(bridge.heard_texts(1).await, ["by hand"]);
    bridge.hears_nothing_more().await;
}

pub async fn a_dead_token_stops_the_whole_side(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    network.sign_out();
    bridge.said("$1", "too late").await;
    assert_eq!(bridge.deliver().await, LaneEnd::SignedOut);
    assert_eq!(
        bridge.tally(Side::Silo).await.pending,
        1,
        "it is still pending"
    );
    assert_eq!(bridge.silo.feed(), FeedState::Down);
    network.cut();
    assert!(matches!(bridge.ended().await, Err(SiloError::SignedOut(_))));
    assert!(matches!(
        bridge.silo.whoami().await,
        Err(SiloError::SignedOut(_))
    ));
}

pub async fn a_token_that_is_accepted_again_needs_no_new_bridge(network: &dyn Network) {
    let mut bridge = TestBridge::start(network).await;
    network.sign_out();
    bridge.said("$1", "while it was off").await;
    assert_eq!(bridge.deliver().await, LaneEnd::SignedOut);
    network.cut();
    assert!(matches!(bridge.ended().await, Err(SiloError::SignedOut(_))));
    assert!(bridge.silo.account().is_signed_out());
    network.sign_in();
    // The bridge checks the account before it lets any task send or listen.
    bridge.silo.whoami().await.unwrap();
    assert!(bridge.silo.account().is_signed_out());
    bridge.silo.account().note_signed_in();
    bridge.listen().await;
    network.say("back again");
    // After the notices that the room got meanwhile.
    while text(&bridge.heard(1).await[0]) != "back again" {}
    assert!(bridge.attempt("we as well").await.is_ok());
    bridge.stop.cancel();
    bridge.ended().await.unwrap();
}

pub async fn a_ban_closes_the_channel_only(network: &dyn Network) {
    let bridge = TestBridge::start(network).await;
    network.ban();
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
