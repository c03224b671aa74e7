//! Messages from before a channel was linked, through the program itself: the newest of them, in order, with their
//! times, once.

use std::path::PathBuf;

use footbridge_simulators::{channel::SimulatorKind, gitter, mattermost};
use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario},
    synapse::Synapse,
};

/// Bob's messages in the room.
fn heard(scene: &MultiSiloScenario) -> Vec<String> {
    scene.room_observer.pick(&scene.rooms[0], |heard| {
        let ours = heard.seen.sender == scene.bridge_user;
        heard
            .text()
            .filter(|text| ours && text.contains("line "))
            .map(str::to_owned)
    })
}

async fn comes_along(kind: &'static SimulatorKind) {
    let plan = MultiSiloOptions {
        said_before: (0..8).map(|number| format!("line {number}")).collect(),
        portal_options: "backfill = 5".to_owned(),
        ..MultiSiloOptions::of_one(PathBuf::from(env!("CARGO_BIN_EXE_footbridge")), kind)
    };
    let scene = MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap();
    scene.sites[0].say("line 8");
    scene
        .wait("what was said last", || {
            heard(&scene).iter().any(|text| text.ends_with("line 8"))
        })
        .await
        .unwrap();
    // After a restart none of it comes again.
    scene.bridge.kill().await.unwrap();
    scene.bridge.start().await.unwrap();
    scene.sites[0].say("line 9");
    scene
        .wait("what follows", || {
            heard(&scene).iter().any(|text| text.ends_with("line 9"))
        })
        .await
        .unwrap();
    let all = heard(&scene);
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
async fn a_new_portal_relays_the_newest_messages_of_a_gitter_channel() {
    comes_along(&gitter::SIMULATOR).await;
}

#[tokio::test]
async fn a_new_portal_relays_the_newest_messages_of_a_mattermost_channel() {
    comes_along(&mattermost::SIMULATOR).await;
}
