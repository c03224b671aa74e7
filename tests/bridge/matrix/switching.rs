//! A homeserver that shows another identity of somebody for a while, with a device that this identity has signed: what
//! comes from that device does not cross, and no room key goes to it, whatever is shown afterwards. P02, P05.

use footbridge_testbed::proxy::{KeyView, Proxy};

use super::{trusting::first_held, *};

/// A bridge behind a homeserver that lies, Ann, whose identity is known, Bob, and whoever holds a device that the
/// homeserver has added for Ann with an identity of its own making.
struct Switch {
    house: House,
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
        let mut house = House::new(synapse).await;
        house.config.homeserver = Homeserver::Url(proxy.url_for(&synapse.url()).parse().unwrap());
        house.login(None).await.unwrap();
        house.open(Trust::CrossSigned).await;
        let (ann, anns) = person(synapse, Identity::New).await;
        let keys = KeyView::of(&ann.user_id(), &proxy);
        let invited = [house.user.clone()];
        let room = ann.create_room("A room", true, &invited).await.unwrap();
        let lane = house.portal(&room).await;
        house.listen(&room);
        wait_for_member(&ann, &room, &house.user, "join").await;
        house.entered(&room).await;
        let (bob, bobs) = person_in(synapse, &ann, &room, Identity::New).await;
        ann.say(&room, "Ann's own").await.unwrap();
        assert_eq!(text_of(&house.next(lane).await), "Ann's own");
        // From here on a room key of the bridge's is in use that Ann has.
        house.post(&room, "first", "for Ann").await.unwrap();
        // A second device of her account, which makes an identity of its own.
        let files = tempfile::tempdir().unwrap();
        let mallory = TestClient::login(&synapse.url(), &ann.user_id(), PASSWORD, files.path());
        let mallory = mallory.await.unwrap();
        Self {
            house,
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

    /// The homeserver shows the first identity of Ann's, or the present one, and the bridge looks.
    async fn turn(&self, old: bool) {
        self.keys.turn(&self.proxy, old);
        self.bob.say(&self.room, "stir").await.unwrap();
        self.keys.looked().await.unwrap();
    }

    /// Bob speaks; answers what crossed before that and is no notice.
    async fn until_bob(&self) -> Vec<String> {
        let words = unique("bob");
        self.bob.say(&self.room, &words).await.unwrap();
        let mut heard = Vec::new();
        loop {
            let text = text_of(&self.house.next(self.lane).await);
            if text == words {
                return heard;
            }
            if !text.starts_with(['🔒', '🔓']) && text != "stir" && !text.starts_with("bob") {
                heard.push(text);
            }
        }
    }

    /// The keys of other identities of Ann's than the one that is believed, with what is held for each.
    async fn others(&self) -> Vec<(String, u64)> {
        let ann = self.ann.user_id();
        self.house
            .matrix()
            .identities_of(&ann)
            .await
            .unwrap()
            .changed
    }

    /// The bridge says something in the room, which of Ann, Bob and Mallory these can read and the others see.
    async fn is_read_by(&self, text: &str, readers: [bool; 3]) {
        let done = self.house.post(&self.room, text, text).await.unwrap();
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
            let held = || self.house.matrix().held_for_approval();
            while held().await.unwrap() != [(self.ann.user_id(), count)] {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        waited.await.expect("so much is held");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_what_another_identity_signed_stays_held_when_the_first_one_is_shown_again() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Switch::new(synapse).await;
    let (room, lane) = (scene.room.clone(), scene.lane);
    first_held(&scene.house, &scene.mallory, &room, lane).await;

    scene.turn(true).await;
    scene.mallory.say(&room, "forged").await.unwrap();
    scene.mallory.say(&room, "!bridge pause").await.unwrap();
    // Whoever is heard after them was walked after them.
    assert_eq!(scene.until_bob().await, Vec::<String>::new());
    scene.wait_held(3).await;
    assert_eq!(scene.until_bob().await, Vec::<String>::new());
    assert_eq!(scene.house.store.commands().await.unwrap(), []);
    // Nor after a start, nor with a new key of the same device.
    scene.house.reopen().await;
    scene.house.listen(&room);
    scene.mallory.discard_room_key(&room).await.unwrap();
    scene.mallory.say(&room, "forged again").await.unwrap();
    assert_eq!(scene.until_bob().await, Vec::<String>::new());
    assert_eq!(scene.house.store.commands().await.unwrap(), []);
    scene.house.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_only_the_identity_that_was_named_is_accepted_and_only_what_it_signed_follows() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Switch::new(synapse).await;
    let (room, lane, user) = (scene.room.clone(), scene.lane, scene.ann.user_id());
    let first = first_held(&scene.house, &scene.mallory, &room, lane).await;
    let others = scene.others().await;
    let [(key, 1)] = &others[..] else {
        panic!("{others:?}")
    };
    // A third one, shown between the notice and the command.
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
    let matrix = scene.house.matrix();
    let approved = matrix.approve(&user, key).await.unwrap().unwrap();
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
    let approved = scene.house.matrix().approve(&user, third).await.unwrap();
    assert_eq!(approved.unwrap().held, 1);
    scene.mallory.say(&room, "believed").await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 2 {
        heard.extend(scene.until_bob().await);
    }
    assert_eq!(heard, ["of a third identity", "believed"]);
    scene.house.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_an_identity_that_is_not_believed_gets_no_room_keys_until_it_is() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Switch::new(synapse).await;
    let (room, lane, user) = (scene.room.clone(), scene.lane, scene.ann.user_id());
    first_held(&scene.house, &scene.mallory, &room, lane).await;
    scene.is_read_by("held", [false, true, false]).await;
    // The first identity is shown again: who holds a device that it signed is Ann.
    scene.turn(true).await;
    scene.is_read_by("shown again", [true, true, false]).await;
    scene.house.reopen().await;
    scene.house.listen(&room);
    scene.is_read_by("after a start", [true, true, false]).await;
    scene.turn(false).await;
    scene.is_read_by("and back", [false, true, false]).await;
    let others = scene.others().await;
    let [(key, _)] = &others[..] else {
        panic!("{others:?}")
    };
    let approved = scene.house.matrix().approve(&user, key).await.unwrap();
    assert!(approved.is_some());
    scene.is_read_by("accepted", [false, true, true]).await;
    scene.house.rest().await;
}
