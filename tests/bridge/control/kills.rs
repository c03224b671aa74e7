//! Kills between executing a command and replying to it: the bridge executes it again without harm, and replies.

use std::time::Duration;

use footbridge_testbed::scenario::Scenario;

use super::{PATIENCE, channel, hear, open, posted, read, room, said};

/// Waits until the armed process has died, and restarts it.
async fn die_and_restart(scene: &Scenario, point: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while scene.bridge.ended().unwrap().is_none() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{point} was never passed\n{}",
            scene.bridge.logs_end()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.bridge.reap().await.unwrap();
    scene.bridge.start().await.unwrap();
}

async fn arm(scene: &Scenario, point: &str) {
    scene.bridge.terminate().await.unwrap();
    scene.bridge.launch_armed(&format!("{point}:1")).unwrap();
}

fn times(said: &[String], words: &str) -> usize {
    said.iter().filter(|text| text.contains(words)).count()
}

#[tokio::test]
async fn a_kill_between_executing_and_answering_repeats_both_without_effect() {
    let (_, scene) = open(true).await;
    let room = room(&scene, true).await;
    let channel = channel(&scene, "footbridge/deadly", &[]);

    // The code is the same after the kill.
    arm(&scene, "request.saved").await;
    let words = format!("!bridge portal add gitter {}", channel.uri);
    scene.ann.say(&room, &words).await.unwrap();
    die_and_restart(&scene, "request.saved").await;
    let text = hear(&scene, &room, "post this code there").await;
    let code = text.split_whitespace().last().unwrap().to_owned();
    assert_eq!(code.len(), "footbridge-".len() + 12);

    arm(&scene, "request.confirmed").await;
    scene.sim.say(&channel.id, &scene.mary.id, &code);
    die_and_restart(&scene, "request.confirmed").await;
    let words = format!("!bridge consent gitter {}", channel.uri);
    arm(&scene, "portal.linked").await;
    scene.ann.say(&room, &words).await.unwrap();
    die_and_restart(&scene, "portal.linked").await;
    hear(&scene, &room, "every message in this room").await;
    scene.ann.say(&room, "made in spite of all").await.unwrap();
    read(&scene, &channel, "made in spite of all").await;

    arm(&scene, "portal.paused").await;
    scene.ann.say(&room, "!bridge pause").await.unwrap();
    die_and_restart(&scene, "portal.paused").await;
    hear(&scene, &room, "Paused.").await;
    scene.ann.say(&room, "!bridge resume").await.unwrap();
    hear(&scene, &room, "Resumed.").await;

    arm(&scene, "person.opted-out").await;
    scene.ann.say(&room, "!bridge optout").await.unwrap();
    die_and_restart(&scene, "person.opted-out").await;
    hear(&scene, &room, "Your messages here are not relayed").await;
    scene.ann.say(&room, "!bridge optout off").await.unwrap();
    hear(&scene, &room, "From now on your messages").await;

    scene.ann.say(&room, "!bridge pause").await.unwrap();
    let paused = || times(&said(&scene, &room), "Paused.") == 2;
    footbridge_testbed::scenario::until(PATIENCE, paused)
        .await
        .unwrap();
    scene.ann.say(&room, "dropped in the end").await.unwrap();
    arm(&scene, "portal.unlinked").await;
    scene.ann.say(&room, "!bridge portal remove").await.unwrap();
    die_and_restart(&scene, "portal.unlinked").await;
    let end = hear(&scene, &room, "no longer linked").await;
    assert!(end.contains(" 1 waiting message was erased"), "{end}");
    scene.bridge.settle(PATIENCE).await.unwrap();
    let said = said(&scene, &room);
    for words in [
        "post this code there",
        "every message in this room",
        "Your messages here are not relayed",
        "no longer linked",
    ] {
        assert_eq!(times(&said, words), 1, "{words}: {said:#?}");
    }
    let texts = posted(&scene, &channel);
    assert_eq!(times(&texts, "made in spite of all"), 1);
    assert_eq!(times(&texts, "dropped in the end"), 0);
    scene.bridge.conservation().await.unwrap();
}

#[tokio::test]
async fn a_kill_after_a_consent_is_stored_loses_no_notice() {
    let (_, scene) = open(false).await;
    let stage = scene.stage.room.clone();
    scene.ann.enable_encryption(&stage).await.unwrap();
    hear(&scene, &stage, "This room is encrypted now").await;
    scene.say_in_room().await.unwrap();
    arm(&scene, "consent.given").await;
    scene
        .ann
        .say(&stage, "!bridge consent gitter footbridge/lounge1")
        .await
        .unwrap();
    die_and_restart(&scene, "consent.given").await;
    hear(&scene, &stage, "every message in this room").await;
    scene.settle(PATIENCE).await.unwrap();
    assert!(scene.toward_channel().is_clean());
    assert_eq!(
        times(&said(&scene, &stage), "every message in this room"),
        1
    );
    scene.bridge.conservation().await.unwrap();
}

#[tokio::test]
async fn a_kill_after_a_room_upgrade_loses_no_notice() {
    let (_, scene) = open(true).await;
    let old = scene.stage.room.clone();
    arm(&scene, "room.followed").await;
    let new = scene.ann.upgrade_room(&old).await.unwrap();
    scene.ann.invite(&new, &scene.bridge_user).await.unwrap();
    die_and_restart(&scene, "room.followed").await;
    hear(&scene, &new, "has moved here").await;
    scene.ann.say(&new, "in the new room").await.unwrap();
    read(&scene, &scene.stage.channel, "in the new room").await;
    assert_eq!(times(&said(&scene, &new), "has moved here"), 1);
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
}
