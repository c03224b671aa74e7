//! The most telling rows of the fault scenarios, at the smallest useful size. The tool `faults` runs all of them, at
//! any size.

use std::path::PathBuf;

use footbridge_testbed::{
    fault_runner::{Context, Outcome, Size, rows, silos, table},
    synapse::Synapse,
};

async fn context() -> Context<'static> {
    Context {
        synapse: Synapse::shared().await.unwrap(),
        binary: PathBuf::from(env!("CARGO_BIN_EXE_footbridge")),
        size: Size::Tiny,
        seed: 7,
        keep: None,
        tell: &|_| (),
    }
}

fn is_good(outcome: Outcome) {
    assert!(outcome.injections > 0, "no fault was injected");
    let parts = outcome.parts().map(|parts| parts.to_string());
    assert!(
        outcome.is_good(),
        "\n{}{}",
        table(&[outcome]),
        parts.unwrap_or_default()
    );
}

pub async fn passes(id: &str) {
    let row = rows::find(id).unwrap();
    is_good((row.run)(&context().await).await.unwrap());
}

/// The quicker rows among those that every silo has, one test for each.
macro_rules! rows_of {
    ($($silo:ident)*) => {$(
        mod $silo {
            #[tokio::test]
            async fn f01_kills_at_any_moment() {
                super::passes_on(stringify!($silo), "F01").await;
            }

            #[tokio::test]
            async fn f03_lost_answers() {
                super::passes_on(stringify!($silo), "F03").await;
            }

            #[tokio::test]
            async fn f04_lost_requests() {
                super::passes_on(stringify!($silo), "F04").await;
            }

            #[tokio::test]
            async fn f12_resets_of_the_feed() {
                super::passes_on(stringify!($silo), "F12").await;
            }

            #[tokio::test]
            async fn f34_garbage_from_the_silo() {
                super::passes_on(stringify!($silo), "F34").await;
            }
        }
    )*};
}

rows_of! { matterbridge mattermost }

async fn passes_on(silo: &str, id: &str) {
    let kind = silos::kind(silo).unwrap();
    is_good(silos::run(&context().await, id, kind).await.unwrap());
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
async fn f24_an_old_copy_of_the_store_is_refused_always() {
    passes("F24").await;
}

#[tokio::test]
async fn f25_a_second_instance_ends_at_once_on_the_store_and_on_a_copy_of_it() {
    passes("F25").await;
}

#[tokio::test]
async fn f29_sessions_that_end_every_other_second_lose_nothing_under_kills() {
    passes("F29").await;
}

#[tokio::test]
async fn f39_a_kill_while_keys_are_uploaded_leaves_none_missing() {
    passes("F39").await;
}

#[tokio::test]
async fn f40_with_the_fallback_key_alone_messages_are_readable() {
    passes("F40").await;
}

#[tokio::test]
async fn f33_a_storm_of_refusals_loses_and_doubles_nothing() {
    passes("F33").await;
}

#[tokio::test]
async fn f35_a_slow_and_broken_line_loses_and_doubles_nothing() {
    passes("F35").await;
}

#[tokio::test]
async fn f49_the_newest_event_left_out_of_history_is_not_lost() {
    passes("F49").await;
}

#[tokio::test]
async fn f50_late_answers_to_syncs_are_no_outage() {
    passes("F50").await;
}
