//! The most telling rows of the fault rig, as small as they are still worth something. The tool `faults` runs all of
//! them, at any size.

use std::path::PathBuf;

use footbridge_testbed::{
    rig::{Context, Size, rows, table},
    synapse::Synapse,
};

pub async fn passes(id: &str) {
    let context = Context {
        synapse: Synapse::shared().await.unwrap(),
        binary: PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
        size: Size::Tiny,
        seed: 7,
        keep: None,
        tell: &|_| (),
    };
    let row = rows::find(id).unwrap();
    let outcome = (row.run)(&context).await.unwrap();
    assert!(outcome.injections > 0, "nothing was harmed");
    let parts = outcome.parts().map(|parts| parts.to_string());
    assert!(
        outcome.is_good(),
        "\n{}{}",
        table(&[outcome]),
        parts.unwrap_or_default()
    );
}

#[tokio::test]
async fn f01_kills_at_any_moment_change_nothing_but_the_delay() {
    passes("F01").await;
}

#[tokio::test]
async fn f03_lost_answers_double_nothing() {
    passes("F03").await;
}

#[tokio::test]
async fn f04_lost_requests_lose_nothing() {
    passes("F04").await;
}

#[tokio::test]
async fn f14_doubled_requests_double_nothing_in_the_room() {
    passes("F14").await;
}

#[tokio::test]
async fn f33_a_storm_of_refusals_loses_and_doubles_nothing() {
    passes("F33").await;
}

#[tokio::test]
async fn f35_a_slow_and_broken_line_loses_and_doubles_nothing() {
    passes("F35").await;
}
