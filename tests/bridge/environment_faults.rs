//! The whole bridge under failures around it: little disk space, a locked store file, a second bridge, a stop under
//! load, and kills while it sends notices of missing room keys.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use footbridge_testbed::{
    scenario::{Options, Scenario, until},
    synapse::Synapse,
};
use serde_json::{Value, json};

use crate::matrix::{raw_member, send_undecryptable};

const PATIENCE: Duration = Duration::from_mins(1);

async fn scene(delivery: &str) -> (&'static Synapse, Scenario) {
    let synapse = Synapse::shared().await.unwrap();
    let mut options =
        Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000);
    "requests_per_minute = 6000\nsettle = \"2s\"".clone_into(&mut options.silo_options);
    delivery.clone_into(&mut options.delivery_options);
    let scene = Scenario::set_up(synapse, options, &|_| ()).await.unwrap();
    scene.open().await.unwrap();
    (synapse, scene)
}

async fn close(scene: &Scenario) {
    scene.settle(PATIENCE).await.unwrap();
    let (toward_channel, toward_room) = (scene.toward_channel(), scene.toward_room());
    let end = scene.bridge.logs_end();
    assert!(toward_channel.is_clean(), "{toward_channel:?}\n{end}");
    assert!(toward_room.is_clean(), "{toward_room:?}\n{end}");
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
}

async fn health(scene: &Scenario) -> Value {
    let url = format!("{}/health/ready", scene.bridge.admin_url());
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

fn configure(scene: &Scenario, from: &str, to: &str) {
    let path = scene.bridge.directory().join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replace(from, to)).unwrap();
}

#[tokio::test]
async fn d14_with_little_space_nothing_is_read_and_nothing_is_lost() {
    let (_synapse, scene) = scene("").await;
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    close(&scene).await;
    scene.bridge.terminate().await.unwrap();
    configure(&scene, "[store]\n", "[store]\nmin_free_mib = 1048576\n");
    scene.bridge.launch().unwrap();
    for _ in 0..5 {
        scene.say_in_room().await.unwrap();
        scene.say_in_channel();
    }
    let said = || scene.bridge.logs().contains("space is left on the disk");
    until(PATIENCE, said).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let state = health(&scene).await;
    assert_eq!(
        (&state["ready"], &state["store_state"]),
        (&json!(false), &json!("low"))
    );
    let status = scene.bridge.run("status").await.unwrap();
    assert!(
        status.contains("nothing is read until there is more"),
        "{status}"
    );
    assert_eq!(scene.in_channel().len(), 1);
    let stopped = scene.bridge.terminate().await.unwrap();
    assert_eq!(stopped.code(), Some(0));
    configure(&scene, "min_free_mib = 1048576\n", "");
    scene.bridge.start().await.unwrap();
    close(&scene).await;
}

#[tokio::test]
async fn d15_d18_a_held_file_is_waited_for_and_a_second_bridge_leaves_at_once() {
    let (_synapse, scene) = scene("").await;
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    close(&scene).await;
    let second = Instant::now();
    let refused = scene.bridge.run("run").await.unwrap_err().to_string();
    assert!(refused.contains("exit status: 75"), "{refused}");
    assert!(
        second.elapsed() < Duration::from_secs(5),
        "{:?}",
        second.elapsed()
    );

    let lock = scene.bridge.hold_store().unwrap();
    for _ in 0..5 {
        scene.say_in_room().await.unwrap();
        scene.say_in_channel();
    }
    let said = || scene.bridge.logs().contains("The store cannot write");
    until(PATIENCE, said).await.unwrap();
    assert_eq!(health(&scene).await["store_state"], "busy");
    drop(lock);
    close(&scene).await;
    assert!(
        scene.bridge.ended().unwrap().is_none(),
        "the bridge continued by itself"
    );
}

#[tokio::test]
async fn d24_f32_a_stop_under_load_is_clean_each_time() {
    let (_synapse, scene) = scene("").await;
    for round in 0..6_u64 {
        for _ in 0..8 {
            scene.say_in_room().await.unwrap();
            scene.say_in_channel();
        }
        tokio::time::sleep(Duration::from_millis(round * 60)).await;
        let begun = Instant::now();
        let ended = scene.bridge.terminate().await.unwrap();
        assert_eq!(ended.code(), Some(0), "{}", scene.bridge.logs_end());
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "{:?}",
            begun.elapsed()
        );
        let log = scene.bridge.data_directory().join("footbridge.db-wal");
        let left = fs::metadata(log).map_or(0, |found| found.len());
        assert_eq!(left, 0, "the log was moved into the file");
        scene.bridge.launch().unwrap();
    }
    scene.bridge.wait_ready().await.unwrap();
    close(&scene).await;
}

/// D20, the window of notices: killed after the notices were sent, and after an entry ended as failed.
#[tokio::test]
async fn d20_a_kill_during_the_notice_of_a_missing_key_sends_it_once() {
    let (synapse, scene) = scene("notice_after = \"1s\"\nkey_limit = \"4s\"").await;
    let stranger = raw_member(synapse, &scene.ann, &scene.stage.room).await;
    scene.bridge.terminate().await.unwrap();
    for _ in 0..2 {
        send_undecryptable(
            synapse,
            &stranger,
            &scene.stage.room,
            "nobody has this session",
        )
        .await;
    }
    for point in ["undecryptable.notified:1", "undecryptable.failed:1"] {
        scene.bridge.launch_armed(point).unwrap();
        let died = || scene.bridge.ended().unwrap().is_some();
        until(PATIENCE, died)
            .await
            .unwrap_or_else(|_| panic!("{point}"));
        scene.bridge.reap().await.unwrap();
    }
    scene.bridge.start().await.unwrap();
    let texts = || -> Vec<String> {
        let all = scene.in_channel();
        all.into_iter().map(|message| message.text).collect()
    };
    let ended = || texts().iter().any(|text| text.contains("will not appear"));
    until(PATIENCE, ended)
        .await
        .unwrap_or_else(|_| panic!("{:?}\n{}", texts(), scene.bridge.logs_end()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all = texts();
    assert_eq!(all.len(), 1, "one notice, edited: {all:?}");
    assert!(all[0].starts_with("🔒 2 messages from raw"), "{all:?}");
    let in_room = || {
        scene.in_room(|_, text| {
            text.contains("could not be relayed")
                .then(|| text.to_owned())
        })
    };
    until(PATIENCE, || !in_room().is_empty()).await.unwrap();
    assert_eq!(in_room().len(), 1);
    assert!(in_room()[0].contains("2 messages"), "{:?}", in_room());
    let tally = scene.bridge.conservation().await.unwrap();
    assert_eq!(tally.failed, 2);
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    close(&scene).await;
}
