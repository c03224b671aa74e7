//! What the bridge sends and reads around the moment at which a room becomes encrypted, and who may use its room keys
//! at once.

use super::{bare::Bare, *};

#[tokio::test(flavor = "multi_thread")]
async fn lanes_into_one_room_share_its_keys_also_where_each_message_has_its_own() {
    let synapse = Synapse::shared().await.unwrap();
    let encryption = json!({"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": 1});
    let Bare {
        mut bridge, room, ..
    } = Bare::new(synapse, Some(encryption)).await;
    let mut lanes = JoinSet::new();
    for lane in 0..2 {
        for number in 0..30 {
            let (matrix, to) = (bridge.outlet(), Place::room(&room));
            let step = Step::Post {
                content: content(&format!("{lane} says {number}")),
                thread: None,
                reply_to: None,
            };
            lanes.spawn(async move {
                matrix
                    .perform(&to, &format!("{lane}-{number}"), &step)
                    .await
            });
        }
    }
    while let Some(sent) = lanes.join_next().await {
        sent.expect("the SDK does not panic").unwrap();
    }
    let stored = synapse.events(&room).await.unwrap();
    let sessions: std::collections::HashSet<String> = stored
        .iter()
        .filter(|event| event.event_type == "m.room.encrypted")
        .map(|event| event.json["content"]["session_id"].to_string())
        .collect();
    assert_eq!(sessions.len(), 60, "one key for each message");
    bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f36_nothing_is_sent_unencrypted_where_encryption_began_during_a_downtime() {
    let synapse = Synapse::shared().await.unwrap();
    for restarted in [true, false] {
        let Scene {
            mut bridge,
            person,
            room,
            ..
        } = Scene::new(synapse, false).await;
        bridge.post(&room, "a", "plain room").await.unwrap();
        bridge.rest().await;
        person.enable_encryption(&room).await.unwrap();
        if restarted {
            bridge.reopen().await;
        }
        // After a start the SDK may request the encryption state itself, and encrypt.
        let outcome = bridge.post(&room, "b", "must be encrypted").await;
        let not_done = |error: &SendError| match error {
            SendError::Retry { outcome, .. } => *outcome == Outcome::NotDone,
            _ => false,
        };
        assert!(outcome.as_ref().err().is_none_or(not_done), "{outcome:?}");
        bridge.listen(&room);
        let waited = timeout(LIMIT, async {
            while bridge.post(&room, "b", "must be encrypted").await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        waited
            .await
            .expect("a sync tells the SDK of the encryption");
        let stored = synapse.events(&room).await.unwrap();
        let sent: Vec<_> = stored
            .iter()
            .filter(|event| event.sender == bridge.user && event.json.get("state_key").is_none())
            .map(|event| event.event_type.as_str())
            .collect();
        assert_eq!(sent, ["m.room.message", "m.room.encrypted"]);
        bridge.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_before_encryption_are_read_and_later_unencrypted_ones_are_not() {
    let synapse = Synapse::shared().await.unwrap();
    // The last count makes the timeline limited. A lane that asks first learns of the encryption before the sync does.
    for (count, asked) in [(1, false), (1, true), (110, true)] {
        let Scene {
            mut bridge,
            person,
            room,
            lane,
            ..
        } = Scene::new(synapse, false).await;
        let intruder = raw_member(synapse, &person, &room).await;
        person.say(&room, "hello").await.unwrap();
        assert_eq!(text_of(&bridge.next(lane).await), "hello");
        bridge.reopen().await;
        for number in 0..count {
            person.say(&room, &format!("plain {number}")).await.unwrap();
        }
        person.enable_encryption(&room).await.unwrap();
        let path = format!("rooms/{room}/send/m.room.message/1");
        let body = json!({"msgtype": "m.text", "body": "in the clear"});
        raw(synapse, &intruder, "PUT", &path, body).await;
        person.sync(Duration::ZERO).await.unwrap();
        if asked {
            let _held_or_encrypted = bridge.post(&room, "a", "from the channel").await;
        }
        bridge.listen(&room);
        bridge.agree(lane).await;
        for number in 0..count {
            let plain = bridge.next(lane).await;
            assert_eq!(text_of(&plain), format!("plain {number}"));
        }
        assert_eq!(bridge.skipped(lane, "plaintext-in-encrypted-room").await, 1);
        person.say(&room, "encrypted").await.unwrap();
        assert_eq!(text_of(&bridge.next(lane).await), "encrypted");
        bridge.rest().await;
    }
}
