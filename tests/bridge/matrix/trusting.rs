//! Whose identity the bridge trusts, and how long it uses a room key: P02, P04, P05, C20.

use std::collections::BTreeSet;

use footbridge_testbed::proxy::{Matcher, Proxy, Rewrite};

use super::{bare::Bare, *};

/// The Megolm sessions of the bridge's messages in a room, in the order of their first use.
async fn sessions(synapse: &Synapse, bridge: &TestBridge, room: &str) -> Vec<String> {
    let mut found = Vec::new();
    for event in synapse.events(room).await.unwrap() {
        let session = event.json["content"]["session_id"].as_str();
        if let Some(session) = session.filter(|_| event.sender == bridge.user)
            && !found.contains(&session.to_owned())
        {
            found.push(session.to_owned());
        }
    }
    found
}

/// The texts of the bridge's pending notices to the room, which count as delivered afterwards.
async fn notices(bridge: &TestBridge, lane: LaneId) -> Vec<String> {
    let back = LaneId {
        toward: Side::Matrix,
        ..lane
    };
    let mut found = Vec::new();
    while let QueueHead::Ready(delivery) = bridge
        .store
        .queue_head(back, bridge.clock.now())
        .await
        .unwrap()
    {
        let copy = Copy {
            remote: RemoteId(unique("copy")),
            thread: None,
            sent_at: bridge.clock.now(),
            file: None,
        };
        found.push(text_of(&Message::from_bytes(&delivery.payload).unwrap()));
        bridge
            .store
            .complete_step(delivery.id, Some(&copy), None, true, bridge.clock.now())
            .await
            .unwrap();
    }
    found
}

/// A bridge with a short notice delay and a short limit for room keys, with a person in its encrypted room.
async fn with_short_limits(
    synapse: &Synapse,
) -> (TestBridge, TestClient, String, LaneId, tempfile::TempDir) {
    let mut bridge = TestBridge::ready(synapse).await;
    bridge.matrix = None;
    bridge.config.timeouts.notice_after = Duration::from_millis(200);
    // The bridge waits no longer than this for a room key; a trust hold has no limit.
    bridge.config.timeouts.key_limit = Duration::from_secs(2);
    bridge.open(Trust::CrossSigned).await;
    let (person, files) = person(synapse, Identity::New).await;
    let invited = [bridge.user.clone()];
    let room = person.create_room("A room", true, &invited).await.unwrap();
    let lane = bridge.portal(&room).await;
    bridge.listen(&room);
    wait_for_member(&person, &room, &bridge.user, "join").await;
    bridge.entered(&room).await;
    (bridge, person, room, lane, files)
}

/// The person sends messages until the bridge knows the new identity; messages before that count as sent with the old
/// one, and are relayed. Returns the text of the first held message.
pub(super) async fn first_held(
    bridge: &TestBridge,
    person: &TestClient,
    room: &str,
    lane: LaneId,
) -> String {
    let waited = timeout(LIMIT, async {
        for number in 0.. {
            let text = format!("probe {number}");
            person.say(room, &text).await.unwrap();
            loop {
                if !bridge
                    .device()
                    .held_for_approval()
                    .await
                    .unwrap()
                    .is_empty()
                {
                    return text;
                }
                if let QueueHead::Ready(_) = bridge
                    .store
                    .queue_head(lane, bridge.clock.now())
                    .await
                    .unwrap()
                {
                    assert_eq!(text_of(&bridge.next(lane).await), text);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        String::new()
    });
    waited.await.expect("the change is noticed")
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_messages_of_a_changed_identity_are_held_until_an_admin_accepts_it() {
    let synapse = Synapse::shared().await.unwrap();
    let (mut bridge, person, room, lane, _files) = with_short_limits(synapse).await;
    person.say(&room, "before").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "before");
    let user = person.user_id();
    let unknown = bridge.device().approve("@nobody:nowhere", "key");
    let unknown = unknown.await.unwrap();
    assert_eq!(unknown, None, "their identity is unknown");

    person.replace_identity(PASSWORD).await.unwrap();
    let first = first_held(&bridge, &person, &room, lane).await;
    let held = bridge.device().held_for_approval().await.unwrap();
    assert_eq!(held, [(user.clone(), 1)]);
    person.say(&room, "second").await.unwrap();
    let (other, _others_files) = person_in(synapse, &person, &room, Identity::New).await;
    other.say(&room, "others pass").await.unwrap();
    // Both sides are notified, once.
    let mut heard = Vec::new();
    let waited = timeout(LIMIT, async {
        while heard.len() < 2 {
            heard.push(text_of(&bridge.next(lane).await));
        }
    });
    waited.await.unwrap();
    heard.sort();
    assert_eq!(heard[0], "others pass");
    assert!(heard[1].contains("are held"), "{heard:?}");
    let told = notices(&bridge, lane).await;
    let [told] = &told[..] else {
        panic!("{told:?}")
    };
    let known = bridge.device().identities_of(&user).await.unwrap();
    let [(key, 2)] = &known.changed[..] else {
        panic!("{known:?}")
    };
    assert!(
        told.contains(&format!("`!bridge trust {user} {key}`")),
        "{told}"
    );
    // Neither the limit for room keys nor a restart ends the hold.
    tokio::time::sleep(Duration::from_secs(3)).await;
    bridge.reopen().await;
    bridge.listen(&room);
    other.say(&room, "after the start").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "after the start");
    let held = bridge.device().held_for_approval().await.unwrap();
    assert_eq!(held, [(user.clone(), 2)]);
    assert!(bridge.refused("identity-changed") <= 2);

    let wrong = key.to_uppercase();
    assert_eq!(bridge.device().approve(&user, &wrong).await.unwrap(), None);
    let approved = bridge.device().approve(&user, key).await.unwrap().unwrap();
    assert_eq!(approved.held, 2);
    let mut heard = Vec::new();
    let waited = timeout(LIMIT, async {
        while heard.len() < 2 {
            let text = text_of(&bridge.next(lane).await);
            if !text.starts_with('🔒') && !text.starts_with('🔓') {
                heard.push(text);
            }
        }
    });
    waited.await.expect("the held messages are relayed");
    assert_eq!(heard, [first, "second".to_owned()]);
    assert!(
        bridge
            .device()
            .held_for_approval()
            .await
            .unwrap()
            .is_empty()
    );
    person.say(&room, "believed again").await.unwrap();
    let waited = timeout(LIMIT, async {
        while text_of(&bridge.next(lane).await) != "believed again" {}
    });
    waited.await.expect("the new identity is trusted");
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_plaintext_in_an_encrypted_room_gives_one_notice() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let intruder = raw_member(synapse, &person, &room).await;
    for number in 0..2 {
        let path = format!("rooms/{room}/send/m.room.message/{number}");
        let body = json!({"msgtype": "m.text", "body": "in the clear"});
        raw(synapse, &intruder, "PUT", &path, body).await;
        person.say(&room, "encrypted").await.unwrap();
        assert_eq!(text_of(&bridge.next(lane).await), "encrypted");
    }
    assert_eq!(bridge.skipped(lane, "plaintext-in-encrypted-room").await, 2);
    assert_eq!(bridge.refused("plaintext-in-encrypted-room"), 2);
    let told = notices(&bridge, lane).await;
    let [told] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(told.contains("was not encrypted"), "{told}");
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_a_room_key_is_used_a_hundred_times_at_most_whatever_the_room_sets() {
    let synapse = Synapse::shared().await.unwrap();
    let encryption = json!({
        "algorithm": "m.megolm.v1.aes-sha2",
        "rotation_period_msgs": 100_000,
        "rotation_period_ms": 31_536_000_000_u64,
    });
    let Bare {
        mut bridge, room, ..
    } = Bare::new(synapse, Some(encryption)).await;
    for number in 0..101 {
        bridge
            .post(&room, &format!("key-{number}"), "counted")
            .await
            .unwrap();
    }
    assert_eq!(sessions(synapse, &bridge, &room).await.len(), 2);
    // After a restart the bridge uses a new room key, since it is unknown how the previous process ended.
    bridge.reopen().await;
    bridge.listen(&room);
    bridge.post(&room, "after", "a start").await.unwrap();
    assert_eq!(sessions(synapse, &bridge, &room).await.len(), 3);
    bridge.post(&room, "again", "the same key").await.unwrap();
    assert_eq!(sessions(synapse, &bridge, &room).await.len(), 3);
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_a_member_who_left_and_came_back_unseen_does_not_get_the_key_in_between() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let (guest, _files) = person_in(synapse, &person, &room, Identity::New).await;
    person.say(&room, "all here").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "all here");
    bridge.post(&room, "1", "with the first key").await.unwrap();
    bridge.post(&room, "2", "with the first key").await.unwrap();
    assert_eq!(sessions(synapse, &bridge, &room).await.len(), 1);
    // The same process continues to listen: only the gap shows the change.
    bridge.rest().await;
    guest.leave(&room).await.unwrap();
    person.invite(&room, &guest.user_id()).await.unwrap();
    guest.join(&room).await.unwrap();
    for number in 0..110 {
        person.say(&room, &format!("gap {number}")).await.unwrap();
    }
    bridge.listen(&room);
    for number in 0..110 {
        assert_eq!(text_of(&bridge.next(lane).await), format!("gap {number}"));
    }
    bridge.post(&room, "3", "with another key").await.unwrap();
    let used = sessions(synapse, &bridge, &room).await;
    assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), 2);
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_an_unsigned_device_gives_one_notice_with_the_remedy() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut bridge,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let (stranger, _files) = person_in(synapse, &person, &room, Identity::None).await;
    let mut heard = Vec::new();
    for number in 1..=2 {
        stranger.say(&room, "believe me").await.unwrap();
        let waited = timeout(LIMIT, async {
            while bridge.skipped(lane, "untrusted-device").await < number {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        waited.await.expect("the message is skipped");
        person.say(&room, "trusted").await.unwrap();
        loop {
            let message = bridge.next(lane).await;
            let text = text_of(&message);
            if text == "trusted" {
                break;
            }
            // An existing notice may be edited instead.
            if !matches!(message.action, Action::Edit { .. }) {
                heard.push(text);
            }
        }
    }
    let [told] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert!(told.contains("are not relayed"), "{told}");
    assert!(
        told.contains("once the owner verifies that device"),
        "{told}"
    );
    assert_eq!(bridge.refused("untrusted-device"), 2);
    bridge.rest().await;
}

/// Relations are outside of the ciphertext, where the homeserver can write them.
#[tokio::test(flavor = "multi_thread")]
async fn c20_no_edit_reaches_into_another_room() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
    let mut bridge = TestBridge::new(synapse).await;
    bridge.config.homeserver = Homeserver::Url(proxy.url_for(&synapse.url()).parse().unwrap());
    bridge.login(None).await.unwrap();
    bridge.open(Trust::CrossSigned).await;
    let (person, _files) = person(synapse, Identity::New).await;
    let (mut rooms, mut lanes) = (Vec::new(), Vec::new());
    for name in ["A room", "Another room"] {
        let invited = [bridge.user.clone()];
        let room = person.create_room(name, true, &invited).await.unwrap();
        lanes.push(bridge.portal(&room).await);
        rooms.push(room);
    }
    let [room, second] = &rooms[..] else { panic!() };
    bridge.listen_to(&[room, second]);
    for room in &rooms {
        bridge.entered(room).await;
    }
    person.sync(Duration::ZERO).await.unwrap();
    let event = person.say(room, "mine").await.unwrap();
    assert_eq!(text_of(&bridge.next(lanes[0]).await), "mine");
    // The proxy makes the first event an edit of a message in another room, the second an edit of one in its own room.
    for (into, lane, counted) in [(second, lanes[1], true), (room, lanes[0], false)] {
        let (place, target) = (into.clone(), event.clone());
        let syncs = Matcher::of("GET".parse().unwrap()).with("/sync");
        proxy.set_rewrite(Rewrite::once("forged", syncs, move |answer| {
            let events = answer.pointer_mut(&format!("/rooms/join/{place}/timeline/events"));
            let forged = events.and_then(Value::as_array_mut).into_iter().flatten();
            let mut forged = forged.filter(|event| event["type"] == "m.room.encrypted");
            let Some(event) = forged.next() else {
                return false;
            };
            event["content"]["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": target});
            true
        }));
        let content = json!({
            "msgtype": "m.text",
            "body": "* changed",
            "m.new_content": {"msgtype": "m.text", "body": "changed"},
        });
        person.send(into, "m.room.message", content).await.unwrap();
        if counted {
            assert_eq!(bridge.skipped(lane, "foreign-edit").await, 1);
        } else {
            let edit = bridge.next(lane).await;
            assert!(
                matches!(&edit.action, Action::Edit { target, .. } if target.as_str() == event)
            );
        }
    }
    assert_eq!(bridge.refused("foreign-edit"), 1);
    bridge.rest().await;
}
