//! What was said before a room was linked, or while it was not, never crosses: whatever a homeserver shows later as new.

use axum::http::Method;
use footbridge_testbed::proxy::{Fault, Matcher, Proxy, Rewrite, Rule};

use super::{
    bare::{Bare, own, say},
    *,
};

/// A person in an encrypted room, and a house behind a proxy that is in it and has linked nothing.
struct Unlinked {
    house: House,
    person: TestClient,
    room: String,
    proxy: Proxy,
    _files: tempfile::TempDir,
}

impl Unlinked {
    /// With a desk the house listens in the room; else it only is in it, and has its keys.
    async fn new(synapse: &Synapse, at_desk: bool) -> Self {
        let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
        let mut house = House::new(synapse).await;
        let url = proxy.url_for(&synapse.url());
        house.config.homeserver = Homeserver::Url(url.parse().unwrap());
        house.login(None).await.unwrap();
        house.open(Trust::CrossSigned).await;
        let (person, files) = person(synapse, Identity::New).await;
        let invited = [house.user.clone()];
        let room = person.create_room("A room", true, &invited).await.unwrap();
        let place = Place::room(&room);
        if at_desk {
            let opened = house
                .store
                .open_management_room(&place, None, house.clock.now());
            opened.await.unwrap();
            house.listen(&room);
        } else {
            let path = format!("rooms/{room}/join");
            raw(synapse, &own(&house).await, "POST", &path, json!({})).await;
            house.listen_to(&[]);
        }
        wait_for_member(&person, &room, &house.user, "join").await;
        house.entered(&room).await;
        Self {
            house,
            person,
            room,
            proxy,
            _files: files,
        }
    }

    /// Says something that the house hears and has nobody to tell.
    async fn said_unlinked(&self, text: &str, at_desk: bool) -> String {
        let event = self.person.say(&self.room, text).await.unwrap();
        if at_desk {
            self.walked(&event).await;
        } else {
            // The room key has come by then.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        event
    }

    async fn walked(&self, event: &str) {
        let waited = timeout(Duration::from_secs(20), async {
            while self
                .house
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
        waited.await.expect("the house walks the event");
    }

    async fn link(&mut self) -> LaneId {
        self.house.rest().await;
        let lane = self.house.portal(&self.room).await;
        self.house.listen(&self.room);
        // The room is looked at before the first sync.
        tokio::time::sleep(Duration::from_secs(1)).await;
        lane
    }

    async fn event(&self, synapse: &Synapse, id: &str) -> Value {
        event(synapse, &own(&self.house).await, &self.room, id).await
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
async fn what_was_encrypted_before_the_link_never_crosses() {
    let synapse = Synapse::shared().await.unwrap();
    for at_desk in [true, false] {
        let mut scene = Unlinked::new(synapse, at_desk).await;
        let first = scene.said_unlinked("before", at_desk).await;
        let before = scene.event(synapse, &first).await;
        let lane = scene.link().await;
        // Once something newer was walked, what is shown again is not where the walk had got to.
        scene.person.say(&scene.room, "linked").await.unwrap();
        assert_eq!(text_of(&scene.house.next(lane).await), "linked");
        for (shown, text) in [
            (before.clone(), "shown again"),
            (under_another_id(&before), "under another id"),
        ] {
            let lie = Rewrite::event_in("again", &scene.room, shown);
            scene.proxy.tell(lie);
            scene.person.say(&scene.room, text).await.unwrap();
            assert_eq!(text_of(&scene.house.next(lane).await), text);
        }
        assert_eq!(scene.proxy.injected()["again"], 2);
        // In a gap, as if it were the newest.
        scene.house.rest().await;
        for number in 0..3 {
            scene
                .person
                .say(&scene.room, &format!("missed {number}"))
                .await
                .unwrap();
        }
        scene.proxy.limit_timeline(Some(1));
        scene.proxy.tell(Rewrite::first_in_history(before));
        scene.house.listen(&scene.room);
        for number in 0..3 {
            let heard = scene.house.next(lane).await;
            assert_eq!(text_of(&heard), format!("missed {number}"));
        }
        scene.proxy.clear();
        scene.proxy.limit_timeline(None);
        scene.person.say(&scene.room, "after").await.unwrap();
        assert_eq!(text_of(&scene.house.next(lane).await), "after");
        scene.house.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_encrypted_between_two_links_never_crosses() {
    let synapse = Synapse::shared().await.unwrap();
    let mut scene = Unlinked::new(synapse, true).await;
    let lane = scene.link().await;
    scene.person.say(&scene.room, "linked").await.unwrap();
    assert_eq!(text_of(&scene.house.next(lane).await), "linked");
    let now = scene.house.clock.now();
    let store = &scene.house.store;
    store
        .remove_portals(&[lane.portal], None, |_| None, now)
        .await
        .unwrap();
    let event = scene.said_unlinked("between", true).await;
    let between = scene.event(synapse, &event).await;
    let lane = scene.link().await;
    scene.person.say(&scene.room, "linked again").await.unwrap();
    assert_eq!(text_of(&scene.house.next(lane).await), "linked again");
    for (shown, text) in [
        (between.clone(), "shown again"),
        (under_another_id(&between), "under another id"),
    ] {
        scene
            .proxy
            .tell(Rewrite::event_in("again", &scene.room, shown));
        scene.person.say(&scene.room, text).await.unwrap();
        assert_eq!(text_of(&scene.house.next(lane).await), text);
    }
    assert_eq!(scene.proxy.injected()["again"], 2);
    scene.house.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_in_the_clear_before_the_link_is_not_taken_when_it_is_shown_again() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
    let mut bare = Bare::behind(synapse, &proxy).await;
    bare.enter(synapse).await;
    bare.house.rest().await;
    let second = bare::create(synapse, &bare.owner, None).await;
    let account = own(&bare.house).await;
    let public = json!({"join_rule": "public"});
    let rules = format!("rooms/{second}/state/m.room.join_rules/");
    raw(synapse, &bare.owner, "PUT", &rules, public).await;
    let path = format!("rooms/{second}/join");
    raw(synapse, &account, "POST", &path, json!({})).await;
    let id = say(synapse, &bare.owner, &second, "before").await;
    let before = event(synapse, &account, &second, &id).await;
    let lane = bare.house.portal(&second).await;
    bare.house.listen_to(&[&bare.room, &second]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    say(synapse, &bare.owner, &second, "linked").await;
    assert_eq!(text_of(&bare.house.next(lane).await), "linked");
    proxy.tell(Rewrite::event_in("again", &second, before));
    say(synapse, &bare.owner, &second, "after").await;
    assert_eq!(text_of(&bare.house.next(lane).await), "after");
    assert_eq!(proxy.injected()["again"], 1);
    bare.house.rest().await;
}

/// Waits until what is said in the room passes all its portals.
async fn heard(house: &House, room: &str) {
    let waited = timeout(LIMIT, async {
        let place = || vec![Place::room(room)];
        while house
            .store
            .newest_link_barrier(place())
            .await
            .unwrap()
            .is_some()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("all that was said before is taken in");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_while_the_bridge_was_away_goes_to_no_portal_that_was_linked_since() {
    let synapse = Synapse::shared().await.unwrap();
    // More than one sync brings, and few.
    for (encrypted, count) in [(true, 3), (false, 130)] {
        let mut scene = Scene::new(synapse, encrypted).await;
        let first = scene.lane;
        scene.person.say(&scene.room, "evening").await.unwrap();
        assert_eq!(text_of(&scene.house.next(first).await), "evening");
        scene.house.reopen().await;
        for number in 0..count {
            let text = format!("night {number}");
            scene.person.say(&scene.room, &text).await.unwrap();
        }
        let second = scene.house.portal(&scene.room).await;
        scene.house.listen(&scene.room);
        for number in 0..count {
            let heard = scene.house.next(first).await;
            assert_eq!(text_of(&heard), format!("night {number}"));
        }
        heard(&scene.house, &scene.room).await;
        scene.person.say(&scene.room, "morning").await.unwrap();
        assert_eq!(text_of(&scene.house.next(second).await), "morning");
        assert_eq!(scene.house.skipped(second, "before-link").await, count);
        assert_eq!(text_of(&scene.house.next(first).await), "morning");

        // While the bridge runs and nothing is on its way, a link counts at once.
        let place = Place::room(&scene.room);
        assert!(
            scene
                .house
                .matrix()
                .is_room_caught_up(&place)
                .await
                .unwrap()
        );
        scene.house.rest().await;
        let third = scene.house.portal(&scene.room).await;
        scene.house.listen(&scene.room);
        heard(&scene.house, &scene.room).await;
        scene.person.say(&scene.room, "at once").await.unwrap();
        assert_eq!(text_of(&scene.house.next(third).await), "at once");
        scene.house.rest().await;
        scene.person.say(&scene.room, "unheard").await.unwrap();
        assert!(
            !scene
                .house
                .matrix()
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
    assert_eq!(text_of(&scene.house.next(lane).await), "linked");
    let store = &scene.house.store;
    store
        .note_unencrypted_room(&Place::room(&scene.room))
        .await
        .unwrap();
    let now = scene.house.clock.now();
    let consent = Consent {
        by: "@ann:x".to_owned(),
        text_version: 1,
        effective_at: now.plus(Duration::from_secs(8)),
    };
    store
        .record_consent(lane.portal, consent, now)
        .await
        .unwrap();
    // The next answer is made before the end, and comes after it.
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
        let now = || scene.house.clock.now();
        while store.is_consent_due(now()).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    begins.await.expect("a sync that is asked for now ends it");
    scene.person.say(&scene.room, "after").await.unwrap();
    assert_eq!(text_of(&scene.house.next(lane).await), "after");
    assert_eq!(scene.house.skipped(lane, "before-consent").await, 3);
    scene.house.rest().await;
}
