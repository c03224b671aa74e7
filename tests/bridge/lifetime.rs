//! P11 to P13, B19, B22: stores that were copied, restored or are in use, with the whole program.

use std::{path::PathBuf, process::Stdio, time::Duration};

use footbridge_testbed::{
    scenario::{Options, Scenario},
    synapse::Synapse,
};

use crate::bad_input::compare;

const PATIENCE: Duration = Duration::from_secs(90);

async fn scene() -> Scenario {
    let synapse = Synapse::shared().await.unwrap();
    let options = Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000);
    let scene = Scenario::set_up(synapse, options, &|_| ()).await.unwrap();
    scene.open().await.unwrap();
    scene
}

/// Waits until the armed process has died, and reaps it.
async fn death(scene: &Scenario, point: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while scene.bridge.ended().unwrap().is_none() {
        let late = tokio::time::Instant::now() > deadline;
        assert!(!late, "{point} was not passed\n{}", scene.bridge.logs_end());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.bridge.reap().await.unwrap();
}

#[tokio::test]
async fn p13_a_kill_between_the_two_writes_locks_no_healthy_store_out() {
    let scene = scene().await;
    let data = scene.bridge.data_directory();
    let old = data.with_file_name("old");
    scene.bridge.terminate().await.unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&data, &old])
        .status();
    assert!(copied.unwrap().success());
    for point in ["lease.raised", "lease.written", "lease.raised"] {
        scene.bridge.launch_armed(point).unwrap();
        death(&scene, point).await;
    }
    scene.bridge.start().await.unwrap();
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    scene.settle(PATIENCE).await.unwrap();
    assert!(scene.toward_channel().is_clean() && scene.toward_room().is_clean());
    scene.bridge.terminate().await.unwrap();

    // B22: with the old directory the bridge exits with 78, and a second attempt changes nothing about that.
    let new = data.with_file_name("new");
    std::fs::rename(&data, &new).unwrap();
    std::fs::rename(&old, &data).unwrap();
    for _ in 0..2 {
        let code = scene.bridge.attempt("run", PATIENCE).await.unwrap();
        assert_eq!(code, Some(78), "{}", scene.bridge.logs_end());
    }
    let mut command = scene.bridge.prepare_command(&["run"]).unwrap();
    command
        .env("FOOTBRIDGE_LOG", "off")
        .env_remove("FOOTBRIDGE_GOLDEN")
        .stderr(Stdio::piped());
    let output = command.output().await.unwrap();
    compare("B22-old-copy", &output, scene.bridge.directory());
    std::fs::rename(&data, &old).unwrap();
    std::fs::rename(&new, &data).unwrap();
    scene.bridge.start().await.unwrap();
}
