//! D08, D09, D10, F14, F16, F36: sends without an answer, when the homeserver still knows them, when it has forgotten
//! them, and when the room was encrypted in between.

use std::sync::atomic::Ordering;

use footbridge_core::{
    budget::Budget,
    inbox::{Arrival, ArrivalContent},
    lane::{self, Lane, LaneEnd, OutletHealth},
};
use footbridge_store::LaneCounters;
use footbridge_testbed::synapse::Limits;

use super::{proxy::scene, *};

fn patience(unknown_after: Duration) -> Timeouts {
    Timeouts {
        unknown_after,
        ..Timeouts::default()
    }
}

/// The lane of a portal toward its room, and what a test needs to run it.
struct Toward {
    lane: LaneId,
    channel: Place,
    signals: Signals,
}

impl Toward {
    async fn of(scene: &Scene) -> Self {
        let lane = LaneId {
            toward: Side::Matrix,
            ..scene.lane
        };
        let portals = scene.bridge.store.portals().await.unwrap();
        let portal = portals.iter().find(|portal| portal.id == lane.portal);
        Self {
            lane,
            channel: portal.unwrap().channel.clone(),
            signals: Signals::default(),
        }
    }

    /// A message in the channel.
    async fn hear(&self, bridge: &TestBridge, text: &str) {
        let message = Message {
            sender: footbridge_core::message::Sender {
                id: "mary".into(),
                name: "Mary".into(),
                avatar: None,
            },
            sent_at: bridge.clock.now(),
            files: Vec::new(),
            action: Action::Post {
                body: footbridge_core::text::Body::plain(text),
                style: Style::Text,
                reply_to: None,
                thread: None,
            },
        };
        let arrival = Arrival {
            place: self.channel.clone(),
            event_id: text.into(),
            message: Some(text.into()),
            thread: None,
            sent_at: bridge.clock.now(),
            payload: ArrivalContent::from(message),
        };
        let batch = Batch {
            arrivals: vec![arrival],
            ..Batch::default()
        };
        bridge.inbox().accept(batch).await.unwrap();
    }

    /// Runs the lane until this is so.
    async fn run_until(&self, bridge: &TestBridge, done: impl AsyncFn() -> bool) {
        let stop = CancellationToken::new();
        let lane = Lane {
            id: self.lane,
            outlet: bridge.outlet(),
            sender: footbridge_core::lane::LaneSender::default(),
            source: bridge.outlet(),
            spool: footbridge_core::spool::Spool::new(std::env::temp_dir(), 1 << 20),
            store: bridge.store.clone(),
            signals: self.signals.clone(),
            clock: bridge.clock,
            limits: lane::RetryLimits {
                attempts: 8,
                give_up: Duration::from_hours(24),
            },
            health: OutletHealth::default(),
            budget: Budget::default(),
            coalesce: true,
            people: footbridge_core::persons::People::default(),
            peer_bridges: footbridge_core::peer_bridges::PeerBridges::default(),
            links: None,
            filters: lane::RelayFilters::default(),
        };
        let mut running = JoinSet::new();
        running.spawn(lane.run(stop.clone()));
        let waited = timeout(LIMIT, async {
            while !done().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("the lane reaches this state");
        stop.cancel();
        let ended = running.join_all().await.pop().unwrap();
        assert_eq!(ended.unwrap(), LaneEnd::Stopped);
    }

    async fn tally(&self, bridge: &TestBridge) -> LaneCounters {
        let tallies = bridge.store.lane_counters().await.unwrap();
        tallies
            .into_iter()
            .find(|tally| tally.lane == self.lane)
            .unwrap()
    }

    async fn settle(&self, bridge: &TestBridge) {
        self.run_until(bridge, async || self.tally(bridge).await.pending == 0)
            .await;
    }
}

/// The types of the events that the bridge sent into the room, as the homeserver stores them.
async fn kept(synapse: &Synapse, scene: &Scene) -> Vec<String> {
    let events = synapse.events(&scene.room).await.unwrap();
    events
        .into_iter()
        .filter(|event| event.sender == scene.bridge.user && event.json.get("state_key").is_none())
        .map(|event| event.event_type)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn d08_f14_a_send_without_an_answer_is_repeated_and_there_is_one() {
    let synapse = Synapse::shared().await.unwrap();
    let (mut scene, proxy) = scene(synapse, true, Timeouts::default()).await;
    let toward = Toward::of(&scene).await;
    toward.hear(&scene.bridge, "hello").await;
    toward.settle(&scene.bridge).await;
    proxy.rules.lose_sends.store(2, Ordering::SeqCst);
    for text in ["one", "two"] {
        toward.hear(&scene.bridge, text).await;
    }
    toward.settle(&scene.bridge).await;
    assert_eq!(proxy.rules.sends.load(Ordering::SeqCst), 5);
    assert_eq!(kept(synapse, &scene).await, ["m.room.encrypted"; 3]);
    assert_eq!(toward.tally(&scene.bridge).await.delivered, 3);
    scene.bridge.rest().await;
}

/// Sends one message whose response is lost, and one whose request is lost; then the homeserver forgets the transaction
/// ids, and the bridge restarts. Returns the messages in the room.
async fn f16(unknown_after: Duration) -> (Vec<String>, LaneCounters) {
    let synapse = Synapse::start(Limits::Relaxed).await.unwrap();
    let (mut scene, proxy) = scene(&synapse, true, patience(unknown_after)).await;
    let toward = Toward::of(&scene).await;
    // So that the room has a room key and the device is known.
    toward.hear(&scene.bridge, "hello").await;
    toward.settle(&scene.bridge).await;

    proxy.rules.lose_sends.store(1, Ordering::SeqCst);
    toward.hear(&scene.bridge, "the answer is lost").await;
    let sent = async || proxy.rules.sends.load(Ordering::SeqCst) >= 2;
    toward.run_until(&scene.bridge, sent).await;
    assert_eq!(toward.tally(&scene.bridge).await.pending, 1);
    scene.bridge.rest().await;
    // The server of a member may date that member's events as it likes: that ends no search.
    scene.person.say(&scene.room, "later").await.unwrap();
    *proxy.rules.dated_back.lock().unwrap() = Some(scene.person.user_id());
    let known = synapse.forget_transactions().await.unwrap();
    assert_eq!(known, 3);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    scene.bridge.reopen().await;
    scene.bridge.listen(&scene.room);
    toward.settle(&scene.bridge).await;

    proxy.rules.stop_sends.store(1, Ordering::SeqCst);
    toward.hear(&scene.bridge, "never sent").await;
    let stopped = async || proxy.rules.stop_sends.load(Ordering::SeqCst) == 0;
    toward.run_until(&scene.bridge, stopped).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    toward.settle(&scene.bridge).await;
    scene.bridge.rest().await;
    (
        kept(&synapse, &scene).await,
        toward.tally(&scene.bridge).await,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn d09_f16_what_the_homeserver_forgot_is_looked_for_and_adopted() {
    let (kept, tally) = f16(Duration::from_secs(1)).await;
    assert_eq!(kept, ["m.room.encrypted"; 3], "no message is duplicated");
    assert_eq!((tally.delivered, tally.failed, tally.pending), (3, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_f36_a_room_that_was_encrypted_meanwhile_is_checked_first_and_gets_nothing_unencrypted()
{
    let synapse = Synapse::shared().await.unwrap();
    let (mut scene, proxy) = scene(synapse, false, Timeouts::default()).await;
    let toward = Toward::of(&scene).await;
    proxy.rules.lose_sends.store(1, Ordering::SeqCst);
    for text in ["sent in the clear", "queued 1", "queued 2"] {
        toward.hear(&scene.bridge, text).await;
    }
    let sent = async || proxy.rules.sends.load(Ordering::SeqCst) == 1;
    toward.run_until(&scene.bridge, sent).await;
    scene.person.enable_encryption(&scene.room).await.unwrap();
    let place = Place::room(&scene.room);
    timeout(LIMIT, async {
        let flag = || scene.bridge.store.flag(&place, Flag::EverEncrypted);
        while !flag().await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    scene.bridge.agree(scene.lane).await;
    toward.settle(&scene.bridge).await;
    let expected = ["m.room.message", "m.room.encrypted", "m.room.encrypted"];
    assert_eq!(kept(synapse, &scene).await, expected);
    // The first one was found, not sent again.
    assert_eq!(proxy.rules.sends.load(Ordering::SeqCst), 3);
    scene.bridge.rest().await;
}
