//! C20: a bridge that was invited before it logged in, on a homeserver that tells nobody of its new device.

use super::{proxy::Proxy, *};

#[tokio::test(flavor = "multi_thread")]
async fn c20_who_never_sent_a_key_is_named_and_an_invite_anew_is_the_cure() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = Proxy::before(synapse).await;
    let mut house = House::new(synapse).await;
    house.config.timeouts.notice_after = Duration::from_secs(1);
    let name = unique("person");
    let ann = synapse.register(&name, PASSWORD).await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let person = TestClient::login_as(&proxy.url, &name, PASSWORD, files.path(), Identity::New);
    let person = person.await.unwrap();
    // Invited first.
    let invited = [house.user.clone()];
    let room = person.create_room("A room", true, &invited).await.unwrap();
    person.say(&room, "before anything").await.unwrap();
    *proxy.rules.hidden.lock().unwrap() = Some(house.user.clone());
    // Logged in later.
    house.login(None).await.unwrap();
    house.open(Trust::CrossSigned).await;
    let lane = house.portal(&room).await;
    house.listen(&room);
    wait_for_member(&person, &room, &house.user, "join").await;
    house.entered(&room).await;
    assert!(house.store.senders_without_keys().await.unwrap().is_empty());
    person.say(&room, "nobody reads this").await.unwrap();
    let notice = text_of(&house.next(lane).await);
    assert!(notice.contains("has not received the key"), "{notice}");
    let senders_without_keys = house.store.senders_without_keys().await.unwrap();
    let named: Vec<_> = senders_without_keys
        .iter()
        .map(|one| (&one.place, &one.sender))
        .collect();
    assert_eq!(named, [(&Place::room(&room), &ann)]);
    let peek = Store::snapshot(house.store.directory()).await.unwrap();
    assert_eq!(peek.senders_without_keys, senders_without_keys);

    // The cure that is named: out of the room and in again. The homeserver tells of whom one shares a room with anew.
    let member = ("m.room.member", house.user.as_str());
    let out = json!({"membership": "leave"});
    person.send_state(&room, member, out).await.unwrap();
    let is_out = |seen: &SeenEvent| {
        seen.event_type == "m.room.member" && seen.content["membership"] == "leave"
    };
    wait_for(&person, is_out).await;
    *proxy.rules.hidden.lock().unwrap() = None;
    person.invite(&room, &house.user).await.unwrap();
    wait_for_member(&person, &room, &house.user, "join").await;
    person.say(&room, "now it crosses").await.unwrap();
    assert_eq!(text_of(&house.next(lane).await), "now it crosses");
    assert!(house.store.senders_without_keys().await.unwrap().is_empty());
}
