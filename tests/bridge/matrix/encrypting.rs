//! What is sent and read around the moment at which a room becomes encrypted, and who may use its keys at once.

use super::{bare::Bare, *};

#[tokio::test(flavor = "multi_thread")]
async fn lanes_into_one_room_share_its_keys_also_where_each_message_has_its_own() {
    let synapse = Synapse::shared().await.unwrap();
    let encryption = json!({"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": 1});
    let Bare {
        mut house, room, ..
    } = Bare::new(synapse, Some(encryption)).await;
    let mut lanes = JoinSet::new();
    for lane in 0..2 {
        for number in 0..30 {
            let (matrix, to) = (house.matrix().clone(), Place::room(&room));
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
    house.rest().await;
}
