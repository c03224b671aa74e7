//! One room linked to channels of different silos, and one channel to two rooms: every message reaches every place
//! once, edits and deletions reach every copy, and nothing comes back.

use std::{path::PathBuf, time::Duration};

use footbridge_simulators::{gitter, matterbridge, mattermost};
use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario},
    scenario::until,
    synapse::Synapse,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Two rooms with a Mattermost channel in common; the first room also has a Gitter channel and a gateway.
async fn scene() -> MultiSiloScenario {
    let plan = MultiSiloOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
        sites: vec![
            &mattermost::SIMULATOR,
            &gitter::SIMULATOR,
            &matterbridge::SIMULATOR,
        ],
        rooms: 2,
        portals: vec![(0, 0), (1, 0), (0, 1), (0, 2)],
        seed: 1,
        log_filter: "info".to_owned(),
        ..MultiSiloOptions::default()
    };
    let synapse = Synapse::shared().await.unwrap();
    MultiSiloScenario::build(synapse, plan).await.unwrap()
}

/// Whether a place shows exactly these words, each in one message, in this order.
fn shows(texts: &[String], words: &[&str]) -> bool {
    texts.len() == words.len()
        && texts
            .iter()
            .zip(words)
            .all(|(text, word)| text.ends_with(word))
}

async fn reads(scene: &MultiSiloScenario, what: &str, rooms: [&[&str]; 2], channels: [&[&str]; 3]) {
    let is_so = || {
        let rooms = rooms
            .iter()
            .enumerate()
            .all(|(number, words)| shows(&scene.read(number), words));
        let sites = scene.sites.iter().zip(channels);
        rooms
            && sites
                .into_iter()
                .all(|(site, words)| shows(&site.bridge_texts(), words))
    };
    if until(PATIENCE, is_so).await.is_err() {
        let rooms: Vec<_> = (0..2).map(|number| scene.read(number)).collect();
        let sites: Vec<_> = scene.sites.iter().map(|site| site.bridge_texts()).collect();
        panic!(
            "{what}: rooms {rooms:#?}, channels {sites:#?}\n{}",
            scene.bridge.logs_end()
        );
    }
}

#[tokio::test]
async fn messages_edits_and_deletions_reach_every_place_once() {
    let scene = scene().await;
    let room = &scene.rooms[0];
    let kept = scene.ann.say(room, "from the room").await.unwrap();
    let gone = scene.ann.say(room, "a mistake").await.unwrap();
    let both: &[&str] = &["from the room", "a mistake"];
    reads(&scene, "said in the room", [&[], both], [both, both, both]).await;

    scene
        .ann
        .edit(room, &kept, "from the room, corrected")
        .await
        .unwrap();
    scene.ann.redact(room, &gone).await.unwrap();
    let left: &[&str] = &["from the room, corrected"];
    let gateway = [
        both,
        &[
            "from the room, corrected (edited)",
            "which stays readable here",
        ],
    ]
    .concat();
    reads(
        &scene,
        "edited and deleted in the room",
        [&[], left],
        [left, left, &gateway],
    )
    .await;

    let said = scene.sites[0].say("from Mattermost").unwrap();
    let second: &[&str] = &["from the room, corrected", "from Mattermost"];
    let gateway = [&gateway[..], &["from Mattermost"]].concat();
    reads(
        &scene,
        "said in the channel",
        [&["from Mattermost"], second],
        [left, second, &gateway],
    )
    .await;

    scene.sites[0].edit(&said, "from Mattermost, corrected");
    let second: &[&str] = &["from the room, corrected", "from Mattermost, corrected"];
    let gateway = [&gateway[..], &["from Mattermost, corrected (edited)"]].concat();
    let first: &[&str] = &["from Mattermost, corrected"];
    reads(
        &scene,
        "edited in the channel",
        [first, second],
        [left, second, &gateway],
    )
    .await;

    scene.sites[0].delete(&said);
    let gateway = [&gateway[..], &["which stays readable here"]].concat();
    reads(
        &scene,
        "deleted in the channel",
        [&[], left],
        [left, left, &gateway],
    )
    .await;

    scene.sites[2].say("from a gateway");
    let first: &[&str] = &["from a gateway"];
    let second: &[&str] = &["from the room, corrected", "from a gateway"];
    reads(
        &scene,
        "said in the gateway",
        [first, second],
        [second, second, &gateway],
    )
    .await;
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
    reads(
        &scene,
        "and nothing came back",
        [first, second],
        [second, second, &gateway],
    )
    .await;
}

/// Adds the first portal by the command line instead of the configuration, so that it can be removed in the room.
async fn by_the_command_line(scene: &MultiSiloScenario, room: &str) {
    scene.bridge.terminate().await.unwrap();
    let path = scene.bridge.directory().join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (text.find("[[portal]]"), text.rfind("[[portal]]"));
    let (begin, end) = (begin.unwrap(), end.unwrap());
    assert!(text[begin..end].contains(room));
    std::fs::write(&path, format!("{}{}", &text[..begin], &text[end..])).unwrap();
    let site = &scene.sites[0];
    let words = ["portal", "add", room, &site.silo, &site.name()];
    scene.bridge.run_words(&words).await.unwrap();
    scene.bridge.start().await.unwrap();
}

/// A message that waits in the portal of one room, because the room was encrypted, paused or unlinked, does not reach
/// the other room of its channel by another portal.
#[tokio::test]
async fn p15_what_a_room_keeps_to_itself_reaches_no_other_room_of_its_channel() {
    let plan = MultiSiloOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
        sites: vec![&mattermost::SIMULATOR],
        rooms: 2,
        portals: vec![(0, 0), (1, 0)],
        in_clear: true,
        seed: 1,
        log_filter: "info".to_owned(),
        ..MultiSiloOptions::default()
    };
    let scene = MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap();
    let room = scene.rooms[0].clone();
    let channel = &scene.sites[0];
    by_the_command_line(&scene, &room).await;
    let said = scene.ann.say(&room, "in the clear").await.unwrap();
    let heard = |room: usize, words: &str| scene.read(room).iter().any(|text| text.contains(words));
    scene
        .wait("the first", || heard(1, "in the clear"))
        .await
        .unwrap();

    // The portal is paused.
    scene.ann.say(&room, "!bridge pause").await.unwrap();
    scene
        .wait("the pause", || heard(0, "Paused."))
        .await
        .unwrap();
    scene.ann.say(&room, "said in the pause").await.unwrap();
    channel.say("1 of the channel").unwrap();
    scene
        .wait("the channel", || heard(1, "1 of the channel"))
        .await
        .unwrap();
    assert!(!heard(1, "said in the pause"), "{:#?}", scene.read(1));
    scene.ann.say(&room, "!bridge resume").await.unwrap();
    scene
        .wait("the resumed", || heard(1, "said in the pause"))
        .await
        .unwrap();

    // The room is encrypted, and nobody gives consent.
    scene.ann.enable_encryption(&room).await.unwrap();
    scene
        .wait("the question", || heard(0, "is encrypted now"))
        .await
        .unwrap();
    scene.ann.say(&room, "a secret").await.unwrap();
    let reaction = serde_json::json!({"m.relates_to": {
        "rel_type": "m.annotation", "event_id": said, "key": "🤫"}});
    scene.ann.send(&room, "m.reaction", reaction).await.unwrap();
    scene
        .ann
        .edit(&room, &said, "in the clear no more")
        .await
        .unwrap();
    scene.ann.say(&room, "!bridge status").await.unwrap();
    scene
        .wait("the state", || heard(0, "Waiting for consent"))
        .await
        .unwrap();
    channel.say("2 of the channel").unwrap();
    scene
        .wait("the channel", || heard(1, "2 of the channel"))
        .await
        .unwrap();
    let silent = || {
        let reacted = scene.room_observer.pick(&scene.rooms[1], |heard| {
            (heard.seen.event_type == "m.reaction").then_some(())
        });
        assert!(
            !heard(1, "secret") && !heard(1, "no more"),
            "{:#?}",
            scene.read(1)
        );
        assert!(reacted.is_empty());
        assert!(
            !channel
                .bridge_texts()
                .iter()
                .any(|text| text.contains("secret"))
        );
    };
    silent();

    // The portal is removed.
    scene.ann.say(&room, "!bridge portal remove").await.unwrap();
    scene
        .wait("the end", || heard(0, "no longer linked"))
        .await
        .unwrap();
    channel.say("3 of the channel").unwrap();
    scene
        .wait("the channel", || heard(1, "3 of the channel"))
        .await
        .unwrap();
    scene.bridge.settle(PATIENCE).await.unwrap();
    silent();
    scene.bridge.conservation().await.unwrap();
}

/// Two entries of one kind; the channel of the first is linked to both rooms.
#[tokio::test]
async fn b11_a_channel_of_gitter_is_linked_to_two_rooms_and_a_second_gitter_to_one_of_them() {
    let plan = MultiSiloOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
        sites: vec![&gitter::SIMULATOR, &gitter::SIMULATOR],
        rooms: 2,
        portals: vec![(0, 0), (1, 0), (0, 1)],
        seed: 1,
        log_filter: "info".to_owned(),
        ..MultiSiloOptions::default()
    };
    let synapse = Synapse::shared().await.unwrap();
    let scene = MultiSiloScenario::build(synapse, plan).await.unwrap();
    let deliveries = async |what: &str, rooms: [&[&str]; 2], channels: [&[&str]; 2]| {
        let is_so = || {
            let rooms = rooms.iter().enumerate();
            let mut rooms = rooms.map(|(number, words)| shows(&scene.read(number), words));
            let mut sites = scene.sites.iter().zip(channels);
            rooms.all(|shown| shown)
                && sites.all(|(site, words)| shows(&site.bridge_texts(), words))
        };
        scene.wait(what, is_so).await.unwrap();
    };
    scene.sites[0].say("from the first");
    let first: &[&str] = &["from the first"];
    deliveries("heard in both rooms", [first, first], [&[], first]).await;
    scene.sites[1].say("from the second");
    let room: &[&str] = &["from the first", "from the second"];
    let second: &[&str] = &["from the second"];
    deliveries("heard everywhere", [room, room], [second, first]).await;

    // Messages that are sent while the bridge is away reach both rooms too.
    scene.bridge.kill().await.unwrap();
    scene.sites[0].say("meanwhile");
    scene.bridge.start().await.unwrap();
    let room = [room, &["meanwhile"]].concat();
    let first = [first, &["meanwhile"]].concat();
    deliveries("caught up", [&room, &room], [second, &first]).await;

    // A channel that is closed to the account is named in the log.
    scene.sites[0].ban();
    let warned = || {
        let logs = scene.bridge.logs();
        let line = logs
            .lines()
            .find(|line| line.contains("The bridge is not ready"));
        line.is_some_and(|line| line.contains("gitter0") && line.matches("org/room").count() == 2)
    };
    scene
        .wait("a warning that names the portals", warned)
        .await
        .unwrap();
    scene.bridge.settle(PATIENCE).await.unwrap();
    scene.bridge.conservation().await.unwrap();
}
