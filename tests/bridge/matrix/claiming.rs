//! The bridge establishes Olm sessions before it needs them, and outside of the SDK's send: no send waits for another
//! room's members, and a member who joins meanwhile gets the room key too.

use std::time::Instant;

use footbridge_testbed::{
    members::{self, Member},
    proxy::{Fault, Matcher, Proxy, Rule},
};
use reqwest::Method;

use super::*;

/// A bridge behind a proxy, and a person with public encrypted rooms that the bridge is in.
struct Slow {
    bridge: TestBridge,
    person: TestClient,
    proxy: Proxy,
    rooms: Vec<(String, LaneId)>,
    _files: tempfile::TempDir,
}

impl Slow {
    async fn new(synapse: &Synapse, rooms: usize) -> Self {
        let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
        let mut bridge = TestBridge::new(synapse).await;
        let url = proxy.url_for(&synapse.url());
        bridge.config.homeserver = Homeserver::Url(url.parse().unwrap());
        bridge.login(None).await.unwrap();
        bridge.open(Trust::CrossSigned).await;
        let (person, files) = person(synapse, Identity::New).await;
        let mut made = Vec::new();
        for _ in 0..rooms {
            let invited = [bridge.user.clone()];
            let room = person.create_room("A room", true, &invited).await.unwrap();
            let public = json!({"join_rule": "public"});
            let rule = ("m.room.join_rules", "");
            person.send_state(&room, rule, public).await.unwrap();
            let lane = bridge.portal(&room).await;
            made.push((room, lane));
        }
        let names: Vec<_> = made.iter().map(|(room, _)| room.as_str()).collect();
        bridge.listen_to(&names);
        for (room, _) in &made {
            bridge.entered(room).await;
            bridge.post(room, "first", "first").await.unwrap();
        }
        Self {
            bridge,
            person,
            proxy,
            rooms: made,
            _files: files,
        }
    }

    /// From now on the homeserver's responses to claims of one-time keys take this long, as if another server did not
    /// respond.
    fn slow_down(&self, by: Duration) {
        let claims = Matcher::of(Method::POST).with("keys/claim");
        let slow = Fault::DelayReply(by, by);
        self.proxy.add(Rule::always("slow claims", claims, slow));
    }

    /// Waits until such a request has passed the proxy since then.
    async fn goes_by(&self, since: Instant, path: &str) {
        let wanted = Matcher::of(Method::POST).with(path);
        let waited = timeout(Duration::from_secs(30), async {
            while self.proxy.recorded_requests(since, &wanted).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        waited.await.expect("the bridge asks");
    }

    /// Posts while the test continues.
    fn post_beside(&self, room: usize) -> JoinSet<Result<Done, SendError>> {
        let (matrix, to) = (self.bridge.outlet(), Place::room(&self.rooms[room].0));
        let step = Step::Post {
            content: content("to all of you"),
            thread: None,
            reply_to: None,
        };
        let mut beside = JoinSet::new();
        beside.spawn(async move { matrix.perform(&to, "beside", &step).await });
        beside
    }
}

/// Whether a room key has arrived at this member's device. A withheld notice in its place is no key.
async fn has_key(member: &Member) -> bool {
    let sent = member.sent_to_device().await.unwrap();
    assert_eq!(sent.get("m.room_key.withheld"), None, "{sent:?}");
    sent.contains_key("m.room.encrypted")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_slow_to_hand_out_keys_delays_only_its_members_rooms() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Slow::new(synapse, 2).await;
    let member = members::register(synapse, &unique("slow"), 1)
        .await
        .unwrap();
    scene.slow_down(Duration::from_secs(15));
    let since = Instant::now();
    members::join(&member, &scene.rooms[0].0).await.unwrap();
    scene.goes_by(since, "keys/query").await;
    let mut beside = scene.post_beside(0);
    scene.goes_by(since, "keys/claim").await;

    let (other, lane) = scene.rooms[1].clone();
    scene.bridge.post(&other, "second", "second").await.unwrap();
    assert!(
        beside.try_join_next().is_none(),
        "another room's message waited"
    );
    scene.person.say(&other, "hello").await.unwrap();
    assert_eq!(text_of(&scene.bridge.next(lane).await), "hello");
    assert!(
        beside.try_join_next().is_none(),
        "another room received nothing"
    );

    beside.join_next().await.unwrap().unwrap().unwrap();
    assert!(has_key(&member[0]).await);
    scene.bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_in_while_keys_are_claimed_for_a_message_gets_its_key() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Slow::new(synapse, 1).await;
    let all = members::register(synapse, &unique("joiner"), 11)
        .await
        .unwrap();
    let (ten, last) = (&all[..10], &all[10..]);
    scene.slow_down(Duration::from_secs(5));
    let since = Instant::now();
    members::join(ten, &scene.rooms[0].0).await.unwrap();
    let mut beside = scene.post_beside(0);
    scene.goes_by(since, "keys/claim").await;
    let since = Instant::now();
    members::join(last, &scene.rooms[0].0).await.unwrap();
    scene.goes_by(since, "keys/query").await;
    assert!(beside.try_join_next().is_none(), "the claim was not slow");

    beside.join_next().await.unwrap().unwrap().unwrap();
    for member in &all {
        let who = &member.session.user_id;
        assert!(has_key(member).await, "{who} has no key");
    }
    scene.bridge.rest().await;
}
