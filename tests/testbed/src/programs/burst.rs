//! Measures a busy minute in the channel against the limits of a default Synapse: what arrives in the encrypted room,
//! and how long it takes.

use std::time::Duration;

use footbridge_testbed::arguments::Burst as Arguments;
use footbridge_testbed::bridge::build;
use footbridge_testbed::console::Console;
use footbridge_testbed::report::{Table, short};
use footbridge_testbed::scenario::{Burst, Options, burst};
use footbridge_testbed::synapse::{Limits, Synapse};

pub async fn run(arguments: &Arguments, console: &Console) -> anyhow::Result<bool> {
    console.heading(&format!(
        "{} messages in {} s on a Synapse with its default limits{}",
        arguments.messages,
        arguments.seconds,
        if arguments.no_coalesce {
            ", one event per message"
        } else {
            ""
        }
    ));
    console.step("Building the bridge");
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => build::footbridge().await?,
    };
    console.step("Starting a throwaway Synapse");
    let synapse = Synapse::start(Limits::Default).await?;
    let options = Options::new(binary).with_budget(6_000);
    let plan = Burst {
        messages: arguments.messages,
        within: Duration::from_secs(arguments.seconds),
        authors: arguments.authors,
        coalesce: !arguments.no_coalesce,
        patience: Duration::from_mins(arguments.patience),
    };
    let outcome = burst(&synapse, options, plan, &|text| console.step(text)).await?;
    console.end_step();
    let mut table = Table::of_verdicts();
    table.verdict("channel → room", &outcome.verdict);
    console.line(&table.to_string());
    console.line(&format!(
        "  The last was readable {} after the first was sent ({:.1} min)",
        short(Some(outcome.took)),
        outcome.took.as_secs_f64() / 60.0
    ));
    console.line(&format!(
        "  {} events for {} messages; {} under a wrong name",
        outcome.events, arguments.messages, outcome.misattributed
    ));
    console.line(&format!(
        "  Measured pace: {} s per event; longest estimate of the backlog: {} s",
        outcome
            .pace
            .map_or_else(|| "-".to_owned(), |pace| format!("{pace:.2}")),
        outcome.estimate
    ));
    console.line(&format!(
        "  Memory of the bridge: {} KiB before, {} KiB at most",
        outcome.before.resident_kib, outcome.after.peak_kib
    ));
    let good = outcome.verdict.is_clean() && outcome.misattributed == 0;
    console.line(if good { "\n  Passed." } else { "\n  Failed." });
    Ok(good)
}
