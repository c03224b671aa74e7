//! D21, F29: an expired session is continued on the same device, and nothing is lost.

use std::sync::atomic::Ordering;

use super::{
    proxy::{Proxy, scene, scene_behind},
    *,
};
use crate::faulty_server::{ConnectionBehavior, FaultyServer, GOOD_LINK};

async fn token(bridge: &TestBridge) -> String {
    let account = bridge.store.relay_account().await.unwrap().unwrap();
    let session: Value = serde_json::from_slice(&account.session.0).unwrap();
    session["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn d21_f29_an_expired_session_is_continued_on_the_same_device() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene(synapse, true, Timeouts::default()).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    person.say(&room, "before").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "before");
    let before = bridge.store.relay_account().await.unwrap().unwrap();
    proxy.rules.unrenewable.store(true, Ordering::SeqCst);
    for round in 0..2 {
        let old = token(&bridge).await;
        *proxy.rules.expired.lock().unwrap() = Some(old.clone());
        let ended = timeout(LIMIT, bridge.listening.join_next()).await;
        let ended = ended.unwrap().unwrap().unwrap();
        let Err(MatrixError::SignedOut(why)) = ended else {
            panic!("{ended:?}")
        };
        assert!(why.contains("the session has expired"), "{why}");
        let held = bridge.post(&room, &format!("held {round}"), "held").await;
        assert!(matches!(held, Err(SendError::SignedOut { .. })), "{held:?}");
        person.say(&room, "meanwhile").await.unwrap();

        bridge.matrix = None;
        let again = bridge.login(None).await.unwrap();
        assert_eq!(again.face, before.info);
        assert_eq!(again.recovery_key, None);
        assert_ne!(token(&bridge).await, old);
        bridge.open(Trust::CrossSigned).await;
        bridge.listen(&room);
        assert_eq!(text_of(&bridge.next(lane).await), "meanwhile");
        bridge
            .post(&room, &format!("held {round}"), "held")
            .await
            .unwrap();
    }
    // While the session is valid nobody logs in again.
    let kept = token(&bridge).await;
    bridge.rest().await;
    bridge.matrix = None;
    bridge.login(None).await.unwrap();
    assert_eq!(token(&bridge).await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn d21_f29_a_session_that_can_be_renewed_continues_by_itself() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene(synapse, true, Timeouts::default()).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let before = bridge.store.relay_account().await.unwrap().unwrap();
    for round in 0..3 {
        let old = token(&bridge).await;
        *proxy.rules.expired.lock().unwrap() = Some(old.clone());
        // Both sending and receiving happen with an expired token.
        let text = format!("message {round}");
        bridge.post(&room, &text, &text).await.unwrap();
        person.say(&room, &text).await.unwrap();
        assert_eq!(text_of(&bridge.next(lane).await), text);
        // The store has the new token already, and the device is the same.
        assert_ne!(token(&bridge).await, old);
        let now = bridge.store.relay_account().await.unwrap().unwrap();
        assert_eq!(now.info, before.info);
        // The new token works for another run of the bridge.
        if round == 1 {
            bridge.reopen().await;
            bridge.listen(&room);
        }
    }
    // `login` renews the session too, without asking for a password.
    bridge.rest().await;
    bridge.matrix = None;
    let old = token(&bridge).await;
    *proxy.rules.expired.lock().unwrap() = Some(old.clone());
    let asked = session::ask(&bridge.store, &bridge.config, &http()).await;
    assert_eq!(asked.unwrap(), SessionState::Accepted);
    assert_ne!(token(&bridge).await, old);
}

/// Waits until the stored session is another one than this.
async fn renewed(bridge: &TestBridge, old: &str) {
    let renewed = timeout(Duration::from_mins(1), async {
        while token(bridge).await == old {
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
    // The first response never arrives, on a connection that stays open.
    proxy.rules.mute_renewals.store(1, Ordering::SeqCst);
    let (scene, proxy) = scene_behind(proxy, synapse, true, Timeouts::default()).await;
    let first = token(&scene.bridge).await;
    // No request has met an expired session.
    renewed(&scene.bridge, &first).await;
    assert!(!proxy.rules.removed.load(Ordering::SeqCst));
    // The renewed session continues to work, also after a restart.
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    let second = token(&bridge).await;
    bridge.reopen().await;
    bridge.listen(&room);
    renewed(&bridge, &second).await;
    person.say(&room, "still here").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "still here");
    assert!(!proxy.rules.removed.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn c21_renewals_whose_answers_are_lost_do_not_cost_the_device() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene(synapse, true, Timeouts::default()).await;
    let Scene {
        bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    *proxy.rules.grace.lock().unwrap() = Some(Duration::from_secs(15));
    for round in 0..2 {
        proxy.rules.lose_renewals.store(3, Ordering::SeqCst);
        let old = token(&bridge).await;
        *proxy.rules.expired.lock().unwrap() = Some(old.clone());
        renewed(&bridge, &old).await;
        let text = format!("message {round}");
        person.say(&room, &text).await.unwrap();
        assert_eq!(text_of(&bridge.next(lane).await), text);
    }
    assert!(!proxy.rules.removed.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn c21_a_device_that_was_lost_by_a_used_refresh_token_is_reported_and_the_queue_stays() {
    let synapse = Synapse::shared().await.unwrap();
    let (scene, proxy) = scene(synapse, true, Timeouts::default()).await;
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = scene;
    person.say(&room, "kept").await.unwrap();
    let owed = async {
        while !matches!(
            bridge
                .store
                .queue_head(lane, bridge.clock.now())
                .await
                .unwrap(),
            QueueHead::Ready(_)
        ) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), owed).await.unwrap();
    // A process has used the refresh token and died before it had the response; the next process comes too late.
    *proxy.rules.grace.lock().unwrap() = Some(Duration::ZERO);
    let account = bridge.store.relay_account().await.unwrap().unwrap();
    let session: Value = serde_json::from_slice(&account.session.0).unwrap();
    let body = json!({"refresh_token": session["refresh_token"]});
    let url = format!("{}/_matrix/client/v3/refresh", proxy.url);
    let spent = http().post(url).json(&body).send().await.unwrap();
    assert!(spent.status().is_success());
    *proxy.rules.expired.lock().unwrap() = Some(token(&bridge).await);
    let ended = timeout(Duration::from_mins(1), bridge.listening.join_next()).await;
    let Err(MatrixError::SignedOut(why)) = ended.unwrap().unwrap().unwrap() else {
        panic!("the bridge still runs")
    };
    for part in [
        "response was lost",
        "removed the device",
        "footbridge device reset",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(proxy.rules.removed.load(Ordering::SeqCst));
    assert_eq!(text_of(&bridge.next(lane).await), "kept");
    *proxy.rules.expired.lock().unwrap() = None;
    let asked = session::ask(&bridge.store, &bridge.config, &http()).await;
    assert_eq!(asked.unwrap(), SessionState::Gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn b17_a_homeserver_that_never_ends_its_answer_is_not_read_to_the_end() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = Proxy::before(synapse).await;
    let mut bridge = TestBridge::new(synapse).await;
    bridge.login(None).await.unwrap();
    // The session has expired, and the response to the refresh never ends.
    *proxy.rules.expired.lock().unwrap() = Some(token(&bridge).await);
    let script = vec![
        ConnectionBehavior::Forward(GOOD_LINK),
        ConnectionBehavior::Response(Vec::new(), 512),
    ];
    let faulty_server = FaultyServer::in_front_of(&proxy.url, script).await;
    let url = format!("http://{}", faulty_server.address);
    bridge.config.homeserver = Homeserver::Url(url.parse().unwrap());
    let http = reqwest::Client::builder().pool_max_idle_per_host(0);
    let asked = session::ask(&bridge.store, &bridge.config, &http.build().unwrap()).await;
    assert_eq!(asked.unwrap(), SessionState::Unknown);
    let bytes_taken = faulty_server.bytes_taken.load(Ordering::SeqCst);
    assert!((1..64 << 20).contains(&bytes_taken), "{bytes_taken}");
}
