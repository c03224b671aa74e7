//! C18: two bridges that link one encrypted room to one channel. Each relays everything once, and neither relays back
//! what the other has relayed.

use std::{path::PathBuf, time::Duration};

use footbridge_simulators::{channel::SimulatorKind, gitter, mattermost};
use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario, SiloChannel},
    synapse::Synapse,
};
use tokio::time::sleep;

/// All texts in the room, whoever sent them.
fn in_room(scene: &MultiSiloScenario) -> Vec<String> {
    scene
        .room_observer
        .pick(&scene.rooms[0], |heard| heard.text().map(str::to_owned))
}

fn count(texts: &[String], what: &str) -> usize {
    texts.iter().filter(|text| text.contains(what)).count()
}

fn shown(site: &SiloChannel) -> Vec<String> {
    let shown = site.shown().into_iter();
    shown.map(|(_, line)| line).collect()
}

async fn carry_nothing_back(kind: &'static SimulatorKind) {
    let synapse = Synapse::shared().await.unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_footbridge"));
    let scene = MultiSiloScenario::build(synapse, MultiSiloOptions::of_one(binary.clone(), kind))
        .await
        .unwrap();
    let (_rival, _) = scene.start_second_bridge(synapse, binary).await.unwrap();
    let site = &scene.sites[0];
    // By this message they recognise each other as peer bridges.
    site.say("dawn");
    scene
        .wait("both bring it", || count(&in_room(&scene), "dawn") == 2)
        .await
        .unwrap();
    scene
        .wait("both notice", || {
            count(&in_room(&scene), "Another Footbridge") == 2
        })
        .await
        .unwrap();
    for number in 0..4 {
        scene
            .ann
            .say(&scene.rooms[0], &format!("from ann {number}"))
            .await
            .unwrap();
        site.say(&format!("from bob {number}"));
    }
    scene
        .wait("all arrives", || {
            count(&in_room(&scene), "from bob") >= 8 && count(&shown(site), "from ann") >= 8
        })
        .await
        .unwrap();
    // Time in which copies of copies would appear.
    sleep(Duration::from_secs(5)).await;
    let (room, channel) = (in_room(&scene), shown(site));
    for number in 0..4 {
        let (ann, bob) = (format!("from ann {number}"), format!("from bob {number}"));
        assert_eq!(
            (count(&room, &ann), count(&channel, &ann)),
            (1, 2),
            "{room:?} {channel:?}"
        );
        assert_eq!(
            (count(&room, &bob), count(&channel, &bob)),
            (2, 1),
            "{room:?} {channel:?}"
        );
    }
    assert_eq!(count(&room, "Another Footbridge"), 2, "{room:?}");
    assert_eq!(count(&channel, "Another Footbridge"), 0, "{channel:?}");
}

#[tokio::test]
async fn c18_two_bridges_on_gitter_relay_nothing_back() {
    carry_nothing_back(&gitter::SIMULATOR).await;
}

#[tokio::test]
async fn c18_two_bridges_on_mattermost_relay_nothing_back() {
    carry_nothing_back(&mattermost::SIMULATOR).await;
}
