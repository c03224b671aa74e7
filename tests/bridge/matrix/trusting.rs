//! Whom we believe, and how long a room key of ours is used: P02, P04, P05, C20.

use std::collections::BTreeSet;

use footbridge_testbed::proxy::{Matcher, Proxy, Rewrite};

use super::{bare::Bare, *};

/// The sessions of what the bridge sent into a room, in the order in which each was first used.
async fn sessions(synapse: &Synapse, house: &House, room: &str) -> Vec<String> {
    let mut found = Vec::new();
    for event in synapse.events(room).await.unwrap() {
        let session = event.json["content"]["session_id"].as_str();
        if let Some(session) = session.filter(|_| event.sender == house.user)
            && !found.contains(&session.to_owned())
        {
            found.push(session.to_owned());
        }
    }
    found
}

/// What the bridge itself owes to the room.
async fn notices(house: &House, lane: LaneId) -> Vec<String> {
    let back = LaneId {
        toward: Side::Matrix,
        ..lane
    };
    let mut found = Vec::new();
    while let QueueHead::Ready(delivery) = house
        .store
        .queue_head(back, house.clock.now())
        .await
        .unwrap()
    {
        let copy = Copy {
            remote: RemoteId(unique("copy")),
            thread: None,
            sent_at: house.clock.now(),
            file: None,
        };
        found.push(text_of(&Message::from_bytes(&delivery.payload).unwrap()));
        house
            .store
            .complete_step(delivery.id, Some(&copy), None, true, house.clock.now())
            .await
            .unwrap();
    }
    found
}

/// A house that soon tells of what is missing and soon gives up a key, with a person in its encrypted room.
async fn impatient(synapse: &Synapse) -> (House, TestClient, String, LaneId, tempfile::TempDir) {
    let mut house = House::ready(synapse).await;
    house.matrix = None;
    house.config.timeouts.notice_after = Duration::from_millis(200);
    // Longer than this nobody waits for a key; what is held waits without end.
    house.config.timeouts.key_limit = Duration::from_secs(2);
    house.open(Trust::CrossSigned).await;
    let (person, files) = person(synapse, Identity::New).await;
    let invited = [house.user.clone()];
    let room = person.create_room("A room", true, &invited).await.unwrap();
    let lane = house.portal(&room).await;
    house.listen(&room);
    wait_for_member(&person, &room, &house.user, "join").await;
    house.entered(&room).await;
    (house, person, room, lane, files)
}

/// The person goes on talking until the bridge has heard of the new identity: what it has not heard of comes from the
/// old one, and crosses. Answers the first words that are held.
pub(super) async fn first_held(
    house: &House,
    person: &TestClient,
    room: &str,
    lane: LaneId,
) -> String {
    let waited = timeout(LIMIT, async {
        for number in 0.. {
            let text = format!("probe {number}");
            person.say(room, &text).await.unwrap();
            loop {
                if !house.matrix().held_for_approval().await.unwrap().is_empty() {
                    return text;
                }
                if let QueueHead::Ready(_) = house
                    .store
                    .queue_head(lane, house.clock.now())
                    .await
                    .unwrap()
                {
                    assert_eq!(text_of(&house.next(lane).await), text);
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
async fn p02_a_changed_identity_holds_its_messages_until_somebody_in_charge_accepts_it() {
    let synapse = Synapse::shared().await.unwrap();
    let (mut house, person, room, lane, _files) = impatient(synapse).await;
    person.say(&room, "before").await.unwrap();
    assert_eq!(text_of(&house.next(lane).await), "before");
    let user = person.user_id();
    let unknown = house.matrix().approve("@nobody:nowhere", "key");
    let unknown = unknown.await.unwrap();
    assert_eq!(unknown, None, "nothing is known of them");

    person.replace_identity(PASSWORD).await.unwrap();
    let first = first_held(&house, &person, &room, lane).await;
    let held = house.matrix().held_for_approval().await.unwrap();
    assert_eq!(held, [(user.clone(), 1)]);
    person.say(&room, "second").await.unwrap();
    let (other, _others_files) = person_in(synapse, &person, &room, Identity::New).await;
    other.say(&room, "others pass").await.unwrap();
    // Both sides are told, once.
    let mut heard = Vec::new();
    let waited = timeout(LIMIT, async {
        while heard.len() < 2 {
            heard.push(text_of(&house.next(lane).await));
        }
    });
    waited.await.unwrap();
    heard.sort();
    assert_eq!(heard[0], "others pass");
    assert!(heard[1].contains("are held"), "{heard:?}");
    let told = notices(&house, lane).await;
    let [told] = &told[..] else {
        panic!("{told:?}")
    };
    let known = house.matrix().identities_of(&user).await.unwrap();
    let [(key, 2)] = &known.changed[..] else {
        panic!("{known:?}")
    };
    assert!(
        told.contains(&format!("`!bridge trust {user} {key}`")),
        "{told}"
    );
    // Neither the limit for keys nor a restart gives them up.
    tokio::time::sleep(Duration::from_secs(3)).await;
    house.reopen().await;
    house.listen(&room);
    other.say(&room, "after the start").await.unwrap();
    assert_eq!(text_of(&house.next(lane).await), "after the start");
    let held = house.matrix().held_for_approval().await.unwrap();
    assert_eq!(held, [(user.clone(), 2)]);
    assert!(house.matrix().security_counts()["identity-changed"] <= 2);

    let wrong = key.to_uppercase();
    assert_eq!(house.matrix().approve(&user, &wrong).await.unwrap(), None);
    let approved = house.matrix().approve(&user, key).await.unwrap().unwrap();
    assert_eq!(approved.held, 2);
    let mut heard = Vec::new();
    let waited = timeout(LIMIT, async {
        while heard.len() < 2 {
            let text = text_of(&house.next(lane).await);
            if !text.starts_with('🔒') && !text.starts_with('🔓') {
                heard.push(text);
            }
        }
    });
    waited.await.expect("what was held is relayed");
    assert_eq!(heard, [first, "second".to_owned()]);
    assert!(house.matrix().held_for_approval().await.unwrap().is_empty());
    person.say(&room, "believed again").await.unwrap();
    let waited = timeout(LIMIT, async {
        while text_of(&house.next(lane).await) != "believed again" {}
    });
    waited.await.expect("the new identity is believed");
    house.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_of_plaintext_in_an_encrypted_room_people_are_told_once() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut house,
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
        assert_eq!(text_of(&house.next(lane).await), "encrypted");
    }
    assert_eq!(house.skipped(lane, "plaintext-in-encrypted-room").await, 2);
    assert_eq!(
        house.matrix().security_counts()["plaintext-in-encrypted-room"],
        2
    );
    let told = notices(&house, lane).await;
    let [told] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(told.contains("was not encrypted"), "{told}");
    house.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_a_key_of_ours_is_used_a_hundred_times_at_most_whatever_the_room_says() {
    let synapse = Synapse::shared().await.unwrap();
    let encryption = json!({
        "algorithm": "m.megolm.v1.aes-sha2",
        "rotation_period_msgs": 100_000,
        "rotation_period_ms": 31_536_000_000_u64,
    });
    let Bare {
        mut house, room, ..
    } = Bare::new(synapse, Some(encryption)).await;
    for number in 0..101 {
        house
            .post(&room, &format!("key-{number}"), "counted")
            .await
            .unwrap();
    }
    assert_eq!(sessions(synapse, &house, &room).await.len(), 2);
    // Nobody knows how the process before this one ended.
    house.reopen().await;
    house.listen(&room);
    house.post(&room, "after", "a start").await.unwrap();
    assert_eq!(sessions(synapse, &house, &room).await.len(), 3);
    house.post(&room, "again", "the same key").await.unwrap();
    assert_eq!(sessions(synapse, &house, &room).await.len(), 3);
    house.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_who_left_and_came_back_while_nobody_looked_does_not_share_the_key_in_between() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut house,
        person,
        room,
        lane,
        ..
    } = Scene::new(synapse, true).await;
    let (guest, _files) = person_in(synapse, &person, &room, Identity::New).await;
    person.say(&room, "all here").await.unwrap();
    assert_eq!(text_of(&house.next(lane).await), "all here");
    house.post(&room, "1", "with the first key").await.unwrap();
    house.post(&room, "2", "with the first key").await.unwrap();
    assert_eq!(sessions(synapse, &house, &room).await.len(), 1);
    // The same process listens on: only the gap tells.
    house.rest().await;
    guest.leave(&room).await.unwrap();
    person.invite(&room, &guest.user_id()).await.unwrap();
    guest.join(&room).await.unwrap();
    for number in 0..110 {
        person.say(&room, &format!("gap {number}")).await.unwrap();
    }
    house.listen(&room);
    for number in 0..110 {
        assert_eq!(text_of(&house.next(lane).await), format!("gap {number}"));
    }
    house.post(&room, "3", "with another key").await.unwrap();
    let used = sessions(synapse, &house, &room).await;
    assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), 2);
    house.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_of_an_unsigned_device_people_are_told_once_and_how_it_is_signed() {
    let synapse = Synapse::shared().await.unwrap();
    let Scene {
        mut house,
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
            while house.skipped(lane, "untrusted-device").await < number {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        waited.await.expect("it does not cross");
        person.say(&room, "trusted").await.unwrap();
        loop {
            let message = house.next(lane).await;
            let text = text_of(&message);
            if text == "trusted" {
                break;
            }
            // The notice that is there may be said again in its place.
            if !matches!(message.action, Action::Edit { .. }) {
                heard.push(text);
            }
        }
    }
    let [told] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert!(told.contains("do not cross"), "{told}");
    assert!(
        told.contains("once the owner verifies that device"),
        "{told}"
    );
    assert_eq!(house.matrix().security_counts()["untrusted-device"], 2);
    house.rest().await;
}

/// Relations stand outside of the ciphertext, where the homeserver can write them.
#[tokio::test(flavor = "multi_thread")]
async fn c20_no_edit_reaches_into_another_room() {
    let synapse = Synapse::shared().await.unwrap();
    let proxy = Proxy::start(&synapse.url(), 1).await.unwrap();
    let mut house = House::new(synapse).await;
    house.config.homeserver = Homeserver::Url(proxy.url_for(&synapse.url()).parse().unwrap());
    house.login(None).await.unwrap();
    house.open(Trust::CrossSigned).await;
    let (person, _files) = person(synapse, Identity::New).await;
    let (mut rooms, mut lanes) = (Vec::new(), Vec::new());
    for name in ["A room", "Another room"] {
        let invited = [house.user.clone()];
        let room = person.create_room(name, true, &invited).await.unwrap();
        lanes.push(house.portal(&room).await);
        rooms.push(room);
    }
    let [room, second] = &rooms[..] else { panic!() };
    house.listen_to(&[room, second]);
    for room in &rooms {
        house.entered(room).await;
    }
    person.sync(Duration::ZERO).await.unwrap();
    let event = person.say(room, "mine").await.unwrap();
    assert_eq!(text_of(&house.next(lanes[0]).await), "mine");
    // Of these two the first is made an edit of a message in another room, the second of one in its own.
    for (into, lane, counted) in [(second, lanes[1], true), (room, lanes[0], false)] {
        let (place, target) = (into.clone(), event.clone());
        let syncs = Matcher::of("GET".parse().unwrap()).with("/sync");
        proxy.tell(Rewrite::once("forged", syncs, move |answer| {
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
            assert_eq!(house.skipped(lane, "foreign-edit").await, 1);
        } else {
            let edit = house.next(lane).await;
            assert!(
                matches!(&edit.action, Action::Edit { target, .. } if target.as_str() == event)
            );
        }
    }
    assert_eq!(house.matrix().security_counts()["foreign-edit"], 1);
    house.rest().await;
}
