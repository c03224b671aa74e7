//! C20: a bridge that was invited before its device logged in, on a homeserver that does not announce the new device.

use super::{proxy::Proxy, *};

#[tokio::test(flavor = "multi_thread")]
async fn c20_senders_without_keys_are_named_and_a_new_invite_is_the_remedy() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = Proxy::before(synapse).await;
    let mut bridge = TestBridge::new(synapse).await;
    bridge.config.timeouts.notice_after = Duration::from_secs(1);
    let name = unique("person");
    let ann = synapse.register(&name, PASSWORD).await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let person = TestClient::login_as(&proxy.url, &name, PASSWORD, files.path(), Identity::New);
    let person = person.await.unwrap();
    // The invite comes first.
    let invited = [bridge.user.clone()];
    let room = person.create_room("A room", true, &invited).await.unwrap();
    person.say(&room, "before anything").await.unwrap();
    *proxy.rules.hidden.lock().unwrap() = Some(bridge.user.clone());
    // The login comes later.
    bridge.login(None).await.unwrap();
    bridge.open(Trust::CrossSigned).await;
    let lane = bridge.portal(&room).await;
    bridge.listen(&room);
    wait_for_member(&person, &room, &bridge.user, "join").await;
    bridge.entered(&room).await;
    assert!(
        bridge
            .store
            .senders_without_keys()
            .await
            .unwrap()
            .is_empty()
    );
    person.say(&room, "nobody reads this").await.unwrap();
    let notice = text_of(&bridge.next(lane).await);
    assert!(notice.contains("has not received the key"), "{notice}");
    let senders_without_keys = bridge.store.senders_without_keys().await.unwrap();
    let named: Vec<_> = senders_without_keys
        .iter()
        .map(|one| (&one.place, &one.sender))
        .collect();
    assert_eq!(named, [(&Place::room(&room), &ann)]);
    let peek = Store::snapshot(bridge.store.directory()).await.unwrap();
    assert_eq!(peek.senders_without_keys, senders_without_keys);

    // The remedy that the notice names: leave the room and join it again. The homeserver then announces the devices
    // anew.
    let member = ("m.room.member", bridge.user.as_str());
    let out = json!({"membership": "leave"});
    person.send_state(&room, member, out).await.unwrap();
    let is_out = |seen: &SeenEvent| {
        seen.event_type == "m.room.member" && seen.content["membership"] == "leave"
    };
    wait_for(&person, is_out).await;
    *proxy.rules.hidden.lock().unwrap() = None;
    person.invite(&room, &bridge.user).await.unwrap();
    wait_for_member(&person, &room, &bridge.user, "join").await;
    person.say(&room, "now it crosses").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "now it crosses");
    assert!(
        bridge
            .store
            .senders_without_keys()
            .await
            .unwrap()
            .is_empty()
    );
}
