//! Avatars through the program itself: sent with the messages of their owners, uploaded once, and encrypted where the
//! room is.

use std::path::PathBuf;

use footbridge_simulators::{
    channel::SimulatorKind,
    gitter,
    matterbridge::{self, MatterbridgeChannel},
    mattermost,
};
use footbridge_testbed::client::SeenEvent;
use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario},
    synapse::Synapse,
};
use serde_json::{Value, json};

/// A PNG of one pixel.
const PIXEL: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\
    \0\0\0\nIDATx\x9cc\0\x01\0\0\x05\0\x01\r\n-\xb4\0\0\0\0IEND\xaeB`\x82";

async fn scene(kind: &'static SimulatorKind, in_clear: bool) -> MultiSiloScenario {
    let plan = MultiSiloOptions {
        in_clear,
        ..MultiSiloOptions::of_one(PathBuf::from(env!("CARGO_BIN_EXE_footbridge")), kind)
    };
    MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap()
}

/// The profile in the bridge's event with this text; waits for the event.
async fn profile(scene: &MultiSiloScenario, text: &str) -> Value {
    let find = || {
        let found = scene.room_observer.pick(&scene.rooms[0], |heard| {
            let says = heard.text().is_some_and(|said| said.ends_with(text));
            says.then(|| heard.seen.clone())
        });
        found.into_iter().next()
    };
    scene.wait(text, || find().is_some()).await.unwrap();
    let seen: SeenEvent = find().unwrap();
    seen.content["com.beeper.per_message_profile"].clone()
}

/// Bob sends this, with his avatar where the network names it in every message.
fn say(scene: &MultiSiloScenario, text: &str, picture: &str) {
    match scene.sites[0].of::<MatterbridgeChannel>() {
        Some(MatterbridgeChannel { sim, .. }) => {
            let mut message = matterbridge::Message::from_irc("gateway1", "bob", text);
            picture.clone_into(&mut message.avatar);
            sim.say(message);
        }
        None => drop(scene.sites[0].say(text)),
    }
}

async fn is_shown_encrypted(kind: &'static SimulatorKind) {
    let scene = scene(kind, false).await;
    scene.sites[0].set_bob_avatar(PIXEL.to_vec());
    let url = scene.sites[0]
        .file_server()
        .put("irc.png", "image/png", PIXEL.to_vec());
    say(&scene, "here I am", &url);
    let first = profile(&scene, "here I am").await;
    let file = &first["avatar_file"];
    assert!(
        first["avatar_url"].is_null() && file["url"].is_string(),
        "{first}"
    );
    let content = json!({ "file": file });
    assert_eq!(scene.ann.read_file(&content).await.unwrap(), PIXEL);
    say(&scene, "and again", &url);
    assert_eq!(
        profile(&scene, "and again").await["avatar_file"],
        *file,
        "uploaded once"
    );
    let shelf = scene.sites[0].file_server();
    assert!(shelf.fetched("bob.png") + shelf.fetched("irc.png") <= 1);
}

#[tokio::test]
async fn a_picture_is_shown_in_an_encrypted_room_from_gitter() {
    is_shown_encrypted(&gitter::SIMULATOR).await;
}

#[tokio::test]
async fn a_picture_is_shown_in_an_encrypted_room_from_matterbridge() {
    is_shown_encrypted(&matterbridge::SIMULATOR).await;
}

#[tokio::test]
async fn a_picture_is_shown_in_an_encrypted_room_from_mattermost() {
    is_shown_encrypted(&mattermost::SIMULATOR).await;
}

#[tokio::test]
async fn a_picture_is_kept_over_a_restart_and_a_missing_one_costs_no_message() {
    let scene = scene(&matterbridge::SIMULATOR, true).await;
    let url = scene.sites[0]
        .file_server()
        .put("irc.png", "image/png", PIXEL.to_vec());
    say(&scene, "here I am", &url);
    let first = profile(&scene, "here I am").await;
    assert!(first["avatar_file"].is_null(), "{first}");
    let content = json!({ "url": first["avatar_url"] });
    assert_eq!(scene.ann.read_file(&content).await.unwrap(), PIXEL);
    scene.bridge.kill().await.unwrap();
    scene.bridge.start().await.unwrap();
    say(&scene, "and again", &url);
    let again = profile(&scene, "and again").await;
    assert_eq!(again["avatar_url"], first["avatar_url"]);
    assert_eq!(scene.sites[0].file_server().fetched("irc.png"), 1);
    // No avatar, and one on a host that is not listed.
    let page = scene.sites[0]
        .file_server()
        .put("page.png", "text/html", b"<html>".to_vec());
    for (number, url) in [page.as_str(), "http://127.0.0.1:1/x.png"]
        .into_iter()
        .enumerate()
    {
        let text = format!("message {number}");
        say(&scene, &text, url);
        let shown = profile(&scene, &text).await;
        assert!(
            shown["displayname"].is_string() && shown["avatar_url"].is_null(),
            "{shown}"
        );
    }
}
