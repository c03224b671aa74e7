//! Kills: at every crash point, and at random under traffic. Afterwards every message has arrived once and in order.

use std::{path::PathBuf, time::Duration};

use footbridge_core::crash_points;
use footbridge_store::{Batch, Gap, Millis, Place, Store, StoreKey};
use footbridge_testbed::{
    scenario::{Options, Scenario, until},
    synapse::Synapse,
};

use crate::matrix::{end_of, raw_member};

const PATIENCE: Duration = Duration::from_secs(90);

/// How long the lane looks for a step without an answer; the default would only make the test longer.
const QUICK: &str = "requests_per_minute = 6000\nsettle = \"2s\"";

async fn scene() -> (&'static Synapse, Scenario) {
    let synapse = Synapse::shared().await.unwrap();
    let mut options =
        Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000);
    QUICK.clone_into(&mut options.silo_options);
    let scene = Scenario::set_up(synapse, options, &|_| ()).await.unwrap();
    scene.open().await.unwrap();
    (synapse, scene)
}

async fn judge(scene: &Scenario, synapse: &Synapse, what: &str) {
    scene.settle(PATIENCE).await.unwrap();
    let (toward_channel, toward_room) = (scene.toward_channel(), scene.toward_room());
    let end = scene.bridge.logs_end();
    assert!(
        toward_channel.is_clean(),
        "{what}, room → channel: {toward_channel:?}\n{end}"
    );
    assert!(
        toward_room.is_clean(),
        "{what}, channel → room: {toward_room:?}\n{end}"
    );
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
    scene.all_encrypted(synapse).await.unwrap();
}

/// Waits until the armed process has died.
async fn death(scene: &Scenario, point: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while scene.bridge.ended().unwrap().is_none() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{point} was never passed\n{}",
            scene.bridge.logs_end()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// F02, the windows of house 4.5: kills at each point at its first and at its third passage, with messages going both
/// ways. `gap.fetched`, `fill.before` and the points of `unread` have separate tests, since plain traffic does not pass
/// them; that of `bundle.saved`, which only a rate-limited account passes, is in `burst.rs`; those of `lease` are in
/// `lifetime.rs`, and those of `session` in the row F29 of the fault scenarios.
#[tokio::test]
async fn a_kill_at_any_commit_boundary_changes_only_the_delay() {
    let (synapse, scene) = scene().await;
    for point in crash_points::POINTS {
        // Those of failures and commands are in `failure_notices` and in `control`.
        let elsewhere = [
            "delivery.",
            "command.",
            "request.",
            "portal.",
            "consent.",
            "person.",
            "room.",
        ];
        if elsewhere.iter().any(|what| point.starts_with(what)) {
            continue;
        }
        if [
            "keys.received",
            "bundle.saved",
            "gap.fetched",
            "fill.before",
        ]
        .contains(point)
            || ["undecryptable.", "lease.", "session.", "device."]
                .iter()
                .any(|kind| point.starts_with(kind))
        {
            continue;
        }
        for passage in [1, 3] {
            scene.bridge.kill().await.unwrap();
            for _ in 0..4 {
                scene.say_in_room().await.unwrap();
                scene.say_in_channel();
            }
            scene
                .bridge
                .launch_armed(&format!("{point}:{passage}"))
                .unwrap();
            // Some points are passed only while live messages arrive.
            for _ in 0..4 {
                scene.say_in_room().await.unwrap();
                scene.say_in_channel();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            death(&scene, point).await;
            scene.say_in_room().await.unwrap();
            scene.say_in_channel();
            scene.bridge.reap().await.unwrap();
            scene.bridge.start().await.unwrap();
            judge(&scene, synapse, &format!("{point}:{passage}")).await;
        }
    }
}

/// Ann's device sends to the bridge's for the first time, and the bridge dies after it created the Olm session and
/// before it saved the room key that came with it.
#[tokio::test]
async fn a_kill_between_olm_session_and_room_key_loses_no_key() {
    let (synapse, scene) = scene().await;
    scene.bridge.terminate().await.unwrap();
    for _ in 0..3 {
        scene.say_in_room().await.unwrap();
        scene.say_in_channel();
    }
    scene.bridge.launch_armed("keys.received:1").unwrap();
    death(&scene, "keys.received").await;
    scene.bridge.reap().await.unwrap();
    scene.bridge.start().await.unwrap();
    judge(&scene, synapse, "keys.received").await;
}

/// D01, D02: killed between fetching the events of a gap and saving them.
#[tokio::test]
async fn a_kill_while_a_gap_is_filled_loses_nothing() {
    let (synapse, scene) = scene().await;
    scene.bridge.terminate().await.unwrap();
    for _ in 0..120 {
        scene.say_in_room().await.unwrap();
    }
    for passage in [1, 2] {
        scene.bridge.launch_armed("gap.fetched:1").unwrap();
        death(&scene, &format!("gap.fetched, time {passage}")).await;
        scene.bridge.reap().await.unwrap();
        for _ in 0..3 {
            scene.say_in_room().await.unwrap();
        }
    }
    scene.bridge.start().await.unwrap();
    scene.say_in_channel();
    judge(&scene, synapse, "gap.fetched").await;
}

/// D01, D16: each run is too short for the whole gap, and each makes progress.
#[tokio::test]
async fn a_gap_that_is_longer_than_any_life_is_filled_all_the_same() {
    let (synapse, scene) = scene().await;
    scene.bridge.terminate().await.unwrap();
    for _ in 0..250 {
        scene.say_in_room().await.unwrap();
    }
    for life in [1, 2] {
        scene.bridge.launch_armed("gap.fetched:2").unwrap();
        death(&scene, &format!("gap.fetched, life {life}")).await;
        scene.bridge.reap().await.unwrap();
    }
    // The rest is accepted at once: the point is passed a single time.
    scene.bridge.launch_armed("gap.fetched:2").unwrap();
    scene.say_in_channel();
    judge(&scene, synapse, "a long gap").await;
    assert!(scene.bridge.ended().unwrap().is_none());
}

/// F01 at a small size; the tool `kills` runs the large one.
#[tokio::test]
async fn ten_kills_under_traffic_lose_double_and_reorder_nothing() {
    let (synapse, scene) = scene().await;
    for round in 0..10_u64 {
        for _ in 0..5 {
            scene.say_in_room().await.unwrap();
            scene.say_in_channel();
        }
        // Each kill hits a different moment of start-up, catch-up and delivery.
        tokio::time::sleep(Duration::from_millis(50 + round * 190)).await;
        scene.bridge.kill().await.unwrap();
        scene.say_in_room().await.unwrap();
        scene.say_in_channel();
        scene.bridge.launch().unwrap();
    }
    scene.bridge.wait_ready().await.unwrap();
    judge(&scene, synapse, "ten kills").await;
}

/// D20, the window of house 4.5 that begins with a missing room key: killed when the key has arrived and the journal
/// does not have the decrypted message yet.
#[tokio::test]
async fn a_kill_before_a_late_key_is_used_loses_no_message() {
    let (synapse, scene) = scene().await;
    let room = &scene.stage.room;
    let witness = raw_member(synapse, &scene.ann, room).await;
    let mark = scene
        .ann
        .say(room, "the last one that is read")
        .await
        .unwrap();
    let read = || scene.in_channel().len() == 1;
    until(PATIENCE, read).await.unwrap();
    scene.bridge.terminate().await.unwrap();
    scene.ann.discard_room_key(room).await.unwrap();
    for _ in 0..3 {
        scene.say_in_room().await.unwrap();
    }
    // With an open gap the messages are read before the sync that brings their room key.
    let from = end_of(synapse, &witness, room).await;
    let key = StoreKey::read(&scene.bridge.directory().join("footbridge.key")).unwrap();
    let store = Store::open(&scene.bridge.data_directory(), &key)
        .await
        .unwrap();
    let gap = Gap {
        place: Place::room(room),
        from,
        stop: Some(mark.as_str().into()),
    };
    store
        .accept(
            Batch {
                gaps: vec![gap],
                ..Batch::default()
            },
            Millis(0),
        )
        .await
        .unwrap();
    drop(store);

    scene.bridge.launch_armed("fill.before:1").unwrap();
    death(&scene, "fill.before").await;
    scene.bridge.reap().await.unwrap();
    scene.bridge.start().await.unwrap();
    scene.say_in_channel();
    judge(&scene, synapse, "fill.before").await;
}
