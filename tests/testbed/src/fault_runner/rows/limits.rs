//! A default homeserver's limits, and one slow silo among many portals: the measurements of the programs `burst` and
//! `many`, as rows.

use std::time::Duration;

use super::super::{Context, Outcome, Row};
use crate::report::short;
use crate::scenario::many::{self, measure};
use crate::scenario::{Burst, Options, burst};
use crate::synapse::{Limits, Synapse};

/// The largest ratio of latencies with and without a slow silo.
const MAX_SLOWDOWN: f64 = 1.1;
/// How much the bridge's memory may grow while messages wait, in KiB.
const MAX_GROWTH_KIB: u64 = 20 * 1024;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F17",
            title: "a burst that is too fast for an ordinary account",
            help: "300 messages in a minute (fewer when small) from the channel, on a Synapse with its default \
                   limits: all are readable in order, and memory does not grow.",
            run: |context| Box::pin(limited(context)),
        },
        Row {
            id: "F44",
            title: "one slow silo among many portals",
            help: "Twenty portals (fewer when small), one of them on a silo that answers after 10 s: the effect on \
                   the others, as the ratio of two alternating states.",
            run: |context| Box::pin(beside(context)),
        },
    ]
}

async fn limited(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let synapse = Synapse::start(Limits::Default).await?;
    let options = Options::new(context.binary.clone()).with_budget(6_000);
    let messages = context.pick(20, 60, 300);
    let plan = Burst {
        messages,
        within: Duration::from_secs(context.pick(5, 15, 60)),
        authors: 5,
        coalesce: true,
        patience: Duration::from_mins(12),
    };
    let began = std::time::Instant::now();
    let run = burst(&synapse, options, plan, &|text| context.tell(text)).await?;
    let grown = run.after.peak_kib.saturating_sub(run.before.resident_kib);
    let mut outcome = Outcome {
        fault: "F17",
        injections: u64::from(messages),
        verdict: run.verdict,
        took: began.elapsed(),
        remark: format!(
            "{} events; the last readable after {}; memory +{} KiB",
            run.events,
            short(Some(run.took)),
            grown
        ),
        ..Outcome::default()
    };
    if run.misattributed > 0 {
        outcome.object(&format!("{} under a wrong name", run.misattributed));
    }
    if grown > MAX_GROWTH_KIB {
        outcome.object("memory grew");
    }
    Ok(outcome)
}

async fn beside(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let plan = many::ManyOptions {
        binary: context.binary.clone(),
        portals: context.pick(4, 8, 20),
        blocks: context.pick(1, 2, 4),
        messages: 3,
    };
    let began = std::time::Instant::now();
    let run = measure(context.synapse, &plan, &|text| context.tell(text)).await?;
    let ratio = run.ratio(95);
    let mut verdict = run.calm;
    verdict.join(run.beside);
    let mut outcome = Outcome {
        fault: "F44",
        injections: 1,
        verdict,
        took: began.elapsed(),
        ..Outcome::default()
    };
    match ratio {
        Some(ratio) => {
            outcome.note(&format!("p95 of the others: × {ratio:.2}"));
            // A few messages have no meaningful 95th percentile.
            if context.pick(false, false, true) && ratio > MAX_SLOWDOWN {
                outcome.object("more than a tenth slower");
            }
        }
        None => outcome.object("nothing was measured"),
    }
    Ok(outcome)
}
