//! Runs the rows of the fault catalogue: faults between the bridge and everything else, injected and counted. Every run
//! prints one table.

use std::time::{Duration, Instant};

use footbridge_testbed::arguments::{Faults as Arguments, Sizes};
use footbridge_testbed::bridge::build;
use footbridge_testbed::console::Console;
use footbridge_testbed::fault_runner::soak::{self, Soak};
use footbridge_testbed::fault_runner::{Context, Outcome, Row, Size, rows, silos, table};
use footbridge_testbed::synapse::{Limits, Synapse};

/// Lists the rows of a kind of silo.
fn list(silo: &str, console: &Console) {
    let rows: Vec<(&str, &str)> = if silo == "gitter" {
        let all = rows::all().into_iter();
        all.map(|row| (row.id, row.title)).collect()
    } else {
        silos::rows().collect()
    };
    for (id, title) in rows {
        console.line(&format!("{id}  {title}"));
    }
}

/// The requested rows, and whether the soak was requested.
fn wanted(arguments: &Arguments) -> anyhow::Result<(Vec<Row>, bool)> {
    let (mut found, mut soak) = (Vec::new(), false);
    for name in &arguments.rows {
        match name.to_lowercase().as_str() {
            "all" => found.extend(rows::all()),
            "soak" | "f45" => soak = true,
            name => match rows::find(name) {
                Some(row) => found.push(row),
                None => anyhow::bail!("there is no row {name}; --list shows them"),
            },
        }
    }
    anyhow::ensure!(soak || !found.is_empty(), "which rows? --list shows them");
    Ok((found, soak))
}

pub async fn run(arguments: &Arguments, console: &Console) -> anyhow::Result<bool> {
    if arguments.list {
        list(&arguments.silo, console);
        return Ok(true);
    }
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let size = match arguments.size {
        Sizes::Small => Size::Small,
        Sizes::Full => Size::Full,
    };
    console.heading(&format!("Faults, --seed {seed}"));
    console.step("Building the bridge");
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => build::footbridge().await?,
    };
    console.step("Starting a throwaway Synapse");
    let synapse = Synapse::start(Limits::Relaxed).await?;
    let tell = |text: &str| console.step(text);
    let context = Context {
        synapse: &synapse,
        binary,
        size,
        seed,
        keep: arguments.keep.clone(),
        tell: &tell,
    };
    let patience = Duration::from_mins(arguments.patience);
    if arguments.silo != "gitter" {
        let outcomes = beside_gitter(arguments, &context, console).await?;
        return Ok(print_results(&outcomes, arguments, console, seed));
    }
    let (rows, soak) = wanted(arguments)?;
    let mut outcomes = Vec::new();
    for row in rows {
        console.line(&format!("  {} {}", console.strong(row.id), row.title));
        let began = Instant::now();
        let ran = tokio::time::timeout(patience, (row.run)(&context)).await;
        let outcome = match ran {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                console.line(&format!("  {error:#}"));
                Outcome::broken(row.id, &error, began.elapsed())
            }
            Err(_) => {
                let error = anyhow::anyhow!("not finished after {} min", arguments.patience);
                Outcome::broken(row.id, &error, began.elapsed())
            }
        };
        console.line(&table(std::slice::from_ref(&outcome)).to_string());
        if let Some(parts) = outcome.parts() {
            console.line(&parts.to_string());
        }
        outcomes.push(outcome);
    }
    if soak {
        outcomes.push(soaked(arguments, &context, console).await?);
    }
    Ok(print_results(&outcomes, arguments, console, seed))
}

/// Prints all results once more, in one table.
fn print_results(
    outcomes: &[Outcome],
    arguments: &Arguments,
    console: &Console,
    seed: u64,
) -> bool {
    console.heading(&format!("{} rows, --seed {seed}", outcomes.len()));
    console.line(&table(outcomes).to_string());
    if arguments.json {
        let all: Vec<_> = outcomes.iter().map(Outcome::json).collect();
        console.line(&serde_json::json!({ "seed": seed, "rows": all }).to_string());
    }
    outcomes.iter().all(Outcome::is_good)
}

/// Runs the rows on silos of other kinds.
async fn beside_gitter(
    arguments: &Arguments,
    context: &Context<'_>,
    console: &Console,
) -> anyhow::Result<Vec<Outcome>> {
    let all = arguments.rows.iter().any(|name| name == "all");
    let wanted = silos::rows().filter(|(id, _)| {
        all || arguments
            .rows
            .iter()
            .any(|name| name.eq_ignore_ascii_case(id))
    });
    let mut outcomes = Vec::new();
    for (id, title) in wanted {
        console.line(&format!("  {} {title}", console.strong(id)));
        let kind = silos::kind(&arguments.silo)
            .ok_or_else(|| anyhow::anyhow!("there is no kind of silo named {}", arguments.silo))?;
        let began = Instant::now();
        let patience = Duration::from_mins(arguments.patience);
        let ran = tokio::time::timeout(patience, silos::run(context, id, kind)).await;
        let outcome = match ran {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::broken(id, &error, began.elapsed()),
            Err(_) => Outcome::broken(id, &anyhow::anyhow!("it did not end"), began.elapsed()),
        };
        console.line(&table(std::slice::from_ref(&outcome)).to_string());
        outcomes.push(outcome);
    }
    anyhow::ensure!(!outcomes.is_empty(), "which rows? --list shows them");
    Ok(outcomes)
}

async fn soaked(
    arguments: &Arguments,
    context: &Context<'_>,
    console: &Console,
) -> anyhow::Result<Outcome> {
    let soak = Soak {
        length: Duration::from_secs_f64(arguments.minutes * 60.0),
        rate: arguments.rate,
        kill_every: Duration::from_secs_f64(arguments.kill_every * 60.0),
        report_every: Duration::from_secs_f64((arguments.minutes * 60.0 / 4.0).min(300.0)),
    };
    soak::run(context, &soak, &|text| console.line(text)).await
}
