//! D21, F29: a session that has expired is continued on the same device, and nothing is lost.

use std::sync::atomic::Ordering;

use super::{
    proxy::{Proxy, scene, scene_behind},
    *,
};
use crate::liar::{GOOD, Liar, Lie};

async fn token(house: &House) -> String {
    let account = house.store.account().await.unwrap().unwrap();
    let session: Value = serde_json::from_slice(&account.session.0).unwrap();
    session["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn d21_f29_an_expired_session_is_continued_on_the_same_device() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene(synapse, true, Timeouts::default()).await;
    let Scene {
        mut house,
        person,
        room,
        lane,
        ..
    } = scene;
    person.say(&room, "before").await.unwrap();
    assert_eq!(text_of(&house.next(lane).await), "before");
    let before = house.store.account().await.unwrap().unwrap();
    proxy.rules.unrenewable.store(true, Ordering::SeqCst);
    for round in 0..2 {
        let old = token(&house).await;
        *proxy.rules.expired.lock().unwrap() = Some(old.clone());
        let ended = timeout(LIMIT, house.listening.join_next()).await;
        let ended = ended.unwrap().unwrap().unwrap();
        let Err(MatrixError::SignedOut(why)) = ended else {
            panic!("{ended:?}")
        };
        assert!(why.contains("the session has expired"), "{why}");
        let held = house.post(&room, &format!("held {round}"), "held").await;
        assert!(matches!(held, Err(SendError::SignedOut { .. })), "{held:?}");
        person.say(&room, "meanwhile").await.unwrap();

        house.matrix = None;
        let again = house.login(None).await.unwrap();
        assert_eq!(again.face, before.info);
        assert_eq!(again.recovery_key, None);
        assert_ne!(token(&house).await, old);
        house.open(Trust::CrossSigned).await;
        house.listen(&room);
        assert_eq!(text_of(&house.next(lane).await), "meanwhile");
        house
            .post(&room, &format!("held {round}"), "held")
            .await
            .unwrap();
    }
    // Without need nobody logs in again.
    let kept = token(&house).await;
    house.rest().await;
    house.matrix = None;
    house.login(None).await.unwrap();
    assert_eq!(token(&house).await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn d21_f29_a_session_that_can_be_renewed_goes_on_by_itself() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene(synapse, true, Timeouts::default()).await;
    let Scene {
        mut house,
        person,
        room,
        lane,
        ..
    } = scene;
    let before = house.store.account().await.unwrap().unwrap();
    for round in 0..3 {
        let old = token(&house).await;
        *proxy.rules.expired.lock().unwrap() = Some(old.clone());
        // Sent with an expired token, and received with it.
        let text = format!("message {round}");
        house.post(&room, &text, &text).await.unwrap();
        person.say(&room, &text).await.unwrap();
        assert_eq!(text_of(&house.next(lane).await), text);
        // What is kept is the new one already, and the device is the same.
        assert_ne!(token(&house).await, old);
        let now = house.store.account().await.unwrap().unwrap();
        assert_eq!(now.info, before.info);
        // And it is good for another life.
        if round == 1 {
            house.reopen().await;
            house.listen(&room);
        }
    }
    // A login renews as well, without a word about passwords.
    house.rest().await;
    house.matrix = None;
    let old = token(&house).await;
    *proxy.rules.expired.lock().unwrap() = Some(old.clone());
    let asked = session::ask(&house.store, &house.config, &http()).await;
    assert_eq!(asked.unwrap(), SessionState::Accepted);
    assert_ne!(token(&house).await, old);
}

/// Waits until the kept session is another one than this.
async fn renewed(house: &House, old: &str) {
    let renewed = timeout(Duration::from_mins(1), async {
        while token(house).await == old {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    renewed.await.expect("the session is renewed");
}

#[tokio::test(flavor = "multi_thread")]
async fn c21_a_session_is_renewed_before_it_expires_and_a_lost_answer_is_asked_for_at_once() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = Proxy::before(synapse).await;
    *proxy.rules.lifetime.lock().unwrap() = Some(8_000);
    *proxy.rules.grace.lock().unwrap() = Some(Duration::from_secs(15));
    // The first answer never comes, on a connection that stays open.
    proxy.rules.mute_renewals.store(1, Ordering::SeqCst);
    let (scene, proxy) = scene_behind(proxy, synapse, true, Timeouts::default()).await;
    let first = token(&scene.house).await;
    // No request has found the session expired.
    renewed(&scene.house, &first).await;
    assert!(!proxy.rules.removed.load(Ordering::SeqCst));
    // So it goes on, also after a restart.
    let Scene {
        mut house,
        person,
        room,
        lane,
        ..
    } = scene;
    let second = token(&house).await;
    house.reopen().await;
    house.listen(&room);
    renewed(&house, &second).await;
    person.say(&room, "still here").await.unwrap();
    assert_eq!(text_of(&house.next(lane).await), "still here");
    assert!(!proxy.rules.removed.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn c21_renewals_whose_answers_are_lost_do_not_cost_the_device() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene(synapse, true, Timeouts::default()).await;
    let Scene {
        house,
        person,
        room,
        lane,
        ..
    } = scene;
    *proxy.rules.grace.lock().unwrap() = Some(Duration::from_secs(15));
    for round in 0..2 {
        proxy.rules.lose_renewals.store(3, Ordering::SeqCst);
        let old = token(&house).await;
        *proxy.rules.expired.lock().unwrap() = Some(old.clone());
        renewed(&house, &old).await;
        let text = format!("message {round}");
        person.say(&room, &text).await.unwrap();
        assert_eq!(text_of(&house.next(lane).await), text);
    }
    assert!(!proxy.rules.removed.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn c21_where_a_spent_refresh_token_cost_the_device_it_is_said_so_and_the_queue_stays() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene(synapse, true, Timeouts::default()).await;
    let Scene {
        mut house,
        person,
        room,
        lane,
        ..
    } = scene;
    person.say(&room, "kept").await.unwrap();
    let owed = async {
        while !matches!(
            house
                .store
                .queue_head(lane, house.clock.now())
                .await
                .unwrap(),
            QueueHead::Ready(_)
        ) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), owed).await.unwrap();
    // A process has used the token and died before it had the answer; the next one comes too late.
    *proxy.rules.grace.lock().unwrap() = Some(Duration::ZERO);
    let account = house.store.account().await.unwrap().unwrap();
    let session: Value = serde_json::from_slice(&account.session.0).unwrap();
    let body = json!({"refresh_token": session["refresh_token"]});
    let url = format!("{}/_matrix/client/v3/refresh", proxy.url);
    let spent = http().post(url).json(&body).send().await.unwrap();
    assert!(spent.status().is_success());
    *proxy.rules.expired.lock().unwrap() = Some(token(&house).await);
    let ended = timeout(Duration::from_mins(1), house.listening.join_next()).await;
    let Err(MatrixError::SignedOut(why)) = ended.unwrap().unwrap().unwrap() else {
        panic!("it goes on")
    };
    for part in [
        "answer was lost",
        "removed the device",
        "footbridge device reset",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(proxy.rules.removed.load(Ordering::SeqCst));
    assert_eq!(text_of(&house.next(lane).await), "kept");
    *proxy.rules.expired.lock().unwrap() = None;
    let asked = session::ask(&house.store, &house.config, &http()).await;
    assert_eq!(asked.unwrap(), SessionState::Gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn b17_a_homeserver_that_never_ends_its_answer_is_not_read_to_the_end() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = Proxy::before(synapse).await;
    let mut house = House::new(synapse).await;
    house.login(None).await.unwrap();
    // The session has expired, and the answer to its renewal has no end.
    *proxy.rules.expired.lock().unwrap() = Some(token(&house).await);
    let script = vec![Lie::Line(GOOD), Lie::Answer(Vec::new(), 512)];
    let liar = Liar::before(&proxy.url, script).await;
    let url = format!("http://{}", liar.address);
    house.config.homeserver = Homeserver::Url(url.parse().unwrap());
    let http = reqwest::Client::builder().pool_max_idle_per_host(0);
    let asked = session::ask(&house.store, &house.config, &http.build().unwrap()).await;
    assert_eq!(asked.unwrap(), SessionState::Unknown);
    let swallowed = liar.swallowed.load(Ordering::SeqCst);
    assert!((1..64 << 20).contains(&swallowed), "{swallowed}");
}
