//! Many portals, one silo slow: what the others notice of it. `cargo run -p footbridge-testbed -- many --portals 20`;
//! one table at the end. The ratio is of two states measured in turns in one run.

use footbridge_testbed::arguments::Many as Arguments;
use footbridge_testbed::bridge::build;
use footbridge_testbed::console::Console;
use footbridge_testbed::report::{Table, short};
use footbridge_testbed::scenario::many::{ManyOptions, measure};
use footbridge_testbed::synapse::{Limits, Synapse};

pub async fn run(arguments: &Arguments, console: &Console) -> anyhow::Result<bool> {
    console.heading(&format!(
        "{} portals, one of them on a slow silo",
        arguments.portals
    ));
    console.step("Building the bridge");
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => build::footbridge().await?,
    };
    console.step("Starting a throwaway Synapse");
    let synapse = Synapse::start(Limits::Relaxed).await?;
    let plan = ManyOptions {
        binary,
        portals: arguments.portals,
        blocks: arguments.blocks,
        messages: arguments.messages,
    };
    let outcome = measure(&synapse, &plan, &|text| console.step(text)).await?;
    let mut table = Table::new(&["the others", "messages", "lost", "doubled", "p50", "p95"]);
    for (name, verdict) in [
        ("both silos fast", &outcome.calm),
        ("one silo slow", &outcome.beside),
    ] {
        table.row(&[
            name,
            &verdict.messages.to_string(),
            &verdict.lost.len().to_string(),
            &(verdict.doubled.len() + verdict.unknown.len()).to_string(),
            &short(verdict.percentile(50)),
            &short(verdict.percentile(95)),
        ]);
    }
    let ratio = |percent| {
        outcome
            .ratio(percent)
            .map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
    };
    table.row(&["ratio", "-", "-", "-", &ratio(50), &ratio(95)]);
    console.line(&format!("\n{table}"));
    let both = [&outcome.calm, &outcome.beside];
    Ok(both.iter().all(|verdict| {
        verdict.lost.is_empty() && verdict.doubled.is_empty() && verdict.unknown.is_empty()
    }))
}
