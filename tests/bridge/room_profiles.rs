//! Names, topics and avatars of rooms and channels, through the program itself: copied where the portal shares them,
//! once for each change, and otherwise left alone.

use std::{path::PathBuf, time::Duration};

use footbridge_simulators::{channel::SimulatorKind, gitter, mattermost};
use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario},
    synapse::Synapse,
};
use serde_json::{Value, json};
use tokio::time::sleep;

/// The values that the bridge has written into this state of the room.
fn written(scene: &MultiSiloScenario, event: &str, key: &str) -> Vec<String> {
    scene.room_observer.pick(&scene.rooms[0], |heard| {
        let ours = heard.seen.sender == scene.bridge_user && heard.seen.event_type == event;
        let value = heard.seen.content.get(key).and_then(Value::as_str);
        ours.then(|| value.unwrap_or_default().to_owned())
    })
}

async fn scene(kind: &'static SimulatorKind, options: &str) -> MultiSiloScenario {
    let plan = MultiSiloOptions {
        powerful: true,
        portal_options: options.to_owned(),
        ..MultiSiloOptions::of_one(PathBuf::from(env!("CARGO_BIN_EXE_footbridge")), kind)
    };
    MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap()
}

async fn set_topic(scene: &MultiSiloScenario, topic: &str) {
    let content = json!({ "topic": topic });
    let sent = scene
        .ann
        .send_state(&scene.rooms[0], ("m.room.topic", ""), content);
    sent.await.unwrap();
}

#[tokio::test]
async fn name_and_topic_of_a_mattermost_channel_and_its_room_follow_each_other() {
    let options = "room_name = \"both\"\nroom_topic = \"both\"";
    let scene = scene(&mattermost::SIMULATOR, options).await;
    let site = &scene.sites[0];
    // Both sides had a name: neither is changed before somebody changes it.
    sleep(Duration::from_secs(3)).await;
    assert!(written(&scene, "m.room.name", "name").is_empty());
    site.set_profile("Town\u{202e} hall", "About\n\ntowns", Vec::new());
    scene
        .wait("the room follows", || {
            written(&scene, "m.room.topic", "topic") == ["About towns"]
                && written(&scene, "m.room.name", "name") == ["Town hall"]
        })
        .await
        .unwrap();
    set_topic(&scene, "About villages").await;
    scene
        .wait("the channel follows", || {
            site.topic().as_deref() == Some("About villages")
        })
        .await
        .unwrap();
    // A restart changes nothing, and messages are still relayed.
    scene.bridge.kill().await.unwrap();
    scene.bridge.start().await.unwrap();
    scene.bridge.wait_ready().await.unwrap();
    site.say("still here");
    scene
        .wait("a message", || {
            scene.read(0).iter().any(|text| text.contains("still here"))
        })
        .await
        .unwrap();
    assert_eq!(written(&scene, "m.room.topic", "topic"), ["About towns"]);
    assert_eq!(written(&scene, "m.room.name", "name"), ["Town hall"]);
    assert_eq!(site.topic().as_deref(), Some("About villages"));
}

#[tokio::test]
async fn a_room_takes_topic_and_picture_of_its_gitter_channel_and_only_what_the_portal_shares() {
    let options = "room_topic = \"from-channel\"\nroom_picture = \"from-channel\"";
    let scene = scene(&gitter::SIMULATOR, options).await;
    let site = &scene.sites[0];
    let png = b"\x89PNG\r\n\x1a\nnot really".to_vec();
    site.set_profile("", "Bridges", png.clone());
    scene
        .wait("the room follows", || {
            written(&scene, "m.room.topic", "topic") == ["Bridges"]
                && written(&scene, "m.room.avatar", "url").len() == 1
        })
        .await
        .unwrap();
    let url = written(&scene, "m.room.avatar", "url").remove(0);
    let stored = scene.ann.read_file(&json!({ "url": url })).await.unwrap();
    assert_eq!(stored, png);
    // The channel does not follow, and nobody asked for its name.
    set_topic(&scene, "Tunnels").await;
    sleep(Duration::from_secs(9)).await;
    assert_eq!(site.topic().as_deref(), Some("Bridges"));
    assert!(written(&scene, "m.room.name", "name").is_empty());
    assert_eq!(written(&scene, "m.room.topic", "topic"), ["Bridges"]);
}
