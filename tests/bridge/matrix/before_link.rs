//! Messages from before a room was linked, or from while it was not, are never relayed, even if a homeserver shows them
//! later as new.

use axum::http::Method;
use footbridge_testbed::proxy::{Fault, Matcher, Proxy, Rewrite, Rule};

use super::{
    bare::{Bare, own, say},
    *,
};

/// A person in an encrypted room, and a bridge behind a proxy that is in the room and has linked nothing.
struct Unlinked {
    bridge: TestBridge,
    person: TestClient,
    room: String,
    proxy: Proxy,
    _files: tempfile::TempDir,
}

impl Unlinked {
    /// With `is_managed` the room is a management room, in which the bridge listens; otherwise the bridge is only a
    /// member, and has the room keys.
    async fn new(synapse: &Synapse, is_managed: bool) -> Self {
        let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
        let mut bridge = TestBridge::new(synapse).await;
        let url = proxy.url_for(&synapse.url());
        bridge.config.homeserver = Homeserver::Url(url.parse().unwrap());
        bridge.login(None).await.unwrap();
        bridge.open(Trust::CrossSigned).await;
        let (person, files) = person(synapse, Identity::New).await;
        let invited = [bridge.user.clone()];
        let room = person.create_room("A room", true, &invited).await.unwrap();
        let place = Place::room(&room);
        if is_managed {
            let opened = bridge
                .store
                .open_management_room(&place, None, bridge.clock.now());
            opened.await.unwrap();
            bridge.listen(&room);
        } else {
            let path = format!("rooms/{room}/join");
            raw(synapse, &own(&bridge).await, "POST", &path, json!({})).await;
            bridge.listen_to(&[]);
        }
        wait_for_member(&person, &room, &bridge.user, "join").await;
        bridge.entered(&room).await;
        Self {
            bridge,
            person,
            room,
            proxy,
            _files: files,
        }
    }

    /// Sends a message that the bridge receives and relays to nobody.
    async fn send_unlinked(&self, text: &str, is_managed: bool) -> String {
        let event = self.person.say(&self.room, text).await.unwrap();
        if is_managed {
            self.wait_processed(&event).await;
        } else {
            // The room key has arrived by then.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        event
    }

    async fn wait_processed(&self, event: &str) {
        let waited = timeout(Duration::from_secs(20), async {
            while self
                .bridge
                .store
                .cursor(Place::room(&self.room).as_str())
                .await
                .unwrap()
                .as_deref()
                != Some(event)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.expect("the bridge processes the event");
    }

    async fn link(&mut self) -> LaneId {
        self.bridge.rest().await;
        let lane = self.bridge.portal(&self.room).await;
        self.bridge.listen(&self.room);
        // The bridge checks the room before the first sync.
        tokio::time::sleep(Duration::from_secs(1)).await;
        lane
    }

    async fn event(&self, synapse: &Synapse, id: &str) -> Value {
        event(synapse, &own(&self.bridge).await, &self.room, id).await
    }
}

async fn event(synapse: &Synapse, user: &Registered, room: &str, id: &str) -> Value {
    let path = format!("rooms/{room}/event/{id}");
    let mut event = raw(synapse, user, "GET", &path, Value::Null).await;
    event.as_object_mut().unwrap().remove("room_id");
    event
}

fn under_another_id(event: &Value) -> Value {
    let mut event = event.clone();
    event["event_id"] = unique("$again").into();
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_encrypted_before_the_link_are_never_relayed() {
    let synapse = Synapse::shared().await.unwrap();
    for is_managed in [true, false] {
        let mut scene = Unlinked::new(synapse, is_managed).await;
        let first = scene.send_unlinked("before", is_managed).await;
        let before = scene.event(synapse, &first).await;
        let lane = scene.link().await;
        // After a newer event was processed, the event that is shown again is no longer the room's cursor.
        scene.person.say(&scene.room, "linked").await.unwrap();
        assert_eq!(text_of(&scene.bridge.next(lane).await), "linked");
        for (shown, text) in [
            (before.clone(), "shown again"),
            (under_another_id(&before), "under another id"),
        ] {
            let rewrite = Rewrite::event_in("again", &scene.room, shown);
            scene.proxy.set_rewrite(rewrite);
            scene.person.say(&scene.room, text).await.unwrap();
            assert_eq!(text_of(&scene.bridge.next(lane).await), text);
        }
        assert_eq!(scene.proxy.injected()["again"], 2);
        // In a gap, as if it were the newest event.
        scene.bridge.rest().await;
        for number in 0..3 {
            scene
                .person
                .say(&scene.room, &format!("missed {number}"))
                .await
                .unwrap();
        }
        scene.proxy.limit_timeline(Some(1));
        scene.proxy.set_rewrite(Rewrite::first_in_history(before));
        scene.bridge.listen(&scene.room);
        for number in 0..3 {
            let heard = scene.bridge.next(lane).await;
            assert_eq!(text_of(&heard), format!("missed {number}"));
        }
        scene.proxy.clear();
        scene.proxy.limit_timeline(None);
        scene.person.say(&scene.room, "after").await.unwrap();
        assert_eq!(text_of(&scene.bridge.next(lane).await), "after");
        scene.bridge.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_encrypted_between_two_links_are_never_relayed() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Unlinked::new(synapse, true).await;
    let lane = scene.link().await;
    scene.person.say(&scene.room, "linked").await.unwrap();
    assert_eq!(text_of(&scene.bridge.next(lane).await), "linked");
    let now = scene.bridge.clock.now();
    let store = &scene.bridge.store;
    store
        .remove_portals(&[lane.portal], None, |_| None, now)
        .await
        .unwrap();
    let event = scene.send_unlinked("between", true).await;
    let between = scene.event(synapse, &event).await;
    let lane = scene.link().await;
    scene.person.say(&scene.room, "linked again").await.unwrap();
    assert_eq!(text_of(&scene.bridge.next(lane).await), "linked again");
    for (shown, text) in [
        (between.clone(), "shown again"),
        (under_another_id(&between), "under another id"),
    ] {
        scene
            .proxy
            .set_rewrite(Rewrite::event_in("again", &scene.room, shown));
        scene.person.say(&scene.room, text).await.unwrap();
        assert_eq!(text_of(&scene.bridge.next(lane).await), text);
    }
    assert_eq!(scene.proxy.injected()["again"], 2);
    scene.bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unencrypted_messages_from_before_the_link_are_not_accepted_again() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
    let mut bare = Bare::behind(synapse, &proxy).await;
    bare.enter(synapse).await;
    bare.bridge.rest().await;
    let second = bare::create(synapse, &bare.owner, None).await;
    let account = own(&bare.bridge).await;
    let public = json!({"join_rule": "public"});
    let rules = format!("rooms/{second}/state/m.room.join_rules/");
    raw(synapse, &bare.owner, "PUT", &rules, public).await;
    let path = format!("rooms/{second}/join");
    raw(synapse, &account, "POST", &path, json!({})).await;
    let id = say(synapse, &bare.owner, &second, "before").await;
    let before = event(synapse, &account, &second, &id).await;
    let lane = bare.bridge.portal(&second).await;
    bare.bridge.listen_to(&[&bare.room, &second]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    say(synapse, &bare.owner, &second, "linked").await;
    assert_eq!(text_of(&bare.bridge.next(lane).await), "linked");
    proxy.set_rewrite(Rewrite::event_in("again", &second, before));
    say(synapse, &bare.owner, &second, "after").await;
    assert_eq!(text_of(&bare.bridge.next(lane).await), "after");
    assert_eq!(proxy.injected()["again"], 1);
    bare.bridge.rest().await;
}

/// Waits until messages in the room pass all its portals.
async fn heard(bridge: &TestBridge, room: &str) {
    let waited = timeout(LIMIT, async {
        let place = || vec![Place::room(room)];
        while bridge
            .store
            .newest_link_barrier(place())
            .await
            .unwrap()
            .is_some()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("all earlier events are accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_sent_during_a_downtime_reach_no_portal_that_was_linked_since() {
    let synapse = Synapse::shared().await.unwrap();
    // Few messages, and more than one sync returns.
    for (encrypted, count) in [(true, 3), (false, 130)] {
        let mut scene = Scene::new(synapse, encrypted).await;
        let first = scene.lane;
        scene.person.say(&scene.room, "evening").await.unwrap();
        assert_eq!(text_of(&scene.bridge.next(first).await), "evening");
        scene.bridge.reopen().await;
        for number in 0..count {
            let text = format!("night {number}");
            scene.person.say(&scene.room, &text).await.unwrap();
        }
        let second = scene.bridge.portal(&scene.room).await;
        scene.bridge.listen(&scene.room);
        for number in 0..count {
            let heard = scene.bridge.next(first).await;
            assert_eq!(text_of(&heard), format!("night {number}"));
        }
        heard(&scene.bridge, &scene.room).await;
        scene.person.say(&scene.room, "morning").await.unwrap();
        assert_eq!(text_of(&scene.bridge.next(second).await), "morning");
        assert_eq!(scene.bridge.skipped(second, "before-link").await, count);
        assert_eq!(text_of(&scene.bridge.next(first).await), "morning");

        // While the bridge runs and no event is under way, a link counts at once.
        let place = Place::room(&scene.room);
        assert!(
            scene
                .bridge
                .device()
                .is_room_caught_up(&place)
                .await
                .unwrap()
        );
        scene.bridge.rest().await;
        let third = scene.bridge.portal(&scene.room).await;
        scene.bridge.listen(&scene.room);
        heard(&scene.bridge, &scene.room).await;
        scene.person.say(&scene.room, "at once").await.unwrap();
        assert_eq!(text_of(&scene.bridge.next(third).await), "at once");
        scene.bridge.rest().await;
        scene.person.say(&scene.room, "unheard").await.unwrap();
        assert!(
            !scene
                .bridge
                .device()
                .is_room_caught_up(&place)
                .await
                .unwrap()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_a_sync_that_was_asked_for_before_the_end_of_a_delay_does_not_end_it() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Unlinked::new(synapse, true).await;
    let lane = scene.link().await;
    scene.person.say(&scene.room, "linked").await.unwrap();
    assert_eq!(text_of(&scene.bridge.next(lane).await), "linked");
    let store = &scene.bridge.store;
    store
        .note_unencrypted_room(&Place::room(&scene.room))
        .await
        .unwrap();
    let now = scene.bridge.clock.now();
    let consent = Consent {
        by: "@ann:x".to_owned(),
        text_version: 1,
        effective_at: now.plus(Duration::from_secs(8)),
    };
    store
        .record_consent(lane.portal, consent, now)
        .await
        .unwrap();
    // The homeserver makes the next sync response before the end of the delay; it arrives after it.
    let syncs = Matcher::of(Method::GET).with("/sync");
    let wait = Duration::from_secs(10);
    let late = Rule::times("late", syncs, Fault::DelayReply(wait, wait), 1);
    scene.proxy.add(late);
    for said in ["ends the sync on its way", "wakes the next", "in the delay"] {
        scene.person.say(&scene.room, said).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(scene.proxy.injected()["late"], 1);
    tokio::time::sleep(wait).await;
    let begins = timeout(LIMIT, async {
        let now = || scene.bridge.clock.now();
        while store.is_consent_due(now()).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    begins
        .await
        .expect("a sync that is requested now ends the delay");
    scene.person.say(&scene.room, "after").await.unwrap();
    assert_eq!(text_of(&scene.bridge.next(lane).await), "after");
    assert_eq!(scene.bridge.skipped(lane, "before-consent").await, 3);
    scene.bridge.rest().await;
}
