//! A homeserver that shows another identity of a user for a while, with a device that this identity has signed:
//! messages of that device are not relayed, and no room key goes to it, whatever the homeserver shows afterwards. P02,
//! P05.

use footbridge_testbed::proxy::{KeyView, Proxy};

use super::{trusting::first_held, *};

/// A bridge behind a malicious homeserver, Ann, whose identity is pinned, Bob, and Mallory, who has a device that the
/// homeserver added for Ann with a forged identity.
struct Switch {
    bridge: TestBridge,
    proxy: Proxy,
    keys: KeyView,
    ann: TestClient,
    bob: TestClient,
    mallory: TestClient,
    room: String,
    lane: LaneId,
    _files: [tempfile::TempDir; 3],
}

impl Switch {
    async fn new(synapse: &Synapse) -> Self {
        let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
        let mut bridge = TestBridge::new(synapse).await;
        bridge.config.homeserver = Homeserver::Url(proxy.url_for(&synapse.url()).parse().unwrap());
        bridge.login(None).await.unwrap();
        bridge.open(Trust::CrossSigned).await;
        let (ann, anns) = person(synapse, Identity::New).await;
        let keys = KeyView::of(&ann.user_id(), &proxy);
        let invited = [bridge.user.clone()];
        let room = ann.create_room("A room", true, &invited).await.unwrap();
        let lane = bridge.portal(&room).await;
        bridge.listen(&room);
        wait_for_member(&ann, &room, &bridge.user, "join").await;
        bridge.entered(&room).await;
        let (bob, bobs) = person_in(synapse, &ann, &room, Identity::New).await;
        ann.say(&room, "Ann's own").await.unwrap();
        assert_eq!(text_of(&bridge.next(lane).await), "Ann's own");
        // From here on the bridge uses a room key that Ann has.
        bridge.post(&room, "first", "for Ann").await.unwrap();
        // A second device of her account, which creates another identity.
        let files = tempfile::tempdir().unwrap();
        let mallory = TestClient::login(&synapse.url(), &ann.user_id(), PASSWORD, files.path());
        let mallory = mallory.await.unwrap();
        Self {
            bridge,
            proxy,
            keys,
            ann,
            bob,
            mallory,
            room,
            lane,
            _files: [anns, bobs, files],
        }
    }

    /// The homeserver shows Ann's first identity, or the present one, and the bridge queries it.
    async fn turn(&self, old: bool) {
        self.keys.turn(&self.proxy, old);
        self.bob.say(&self.room, "stir").await.unwrap();
        self.keys.looked().await.unwrap();
    }

    /// Bob sends a message; returns what was relayed before it, without notices.
    async fn until_bob(&self) -> Vec<String> {
        let words = unique("bob");
        self.bob.say(&self.room, &words).await.unwrap();
        let mut heard = Vec::new();
        loop {
            let text = text_of(&self.bridge.next(self.lane).await);
            if text == words {
                return heard;
            }
            if !text.starts_with(['🔒', '🔓']) && text != "stir" && !text.starts_with("bob") {
                heard.push(text);
            }
        }
    }

    /// Ann's changed identities, other than the pinned one, with the number of messages held for each.
    async fn others(&self) -> Vec<(String, u64)> {
        let ann = self.ann.user_id();
        self.bridge
            .device()
            .identities_of(&ann)
            .await
            .unwrap()
            .changed
    }

    /// The bridge sends a message into the room. `readers`: who of Ann, Bob and Mallory can decrypt it; the others see
    /// it undecryptable.
    async fn is_read_by(&self, text: &str, readers: [bool; 3]) {
        let done = self.bridge.post(&self.room, text, text).await.unwrap();
        let Done::Created(copy) = done else {
            panic!("{done:?}")
        };
        let people = [&self.ann, &self.bob, &self.mallory];
        for (number, (person, reads)) in people.into_iter().zip(readers).enumerate() {
            let is_it = |seen: &SeenEvent| seen.event_id == copy.remote.as_str();
            if reads {
                wait_for(person, |seen| is_it(seen) && !seen.undecryptable).await;
            } else {
                let seen = wait_for(person, is_it).await;
                assert!(seen.undecryptable, "{text}: {number}");
            }
        }
    }

    async fn wait_held(&self, count: u64) {
        let waited = timeout(Duration::from_secs(30), async {
            let held = || self.bridge.device().held_for_approval();
            while held().await.unwrap() != [(self.ann.user_id(), count)] {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        waited.await.expect("this many messages are held");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_what_another_identity_signed_stays_held_when_the_first_one_is_shown_again() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Switch::new(synapse).await;
    let (room, lane) = (scene.room.clone(), scene.lane);
    first_held(&scene.bridge, &scene.mallory, &room, lane).await;

    scene.turn(true).await;
    scene.mallory.say(&room, "forged").await.unwrap();
    scene.mallory.say(&room, "!bridge pause").await.unwrap();
    // A message that arrives after them was processed after them.
    assert_eq!(scene.until_bob().await, Vec::<String>::new());
    scene.wait_held(3).await;
    assert_eq!(scene.until_bob().await, Vec::<String>::new());
    assert_eq!(scene.bridge.store.commands().await.unwrap(), []);
    // Nor after a restart, nor with a new room key of the same device.
    scene.bridge.reopen().await;
    scene.bridge.listen(&room);
    scene.mallory.discard_room_key(&room).await.unwrap();
    scene.mallory.say(&room, "forged again").await.unwrap();
    assert_eq!(scene.until_bob().await, Vec::<String>::new());
    assert_eq!(scene.bridge.store.commands().await.unwrap(), []);
    scene.bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_only_the_identity_that_was_named_is_accepted_and_only_what_it_signed_follows() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Switch::new(synapse).await;
    let (room, lane, user) = (scene.room.clone(), scene.lane, scene.ann.user_id());
    let first = first_held(&scene.bridge, &scene.mallory, &room, lane).await;
    let others = scene.others().await;
    let [(key, 1)] = &others[..] else {
        panic!("{others:?}")
    };
    // A third identity, shown between the notice and the command.
    scene.mallory.replace_identity(PASSWORD).await.unwrap();
    scene.mallory.discard_room_key(&room).await.unwrap();
    scene.turn(false).await;
    scene
        .mallory
        .say(&room, "of a third identity")
        .await
        .unwrap();
    assert_eq!(scene.until_bob().await, Vec::<String>::new());
    scene.wait_held(2).await;
    let matrix = scene.bridge.matrix();
    let approved = matrix.device().approve(&user, key).await.unwrap().unwrap();
    assert_eq!(approved.held, 1);
    let mut heard = Vec::new();
    while heard.is_empty() {
        heard = scene.until_bob().await;
    }
    assert_eq!(heard, [first]);
    scene.wait_held(1).await;
    let others = scene.others().await;
    let [(third, 1)] = &others[..] else {
        panic!("{others:?}")
    };
    assert_ne!(third, key);
    let approved = scene.bridge.device().approve(&user, third).await.unwrap();
    assert_eq!(approved.unwrap().held, 1);
    scene.mallory.say(&room, "believed").await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 2 {
        heard.extend(scene.until_bob().await);
    }
    assert_eq!(heard, ["of a third identity", "believed"]);
    scene.bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_an_identity_that_is_not_believed_gets_no_room_keys_until_it_is() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Switch::new(synapse).await;
    let (room, lane, user) = (scene.room.clone(), scene.lane, scene.ann.user_id());
    first_held(&scene.bridge, &scene.mallory, &room, lane).await;
    scene.is_read_by("held", [false, true, false]).await;
    // The homeserver shows the first identity again: the holder of a device that it signed is Ann.
    scene.turn(true).await;
    scene.is_read_by("shown again", [true, true, false]).await;
    scene.bridge.reopen().await;
    scene.bridge.listen(&room);
    scene.is_read_by("after a start", [true, true, false]).await;
    scene.turn(false).await;
    scene.is_read_by("and back", [false, true, false]).await;
    let others = scene.others().await;
    let [(key, _)] = &others[..] else {
        panic!("{others:?}")
    };
    let approved = scene.bridge.device().approve(&user, key).await.unwrap();
    assert!(approved.is_some());
    scene.is_read_by("accepted", [false, true, true]).await;
    scene.bridge.rest().await;
}
