//! One room joined to channels of different silos, and one channel to two rooms: everything reaches every place once, edits
//! and deletions reach every copy, and nothing comes back.

use std::{path::PathBuf, time::Duration};

use footbridge_testbed::{
    scenario::until,
    synapse::Synapse,
    town::{Kind, Plan, Site, Town},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Two rooms and a Mattermost channel between them; the first room also has a Gitter channel and a gateway.
async fn town() -> Town {
    let plan = Plan {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
        sites: vec![
            Kind::Mattermost,
            Kind::Gitter,
            Kind::Matterbridge { buffer: 1_000 },
        ],
        rooms: 2,
        portals: vec![(0, 0), (1, 0), (0, 1), (0, 2)],
        seed: 1,
        log_filter: "info".to_owned(),
        ..Plan::default()
    };
    let synapse = Synapse::shared().await.unwrap();
    Town::build(synapse, plan).await.unwrap()
}

/// Whether a place shows exactly these words, each in one message, in this order.
fn shows(texts: &[String], words: &[&str]) -> bool {
    texts.len() == words.len()
        && texts
            .iter()
            .zip(words)
            .all(|(text, word)| text.ends_with(word))
}

async fn reads(town: &Town, what: &str, rooms: [&[&str]; 2], channels: [&[&str]; 3]) {
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
        let sites: Vec<_> = town.sites.iter().map(Site::read).collect();
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
