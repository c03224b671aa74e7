//! D21, F29: a session that has expired is continued on the same device, and nothing is lost.

use std::sync::atomic::Ordering;

use super::{
    proxy::{Proxy, scene},
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
    let (scene, proxy) = scene(synapse, true, Patience::default()).await;
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
        assert_eq!(again.face, before.face);
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
    let (scene, proxy) = scene(synapse, true, Patience::default()).await;
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
        assert_eq!(now.face, before.face);
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
