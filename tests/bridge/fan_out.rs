//! One room joined to channels of different silos, and one channel to two rooms: everything reaches every place once, edits
//! and deletions reach every copy, and nothing comes back.

use std::{path::PathBuf, time::Duration};

use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario, SiloChannel, SimulatorKind},
    scenario::until,
    synapse::Synapse,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Two rooms and a Mattermost channel between them; the first room also has a Gitter channel and a gateway.
async fn town() -> MultiSiloScenario {
    let plan = MultiSiloOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
        sites: vec![
            SimulatorKind::Mattermost,
            SimulatorKind::Gitter,
            SimulatorKind::Matterbridge { buffer: 1_000 },
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

async fn reads(town: &MultiSiloScenario, what: &str, rooms: [&[&str]; 2], channels: [&[&str]; 3]) {
    let is_so = || {
        let rooms = rooms
            .iter()
            .enumerate()
            .all(|(number, words)| shows(&town.read(number), words));
        let sites = town.sites.iter().zip(channels);
        rooms
            && sites
                .into_iter()
                .all(|(site, words)| shows(&site.read(), words))
    };
    if until(PATIENCE, is_so).await.is_err() {
        let rooms: Vec<_> = (0..2).map(|number| town.read(number)).collect();
        let sites: Vec<_> = town.sites.iter().map(SiloChannel::read).collect();
        panic!(
            "{what}: rooms {rooms:#?}, channels {sites:#?}\n{}",
            town.bridge.logs_end()
        );
    }
}

#[tokio::test]
async fn what_is_said_anywhere_is_read_everywhere_once_and_so_are_edits_and_deletions() {
    let town = town().await;
    let room = &town.rooms[0];
    let kept = town.ann.say(room, "from the room").await.unwrap();
    let gone = town.ann.say(room, "a mistake").await.unwrap();
    let both: &[&str] = &["from the room", "a mistake"];
    reads(&town, "said in the room", [&[], both], [both, both, both]).await;

    town.ann
        .edit(room, &kept, "from the room, corrected")
        .await
        .unwrap();
    town.ann.redact(room, &gone).await.unwrap();
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
        &town,
        "edited and deleted in the room",
        [&[], left],
        [left, left, &gateway],
    )
    .await;

    let said = town.sites[0].say("from Mattermost").unwrap();
    let second: &[&str] = &["from the room, corrected", "from Mattermost"];
    let gateway = [&gateway[..], &["from Mattermost"]].concat();
    reads(
        &town,
        "said in the channel",
        [&["from Mattermost"], second],
        [left, second, &gateway],
    )
    .await;

    town.sites[0].edit(&said, "from Mattermost, corrected");
    let second: &[&str] = &["from the room, corrected", "from Mattermost, corrected"];
    let gateway = [&gateway[..], &["from Mattermost, corrected (edited)"]].concat();
    let first: &[&str] = &["from Mattermost, corrected"];
    reads(
        &town,
        "edited in the channel",
        [first, second],
        [left, second, &gateway],
    )
    .await;

    town.sites[0].delete(&said);
    let gateway = [&gateway[..], &["which stays readable here"]].concat();
    reads(
        &town,
        "deleted in the channel",
        [&[], left],
        [left, left, &gateway],
    )
    .await;

    town.sites[2].say("from a gateway");
    let first: &[&str] = &["from a gateway"];
    let second: &[&str] = &["from the room, corrected", "from a gateway"];
    reads(
        &town,
        "said in the gateway",
        [first, second],
        [second, second, &gateway],
    )
    .await;
    town.bridge.settle(PATIENCE).await.unwrap();
    town.bridge.conservation().await.unwrap();
    reads(
        &town,
        "and nothing came back",
        [first, second],
        [second, second, &gateway],
    )
    .await;
}

/// Makes the first portal one of the command line, so that it can be removed in the room.
async fn by_the_command_line(town: &MultiSiloScenario, room: &str) {
    town.bridge.terminate().await.unwrap();
    let path = town.bridge.directory().join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (text.find("[[portal]]"), text.rfind("[[portal]]"));
    let (begin, end) = (begin.unwrap(), end.unwrap());
    assert!(text[begin..end].contains(room));
    std::fs::write(&path, format!("{}{}", &text[..begin], &text[end..])).unwrap();
    let site = &town.sites[0];
    let words = ["portal", "add", room, &site.name, &site.channel()];
    town.bridge.run_words(&words).await.unwrap();
    town.bridge.start().await.unwrap();
}

/// What waits in the portal of one room because that was encrypted, was paused or is no longer linked, does not reach the
/// other room of its channel by another portal.
#[tokio::test]
async fn p15_what_a_room_keeps_to_itself_reaches_no_other_room_of_its_channel() {
    let plan = MultiSiloOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
        sites: vec![SimulatorKind::Mattermost],
        rooms: 2,
        portals: vec![(0, 0), (1, 0)],
        in_clear: true,
        seed: 1,
        log_filter: "info".to_owned(),
        ..MultiSiloOptions::default()
    };
    let town = MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap();
    let room = town.rooms[0].clone();
    let channel = &town.sites[0];
    by_the_command_line(&town, &room).await;
    let said = town.ann.say(&room, "in the clear").await.unwrap();
    let heard = |room: usize, words: &str| town.read(room).iter().any(|text| text.contains(words));
    town.wait("the first", || heard(1, "in the clear"))
        .await
        .unwrap();

    // Paused.
    town.ann.say(&room, "!bridge pause").await.unwrap();
    town.wait("the pause", || heard(0, "Paused."))
        .await
        .unwrap();
    town.ann.say(&room, "said in the pause").await.unwrap();
    channel.say("1 of the channel").unwrap();
    town.wait("the channel", || heard(1, "1 of the channel"))
        .await
        .unwrap();
    assert!(!heard(1, "said in the pause"), "{:#?}", town.read(1));
    town.ann.say(&room, "!bridge resume").await.unwrap();
    town.wait("the resumed", || heard(1, "said in the pause"))
        .await
        .unwrap();

    // Encrypted, and nobody agrees.
    town.ann.enable_encryption(&room).await.unwrap();
    town.wait("the question", || heard(0, "is encrypted now"))
        .await
        .unwrap();
    town.ann.say(&room, "a secret").await.unwrap();
    let reaction = serde_json::json!({"m.relates_to": {
        "rel_type": "m.annotation", "event_id": said, "key": "🤫"}});
    town.ann.send(&room, "m.reaction", reaction).await.unwrap();
    town.ann
        .edit(&room, &said, "in the clear no more")
        .await
        .unwrap();
    town.ann.say(&room, "!bridge status").await.unwrap();
    town.wait("the state", || heard(0, "Waiting for consent"))
        .await
        .unwrap();
    channel.say("2 of the channel").unwrap();
    town.wait("the channel", || heard(1, "2 of the channel"))
        .await
        .unwrap();
    let silent = || {
        let reacted = town.room_observer.pick(&town.rooms[1], |heard| {
            (heard.seen.event_type == "m.reaction").then_some(())
        });
        assert!(
            !heard(1, "secret") && !heard(1, "no more"),
            "{:#?}",
            town.read(1)
        );
        assert!(reacted.is_empty());
        assert!(!channel.read().iter().any(|text| text.contains("secret")));
    };
    silent();

    // And unlinked.
    town.ann.say(&room, "!bridge portal remove").await.unwrap();
    town.wait("the end", || heard(0, "no longer joined"))
        .await
        .unwrap();
    channel.say("3 of the channel").unwrap();
    town.wait("the channel", || heard(1, "3 of the channel"))
        .await
        .unwrap();
    town.bridge.settle(PATIENCE).await.unwrap();
    silent();
    town.bridge.conservation().await.unwrap();
}

/// Two entries of one kind; the channel of the first is joined to both rooms.
#[tokio::test]
async fn b11_a_channel_of_gitter_is_joined_to_two_rooms_and_a_second_gitter_to_one_of_them() {
    let plan = MultiSiloOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
        sites: vec![SimulatorKind::Gitter, SimulatorKind::Gitter],
        rooms: 2,
        portals: vec![(0, 0), (1, 0), (0, 1)],
        seed: 1,
        log_filter: "info".to_owned(),
        ..MultiSiloOptions::default()
    };
    let synapse = Synapse::shared().await.unwrap();
    let town = MultiSiloScenario::build(synapse, plan).await.unwrap();
    let deliveries = async |what: &str, rooms: [&[&str]; 2], channels: [&[&str]; 2]| {
        let is_so = || {
            let rooms = rooms.iter().enumerate();
            let mut rooms = rooms.map(|(number, words)| shows(&town.read(number), words));
            let mut sites = town.sites.iter().zip(channels);
            rooms.all(|shown| shown) && sites.all(|(site, words)| shows(&site.read(), words))
        };
        town.wait(what, is_so).await.unwrap();
    };
    town.sites[0].say("from the first");
    let first: &[&str] = &["from the first"];
    deliveries("heard in both rooms", [first, first], [&[], first]).await;
    town.sites[1].say("from the second");
    let room: &[&str] = &["from the first", "from the second"];
    let second: &[&str] = &["from the second"];
    deliveries("heard everywhere", [room, room], [second, first]).await;

    // What is said while the bridge is away comes to both rooms, too.
    town.bridge.kill().await.unwrap();
    town.sites[0].say("meanwhile");
    town.bridge.start().await.unwrap();
    let room = [room, &["meanwhile"]].concat();
    let first = [first, &["meanwhile"]].concat();
    deliveries("caught up", [&room, &room], [second, &first]).await;

    // A channel that is closed to the account is named where somebody reads it.
    town.sites[0].ban();
    let warned = || {
        let logs = town.bridge.logs();
        let line = logs
            .lines()
            .find(|line| line.contains("The bridge is not ready"));
        line.is_some_and(|line| line.contains("gitter0") && line.matches("org/room").count() == 2)
    };
    town.wait("a warning that names the portals", warned)
        .await
        .unwrap();
    town.bridge.settle(PATIENCE).await.unwrap();
    town.bridge.conservation().await.unwrap();
}
