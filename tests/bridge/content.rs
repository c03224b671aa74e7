//! What message content alone can do to a bridge: cause a panic (C25), or be displayed as something else.

use std::path::PathBuf;

use footbridge_core::{
    crash_points::POISON,
    text::{
        Body,
        html::{Dialect, body_from_html},
    },
};
use footbridge_silo::markdown::{body_from_markdown, markdown_from_body};
use footbridge_simulators::{gitter, mattermost};
use footbridge_testbed::{
    multi_silo::{MultiSiloOptions, MultiSiloScenario},
    synapse::Synapse,
};
use proptest::prelude::*;
use serde_json::json;

async fn scene() -> MultiSiloScenario {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_footbridge"));
    let plan = MultiSiloOptions::of_one(binary, &mattermost::SIMULATOR);
    MultiSiloScenario::build(Synapse::shared().await.unwrap(), plan)
        .await
        .unwrap()
}

async fn wait(scene: &MultiSiloScenario, what: &str, is_so: impl Fn() -> bool) {
    scene.wait(what, is_so).await.unwrap();
}

#[tokio::test]
async fn c25_an_event_that_breaks_the_bridge_is_passed_over_and_counted() {
    let scene = scene().await;
    let room = &scene.rooms[0];
    let pid = scene.bridge.pid();
    scene.ann.say(room, "before").await.unwrap();
    scene
        .ann
        .send(room, POISON, json!({"body": "x"}))
        .await
        .unwrap();
    scene.ann.say(room, "behind").await.unwrap();
    wait(&scene, "what follows", || {
        let said = scene.sites[0].bridge_texts();
        said.len() == 2 && said[1].ends_with("behind")
    })
    .await;
    assert_eq!(scene.bridge.pid(), pid, "the bridge still runs");
    let metrics = scene.bridge.metrics().await.unwrap();
    let passed = metrics.sum_where("footbridge_skipped_total", "rule", "panic");
    assert_eq!(passed, 1);
    // The same at the next start, and from history.
    scene.bridge.terminate().await.unwrap();
    scene
        .ann
        .send(room, POISON, json!({"body": "x"}))
        .await
        .unwrap();
    scene.ann.say(room, "at last").await.unwrap();
    scene.bridge.start().await.unwrap();
    wait(&scene, "what follows", || {
        scene.sites[0].bridge_texts().len() == 3
    })
    .await;
}

/// A text without invisible characters.
fn seen(text: &str) -> String {
    let unseen = |c: &char| {
        c.is_whitespace() || c.is_control() || matches!(c, '\u{200b}' | '\u{200d}' | '\u{feff}')
    };
    text.chars().filter(|c| !unseen(c)).collect()
}

/// Texts in which anything may be markup. In a URL markup is percent-encoded, so none touches one.
fn any_text() -> impl Strategy<Value = String> {
    let marks = vec![
        "*",
        "**",
        "_",
        "`",
        "``",
        "```",
        "~~",
        "[",
        "](",
        ")",
        "<",
        ">",
        "<b>",
        "&amp;",
        "&",
        "\\",
        "#",
        "# ",
        "- ",
        "1. ",
        "> ",
        "|",
        "---",
        "\n",
        "\n\n",
        "    ",
        ":smile:",
        "@al",
        "$$",
        "!",
        " https://x.example/a_b ",
        "a@b.example",
        "word",
        "é",
        "😀",
        "/me ",
    ];
    let piece = prop_oneof![
        prop::sample::select(marks).prop_map(str::to_owned),
        "\\PC{0,6}"
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_text_is_shown_by_mattermost_as_it_was_written(text in any_text()) {
        let written = markdown_from_body(&Body::plain(&text), footbridge_silo::mattermost::MARKDOWN);
        let shown = body_from_markdown(&written).to_plain();
        prop_assert_eq!(seen(&shown), seen(&text), "{:?}", written);
    }

    #[test]
    fn every_text_is_shown_by_gitter_as_it_was_written(text in any_text()) {
        let written = markdown_from_body(&Body::plain(&text), footbridge_silo::gitter::MARKDOWN);
        let shown = body_from_html(&gitter::rendered(&written), Dialect::Gitter).to_plain();
        prop_assert_eq!(seen(&shown), seen(&text), "{:?}", written);
    }
}
