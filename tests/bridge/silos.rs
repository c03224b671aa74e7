//! Several silos in one bridge (reliability: D22, F30, F44): each with its own account and server, one store, one
//! inbox. A failure of one silo does not affect the others.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use footbridge_core::{
    budget::Budget,
    capabilities::{
        Attribution, Capabilities, Deletes, EditHistory, Edits, Files, Idempotency, Limits,
        Reactions, Replies, TextLimit,
    },
    clock::Clock,
    inbox::{Arrival, ArrivalContent, Batch, Inbox, Signals},
    lane::{Lane, LaneEnd, OutletHealth, RelayFilters, RetryLimits},
    message::{Action, Message, Sender, Style},
    outlet::{Content, Done, Outgoing, Outlet, Plan, SendError, Step},
    render::Html,
    secret::Secret,
    text::Body,
};
use footbridge_silo::{
    Channel, FeedState, Silo, SiloError,
    gitter::{Feed, Gitter, GitterConfig},
};
use footbridge_simulators::gitter::{Fault, GitterSim, Room, RoomOptions, User};
use footbridge_store::{
    Copy, LaneCounters, LaneId, Millis, Place, Portal, PortalSpec, RemoteId, Side, SkipRule, Store,
    StoreKey,
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::gitter::fast;

/// Rooms that record everything.
#[derive(Default)]
struct Rooms(Mutex<Vec<(Place, String)>>);

impl Rooms {
    fn texts(&self, room: &Place) -> Vec<String> {
        let all = self.0.lock().unwrap();
        let here = all.iter().filter(|(place, _)| place == room);
        here.map(|(_, text)| text.clone()).collect()
    }
}

#[async_trait]
impl Outlet for Rooms {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            renderer: &Html,
            limits: Limits::all(TextLimit::NONE),
            empty_messages: false,
            attribution: Attribution::Inline,
            replies: Replies::Native,
            threads: true,
            edits: Edits::Limited { within: None },
            edit_history: EditHistory::Replaced,
            deletes: Deletes::Native,
            reactions: Reactions::None,
            files: Files::Named,
            bundles: false,
            idempotency: Idempotency::ByKey,
        }
    }

    fn plan(&self, outgoing: &Outgoing, _now: Millis) -> Plan {
        let Action::Post { body, .. } = &outgoing.message.action else {
            return Plan::Skip(SkipRule::Empty);
        };
        Plan::Steps(vec![Step::Post {
            content: Content {
                mentions: Vec::new(),
                author: None,
                text: body.to_plain(),
                html: None,
                style: Style::Text,
            },
            thread: None,
            reply_to: None,
        }])
    }

    async fn perform(&self, to: &Place, _key: &str, step: &Step) -> Result<Done, SendError> {
        let Step::Post { content, .. } = step else {
            panic!("only posts are planned");
        };
        let mut all = self.0.lock().unwrap();
        all.push((to.clone(), content.text.clone()));
        Ok(Done::Created(Copy {
            remote: RemoteId(format!("$copy{}", all.len())),
            thread: None,
            sent_at: Millis(1),
            file: None,
        }))
    }

    fn has_answered_since(&self, _since: Millis) -> bool {
        true
    }
}

/// One silo and its portals.
struct TestSilo {
    sim: GitterSim,
    bridge: User,
    bob: User,
    silo: Arc<dyn Silo>,
    linked: Vec<(Room, Portal)>,
}

struct SiloScenario {
    _home: tempfile::TempDir,
    store: Store,
    inbox: Inbox,
    rooms: Arc<Rooms>,
    test_silos: Vec<TestSilo>,
    listening: JoinSet<(usize, Result<(), SiloError>)>,
    lanes: JoinSet<(LaneId, LaneEnd)>,
    stop: CancellationToken,
}

impl SiloScenario {
    /// This many silos with this many portals each; everything runs.
    async fn new(silos: usize, portals: usize, feed: Feed) -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = StoreKey::read_or_create(&home.path().join("key")).unwrap();
        let store = Store::open(&home.path().join("data"), &key).await.unwrap();
        let (signals, clock) = (Signals::default(), Clock::start());
        let inbox = Inbox::new(store.clone(), signals.clone(), clock);
        // One HTTP client for all, as in the bridge.
        let http = footbridge_core::http_client::client().unwrap();
        let mut scene = Self {
            _home: home,
            store,
            inbox,
            rooms: Arc::default(),
            test_silos: Vec::new(),
            listening: JoinSet::new(),
            lanes: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        for number in 0..silos {
            let test_silo = scene.build(number, portals, feed, &http).await;
            for (_, portal) in &test_silo.linked {
                for toward in [Side::Matrix, Side::Silo] {
                    let outlet: Arc<dyn Outlet> = match toward {
                        Side::Matrix => scene.rooms.clone(),
                        Side::Silo => test_silo.silo.clone(),
                    };
                    let id = LaneId {
                        portal: portal.id,
                        toward,
                    };
                    let lane = Lane {
                        id,
                        outlet: outlet.clone(),
                        sender: footbridge_core::lane::LaneSender::default(),
                        source: outlet,
                        spool: footbridge_core::spool::Spool::new(std::env::temp_dir(), 1 << 20),
                        store: scene.store.clone(),
                        signals: signals.clone(),
                        clock,
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
                        filters: RelayFilters::default(),
                    };
                    let stop = scene.stop.clone();
                    scene
                        .lanes
                        .spawn(async move { (id, lane.run(stop).await.unwrap()) });
                }
            }
            scene.test_silos.push(test_silo);
        }
        for index in 0..silos {
            scene.live(index).await;
        }
        scene
    }

    async fn build(
        &mut self,
        number: usize,
        portals: usize,
        feed: Feed,
        http: &reqwest::Client,
    ) -> TestSilo {
        let sim = GitterSim::start(fast()).await.unwrap();
        let (bridge, bob) = (sim.add_user("bridge", "Bridge"), sim.add_user("bob", "Bob"));
        let name = format!("silo{number}");
        let config = GitterConfig {
            media_hosts: Vec::new(),
            name: name.clone(),
            token: Secret::new(bridge.token.clone()),
            api: sim.api_url().parse().unwrap(),
            stream: sim.stream_url().parse().unwrap(),
            realtime: sim.realtime_url().parse().unwrap(),
            feed,
            requests_per_minute: 90_000,
            settle: Duration::from_secs(2),
            overlap: Duration::from_secs(10),
            audit: Duration::from_mins(5),
        };
        let clock = self.inbox.clock();
        let silo: Arc<dyn Silo> = Arc::new(Gitter::new(config, http.clone(), clock).unwrap());
        let mut linked = Vec::new();
        let mut channels = Vec::new();
        for portal_index in 0..portals {
            let members = RoomOptions {
                members: vec![bridge.id.clone(), bob.id.clone()],
                ..RoomOptions::default()
            };
            let room = sim.add_room(&format!("org/room{portal_index}"), members);
            let channel: Channel = silo.resolve(&room.uri).await.unwrap();
            let spec = PortalSpec {
                room: format!("!{number}-{portal_index}"),
                silo: name.clone(),
                channel: room.uri.clone(),
            };
            let place = Place::room(&spec.room);
            let portal = self
                .store
                .open_portal(&spec, &place, &channel.place, clock.now())
                .await
                .unwrap();
            linked.push((room, portal));
            channels.push(channel);
        }
        let (listener, inbox, stop) = (silo.clone(), self.inbox.clone(), self.stop.clone());
        self.listening
            .spawn(async move { (number, listener.listen(channels, inbox, stop).await) });
        TestSilo {
            sim,
            bridge,
            bob,
            silo,
            linked,
        }
    }

    async fn live(&self, silo: usize) {
        let silo = &self.test_silos[silo].silo;
        until("the feed is live", || silo.feed() == FeedState::Live).await;
    }

    /// A message in a room.
    async fn say_in_room(&self, silo: usize, portal_index: usize, event: &str, words: &str) {
        let message = Message {
            sender: Sender {
                id: "@ann:example.org".to_owned(),
                name: "Ann".to_owned(),
                avatar: None,
            },
            sent_at: self.inbox.clock().now(),
            files: Vec::new(),
            action: Action::Post {
                body: Body::plain(words),
                style: Style::Text,
                reply_to: None,
                thread: None,
            },
        };
        let arrival = Arrival {
            place: self.test_silos[silo].linked[portal_index].1.room.clone(),
            event_id: RemoteId::from(event),
            message: Some(RemoteId::from(event)),
            thread: None,
            sent_at: message.sent_at,
            payload: ArrivalContent::from(message),
        };
        let batch = Batch {
            arrivals: vec![arrival],
            ..Batch::default()
        };
        self.inbox.accept(batch).await.unwrap();
    }

    /// Sends a message on both sides of a portal and waits until each is on the other side.
    async fn relays(&self, silo: usize, portal_index: usize, words: &str) -> Duration {
        let test_silo = &self.test_silos[silo];
        let (channel, portal) = &test_silo.linked[portal_index];
        let began = Instant::now();
        let event = format!("$from-room-{silo}-{portal_index}-{words}");
        self.say_in_room(
            silo,
            portal_index,
            &event,
            &format!("from the room: {words}"),
        )
        .await;
        let said = format!("from the channel: {words}");
        test_silo.sim.say(&channel.id, &test_silo.bob.id, &said);
        until("both have crossed", || {
            let there = test_silo.sim.messages(&channel.id);
            there
                .iter()
                .any(|message| message.text.ends_with(&format!("from the room: {words}")))
                && self.rooms.texts(&portal.room).contains(&said)
        })
        .await;
        began.elapsed()
    }

    async fn tally(&self, silo: usize, portal_index: usize, toward: Side) -> LaneCounters {
        let portal = self.test_silos[silo].linked[portal_index].1.id;
        let lane = LaneId { portal, toward };
        let all = self.store.lane_counters().await.unwrap();
        all.into_iter().find(|tally| tally.lane == lane).unwrap()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "waited in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn f44_a_silo_that_never_answers_holds_up_no_other() {
    let scene = SiloScenario::new(2, 5, Feed::Realtime).await;
    let never = Fault::Delay { ms: 3_600_000 };
    scene.test_silos[0].sim.faults().sometimes("*", never, 1.0);
    for portal_index in 0..5 {
        for number in 0..20 {
            let event = format!("$stuck-{portal_index}-{number}");
            scene.say_in_room(0, portal_index, &event, "stuck").await;
        }
    }
    // Twice the time after which every request to the stuck silo has timed out once.
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut count = 0;
    while began.elapsed() < Duration::from_secs(5) {
        let took = scene.relays(1, count % 5, &format!("number {count}")).await;
        slowest = slowest.max(took);
        count += 1;
    }
    assert!(
        slowest < Duration::from_secs(3),
        "the slowest of {count} took {slowest:?}"
    );
    for portal_index in 0..5 {
        assert_eq!(scene.tally(0, portal_index, Side::Silo).await.pending, 20);
        assert_eq!(scene.tally(1, portal_index, Side::Silo).await.pending, 0);
    }
}

#[tokio::test]
async fn f44_a_channel_that_hangs_holds_up_no_other_of_its_silo() {
    let scene = SiloScenario::new(1, 6, Feed::Stream).await;
    let slow = Fault::SlowAnswer { ms: 8_000 };
    let sim = &scene.test_silos[0].sim;
    sim.faults().next("POST /rooms/:id/chatMessages", slow, 1);
    scene.say_in_room(0, 0, "$slow", "slow").await;
    until("it is under way", || {
        let calls = sim.calls();
        calls.get("POST /rooms/:id/chatMessages") == Some(&1)
    })
    .await;
    for portal_index in 1..6 {
        let took = scene.relays(0, portal_index, "meanwhile").await;
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    assert_eq!(scene.tally(0, 0, Side::Silo).await.pending, 1);
}

#[tokio::test]
async fn d22_a_dead_token_stops_its_silo_only_and_keeps_its_queue() {
    for feed in [Feed::Realtime, Feed::Stream] {
        let mut scene = SiloScenario::new(2, 3, feed).await;
        let first = &scene.test_silos[0];
        first.sim.revoke_token(&first.bridge.token);
        let before: u64 = first.sim.calls().values().sum();
        for portal_index in 0..3 {
            for number in 0..5 {
                let event = format!("$kept-{portal_index}-{number}");
                scene.say_in_room(0, portal_index, &event, "kept").await;
            }
        }
        until("it is noticed", || first.silo.feed() == FeedState::Down).await;
        let mut ended = Vec::new();
        for _ in 0..3 {
            let lane = tokio::time::timeout(Duration::from_secs(10), scene.lanes.join_next());
            let (lane, end) = lane.await.unwrap().unwrap().unwrap();
            assert_eq!((lane.toward, end), (Side::Silo, LaneEnd::SignedOut));
            ended.push(lane.portal);
        }
        scene.relays(1, 0, "the other goes on").await;
        assert_eq!(scene.test_silos[1].silo.feed(), FeedState::Live);
        for portal_index in 0..3 {
            let tally = scene.tally(0, portal_index, Side::Silo).await;
            assert_eq!((tally.pending, tally.failed), (5, 0), "the queue is kept");
        }
        // The feed learns of it at its next connection, and then stops its requests.
        let first = &scene.test_silos[0];
        first
            .sim
            .faults()
            .cut_realtime(footbridge_simulators::gitter::Cut::Reset);
        first
            .sim
            .faults()
            .cut_streams(footbridge_simulators::gitter::Cut::Reset);
        let over = tokio::time::timeout(Duration::from_secs(20), scene.listening.join_next());
        let (which, over) = over.await.unwrap().unwrap().unwrap();
        assert!(which == 0 && matches!(over, Err(SiloError::SignedOut(_))));
        let asked = scene.test_silos[0].sim.calls().values().sum::<u64>() - before;
        assert!(
            asked <= 12,
            "{asked} requests with a dead token in {feed:?}"
        );
    }
}

#[tokio::test]
async fn d13_many_portals_come_back_from_an_outage_one_after_the_other() {
    let scene = SiloScenario::new(2, 10, Feed::Realtime).await;
    let first = &scene.test_silos[0];
    first.sim.stop_listening().await;
    for portal_index in 0..10 {
        for number in 0..3 {
            let event = format!("$waits-{portal_index}-{number}");
            scene
                .say_in_room(0, portal_index, &event, &format!("{number}"))
                .await;
        }
        first
            .sim
            .say(&first.linked[portal_index].0.id, &first.bob.id, "unheard");
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.relays(1, 0, "the other goes on").await;
    first.sim.restart().await.unwrap();
    until("all of it crossed", || {
        first.linked.iter().all(|(channel, portal)| {
            first.sim.messages(&channel.id).len() == 4 && scene.rooms.texts(&portal.room).len() == 1
        })
    })
    .await;
    for (channel, _) in &first.linked {
        let texts: Vec<String> = first
            .sim
            .messages(&channel.id)
            .into_iter()
            .map(|message| message.text)
            .filter(|text| text != "unheard")
            .collect();
        for (number, text) in texts.iter().enumerate() {
            assert!(text.ends_with(&number.to_string()), "{text}");
        }
        assert_eq!(texts.len(), 3);
    }
}
