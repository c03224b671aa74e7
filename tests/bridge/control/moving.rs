//! Room upgrades: a portal follows only where that is safe (P19).

use footbridge_testbed::scenario::until;
use serde_json::json;

use super::{PATIENCE, channel, command, hear, link, old_room, open, posted, read, room, said};
use crate::matrix::{raw, raw_member};

#[tokio::test]
async fn p19_a_portal_follows_its_room_where_the_new_one_names_it_and_is_as_safe() {
    let (synapse, scene) = open(true).await;
    let old = scene.stage.room.clone();
    scene.ann.say(&old, "in the old room").await.unwrap();
    read(&scene, &scene.stage.channel, "in the old room").await;
    let new = scene.ann.upgrade_room(&old).await.unwrap();
    scene.ann.invite(&new, &scene.bridge_user).await.unwrap();
    hear(&scene, &new, "has moved here").await;
    scene.ann.say(&new, "in the new room").await.unwrap();
    read(&scene, &scene.stage.channel, "in the new room").await;
    scene
        .sim
        .say(&scene.stage.channel.id, &scene.mary.id, "from the channel");
    hear(&scene, &new, "from the channel").await;
    // After a restart the configuration still names the old room.
    scene.bridge.terminate().await.unwrap();
    let list = command(&scene, &["portal", "list"]).await;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let named = format!("moved from {old}");
    assert!(list.starts_with(&new) && list.contains(&named), "{list}");
    scene.bridge.start().await.unwrap();
    scene.ann.say(&new, "after a new start").await.unwrap();
    read(&scene, &scene.stage.channel, "after a new start").await;
    for event in synapse.events(&new).await.unwrap() {
        let is_message = event.sender == scene.bridge_user && event.json.get("state_key").is_none();
        assert!(!is_message || event.event_type == "m.room.encrypted");
    }
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
}

#[tokio::test]
async fn p19_a_portal_stays_if_the_new_room_is_unencrypted_or_does_not_name_the_old_one() {
    let (_, scene) = open(true).await;
    for (encrypted, uri) in [(false, "footbridge/clear"), (true, "footbridge/stranger")] {
        let old = room(&scene, true).await;
        let channel = channel(&scene, uri, &[]);
        link(&scene, &old, &channel, true).await;
        scene.ann.say(&old, "in the old room").await.unwrap();
        read(&scene, &channel, "in the old room").await;
        let invited = [scene.bridge_user.clone()];
        let new = scene
            .ann
            .create_room("New", encrypted, &invited)
            .await
            .unwrap();
        let moved = json!({"body": "moved", "replacement_room": new});
        scene
            .ann
            .send_state(&old, ("m.room.tombstone", ""), moved)
            .await
            .unwrap();
        let told = hear(&scene, &old, "does not move to the new room").await;
        assert!(
            told.contains("does not name this room as its predecessor"),
            "{told}"
        );
        scene.sim.say(&channel.id, &scene.mary.id, "waits");
        scene.ann.say(&old, "waits as well").await.unwrap();
        scene.ann.say(&new, "in the new room").await.unwrap();
        scene.ann.say(&old, "!bridge status").await.unwrap();
        hear(&scene, &old, "the room was upgraded").await;
        assert!(!said(&scene, &old).join("\n").contains("waits\n"));
        assert!(
            !posted(&scene, &channel)
                .join("\n")
                .contains("waits as well")
        );
        // An admin decides to stay in the old room.
        scene.ann.say(&old, "!bridge resume").await.unwrap();
        read(&scene, &channel, "waits as well").await;
        assert!(
            !posted(&scene, &channel)
                .join("\n")
                .contains("in the new room")
        );
    }
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
}

#[tokio::test]
async fn p19_a_portal_stays_if_the_user_who_upgrades_the_room_lacks_permission() {
    let (synapse, scene) = open(true).await;
    let old = old_room(&scene).await;
    let channel = channel(&scene, "footbridge/usurped", &[]);
    link(&scene, &old, &channel, false).await;
    let bob = raw_member(synapse, &scene.ann, &old).await;
    let power = json!({"users": {scene.ann.user_id(): 100, bob.user_id.clone(): 100}});
    scene
        .ann
        .send_state(&old, ("m.room.power_levels", ""), power)
        .await
        .unwrap();
    let path = format!("rooms/{old}/upgrade");
    let answer = raw(synapse, &bob, "POST", &path, json!({"new_version": "10"})).await;
    let new = answer["replacement_room"].as_str().unwrap().to_owned();
    let path = format!("rooms/{new}/invite");
    let body = json!({"user_id": scene.bridge_user});
    raw(synapse, &bob, "POST", &path, body).await;
    // In the old room only its admins may send; the bridge notifies the channel.
    let told = || {
        posted(&scene, &channel)
            .iter()
            .any(|text| text.contains("was upgraded"))
    };
    until(PATIENCE, told).await.unwrap();
    scene
        .sim
        .say(&channel.id, &scene.mary.id, "nobody moves me");
    scene.bridge.terminate().await.unwrap();
    let events = synapse.events(&new).await.unwrap();
    let joined = events.iter().any(|event| {
        event.event_type == "m.room.member"
            && event.json["state_key"] == scene.bridge_user.as_str()
            && event.json["content"]["membership"] == "join"
    });
    assert!(
        !joined,
        "somebody without permission does not move the bridge into a room"
    );
}
