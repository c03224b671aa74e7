//! What was said before a channel was linked, through the program itself: the newest of it, in order, with its time, once.

use std::path::PathBuf;

use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario, SimulatorKind},
    synapse::Synapse,
};

/// What Bob is heard to say in the room.
fn heard(town: &MultiSiloScenario) -> Vec<String> {
    town.room_observer.pick(&town.rooms[0], |heard| {
        let ours = heard.seen.sender == town.bridge_user;
        heard
            .text()
            .filter(|text| ours && text.contains("line "))
            .map(str::to_owned)
    })
}

async fn comes_along(kind: SimulatorKind) {
    let plan = MultiSiloOptions {
        said_before: (0..8).map(|number| format!("line {number}")).collect(),
        portal_options: "backfill = 5".to_owned(),
        ..MultiSiloOptions::of_one(PathBuf::from(env!("CARGO_BIN_EXE_footbridge")), kind)
    };
    let town = MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap();
    town.sites[0].say("line 8");
    town.wait("what was said last", || {
        heard(&town).iter().any(|text| text.ends_with("line 8"))
    })
    .await
    .unwrap();
    // Asked again, nothing comes again.
    town.bridge.kill().await.unwrap();
    town.bridge.start().await.unwrap();
    town.sites[0].say("line 9");
    town.wait("what follows", || {
        heard(&town).iter().any(|text| text.ends_with("line 9"))
    })
    .await
    .unwrap();
    let all = heard(&town);
    let ends: Vec<&str> = all
        .iter()
        .filter_map(|text| text.rsplit(' ').next())
        .collect();
    assert_eq!(ends, ["3", "4", "5", "6", "7", "8", "9"], "{all:?}");
    for (number, text) in all.iter().enumerate() {
        assert_eq!(text.contains(" UTC)"), number < 5, "{text}");
    }
}

#[tokio::test]
async fn a_new_portal_brings_the_newest_messages_of_a_gitter_channel_along() {
    comes_along(SimulatorKind::Gitter).await;
}

#[tokio::test]
async fn a_new_portal_brings_the_newest_messages_of_a_mattermost_channel_along() {
    comes_along(SimulatorKind::Mattermost).await;
}
