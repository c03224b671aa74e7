//! What others can read of the bridge: in its files while messages are pending and after they are delivered, in its log
//! at the finest level, and of its process (P22–P25, F41).

use std::{fs, path::PathBuf, time::Duration};

use footbridge_store::{Store, StoreKey};
use footbridge_testbed::{
    scenario::{Options, PASSWORD, Scenario, files_containing, until},
    synapse::Synapse,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(1);
/// The only files that hold a secret in plaintext; no other user may read them.
const SECRET_FILES: [&str; 2] = ["gitter.token", "password.txt"];

const TEXT: &str = "xylocarp in the room";
const ANSWER: &str = "quixotry in the channel";
const ANN: &str = "Annwhosenameisacanary";
const MARY: &str = "Marywhosenameisacanary";

async fn scene() -> Scenario {
    let synapse = Synapse::shared().await.unwrap();
    let mut options =
        Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000);
    "trace".clone_into(&mut options.log_filter);
    let scene = Scenario::set_up(synapse, options, &|_| ()).await.unwrap();
    scene.ann.set_display_name(ANN).await.unwrap();
    scene.open().await.unwrap();
    scene
}

/// Files that contain any of these, except those that are meant to hold them.
fn traces(scene: &Scenario, canaries: &[&str]) -> Vec<PathBuf> {
    let needles: Vec<&[u8]> = canaries.iter().map(|canary| canary.as_bytes()).collect();
    let mut found = files_containing(scene.bridge.directory(), &needles).unwrap();
    found.retain(|file| !SECRET_FILES.iter().any(|secret| file.ends_with(secret)));
    found
}

/// The access token and the recovery key, as the store returns them to a caller that has its key.
async fn secrets(scene: &Scenario) -> Vec<String> {
    let key = StoreKey::read(&scene.bridge.directory().join("footbridge.key")).unwrap();
    let store = Store::open(&scene.bridge.data_directory(), &key)
        .await
        .unwrap();
    let account = store.relay_account().await.unwrap().unwrap();
    let session: Value = serde_json::from_slice(&account.session.0).unwrap();
    let token = session["access_token"].as_str().unwrap().to_owned();
    let recovery = String::from_utf8(account.recovery_key.unwrap().0.clone()).unwrap();
    vec![token, recovery]
}

#[tokio::test]
async fn f41_no_text_name_or_secret_is_readable_in_any_file_or_log() {
    let scene = scene().await;
    let crier = scene.sim.add_user("marywhocries", MARY);
    let channel = &scene.stage.channel.id;
    scene.sim.join(channel, &crier.id).unwrap();

    // Both messages are pending on disk: the process ends before it sends either.
    scene.bridge.terminate().await.unwrap();
    scene.ann.say(&scene.stage.room, TEXT).await.unwrap();
    scene.sim.say(channel, &crier.id, ANSWER);
    scene.bridge.launch_armed("perform.before:1").unwrap();
    until(PATIENCE, || scene.bridge.ended().unwrap().is_some())
        .await
        .unwrap();
    scene.bridge.reap().await.unwrap();
    let mut canaries = vec![TEXT, ANSWER, ANN, MARY, PASSWORD, scene.bot.token.as_str()];
    let secrets = secrets(&scene).await;
    canaries.extend(secrets.iter().map(String::as_str));
    assert!(secrets.iter().all(|secret| secret.len() > 20));
    assert_eq!(traces(&scene, &canaries), Vec::<PathBuf>::new());

    scene.bridge.start().await.unwrap();
    let crossed = || {
        let in_channel = scene.in_channel();
        let there = in_channel.iter().any(|message| message.text.contains(TEXT));
        let back = scene.in_room(|_, text| text.contains(ANSWER).then_some(()));
        there && !back.is_empty()
    };
    until(PATIENCE, crossed)
        .await
        .unwrap_or_else(|_| panic!("it was not relayed\n{}", scene.bridge.logs_end()));
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
    assert_eq!(traces(&scene, &canaries), Vec::<PathBuf>::new());
    scene.bridge.terminate().await.unwrap();
    assert_eq!(traces(&scene, &canaries), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn p22_p23_the_process_makes_no_file_for_others_and_no_core_dump() {
    let scene = scene().await;
    let pid = scene.bridge.pid().unwrap();
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let line = |text: String, start: &str| {
        let found = text.lines().find(|line| line.starts_with(start));
        found.unwrap_or_default().to_owned()
    };
    assert!(line(read("status"), "Umask:").ends_with("0077"));
    let core = line(read("limits"), "Max core file size");
    let limits: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(limits, ["0", "0"], "{core}");
    scene.bridge.terminate().await.unwrap();
}
