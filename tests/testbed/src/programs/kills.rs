//! Sends SIGKILL to the bridge again and again, under traffic in both directions: nothing may be lost, doubled or
//! reordered. Afterwards every event on the homeserver must be encrypted and no text may be left in the bridge's files
//! or logs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use footbridge_testbed::arguments::Kills as Arguments;
use footbridge_testbed::bridge::build;
use footbridge_testbed::console::Console;
use footbridge_testbed::report::{Table, Verdict, short};
use footbridge_testbed::scenario::{Options, Scenario};
use footbridge_testbed::synapse::{Limits, Synapse};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

pub async fn run(arguments: &Arguments, console: &Console) -> anyhow::Result<bool> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    console.heading(&format!(
        "{} kills under traffic, --seed {seed}",
        arguments.kills
    ));
    console.step("Building the bridge");
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => build::footbridge().await?,
    };
    console.step("Starting a throwaway Synapse");
    let synapse = Synapse::start(Limits::Relaxed).await?;
    let mut options = Options::new(binary).with_budget(arguments.requests_per_minute);
    let settle = format!("settle = \"{}s\"", arguments.settle);
    options.silo_options = [options.silo_options, settle].join("\n");
    "footbridge=trace,footbridge_store=trace".clone_into(&mut options.log_filter);
    let scene = Scenario::set_up(&synapse, options, &|text| console.step(text)).await?;
    console.step("The bridge starts and accepts the invitation");
    scene.open().await?;
    console.end_step();

    let stop = AtomicBool::new(false);
    let pause = Duration::from_secs_f64(1.0 / arguments.messages_per_second.max(0.01));
    let axe = async {
        let outcome = kill_often(&scene, arguments.kills, seed, console).await;
        stop.store(true, Ordering::Relaxed);
        outcome
    };
    tokio::try_join!(
        talk_in_room(&scene, pause, &stop),
        talk_in_channel(&scene, pause, &stop),
        axe
    )?;
    console.step("Waiting until everything has arrived");
    scene.settle(Duration::from_mins(5)).await?;
    console.end_step();
    let good = judge(&scene, &synapse, console).await?;
    if let Some(keep) = &arguments.keep {
        copy(scene.bridge.directory(), keep)?;
        console.line(&format!("  The bridge's files are in {}", keep.display()));
    }
    Ok(good)
}

async fn talk_in_room(scene: &Scenario, pause: Duration, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut clock = tokio::time::interval(pause);
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        scene.say_in_room().await?;
    }
    Ok(())
}

async fn talk_in_channel(
    scene: &Scenario,
    pause: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut clock = tokio::time::interval(pause);
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        scene.say_in_channel();
    }
    Ok(())
}

/// Kills the bridge and starts it again. The length of each life is drawn at random; for half of them the time begins
/// when the bridge is ready, so that both starting and working are interrupted at any moment. Leaves the bridge
/// running.
async fn kill_often(
    scene: &Scenario,
    kills: u32,
    seed: u64,
    console: &Console,
) -> anyhow::Result<()> {
    let mut dice = StdRng::seed_from_u64(seed);
    let began = Instant::now();
    for kill in 1..=kills {
        if dice.random_bool(0.5) {
            scene.bridge.wait_ready().await?;
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(50..=2000))).await;
        if let Some(status) = scene.bridge.ended()? {
            anyhow::bail!(
                "before kill {kill} the bridge ended by itself, {status}\n{}",
                scene.bridge.logs_end()
            );
        }
        scene.bridge.kill().await?;
        scene.bridge.launch()?;
        if kill % 10 == 0 || kill == kills {
            console.line(&format!(
                "  {kill:>4} kills in {:>7}, {:>5} messages sent, {:>5} not arrived yet",
                short(Some(began.elapsed())),
                scene.from_room.said().len() + scene.from_channel.said().len(),
                scene.toward_channel().lost.len() + scene.toward_room().lost.len(),
            ));
        }
    }
    scene.bridge.wait_ready().await
}

async fn judge(scene: &Scenario, synapse: &Synapse, console: &Console) -> anyhow::Result<bool> {
    console.heading("Messages sent and messages arrived");
    let (there, here) = (scene.toward_channel(), scene.toward_room());
    let mut table = Table::of_verdicts();
    table
        .verdict("room → channel", &there)
        .verdict("channel → room", &here);
    console.line(&table.to_string());
    for (name, verdict) in [("room → channel", &there), ("channel → room", &here)] {
        name_faults(name, verdict, console);
    }
    let tally = scene.bridge.conservation().await?;
    console.line(&format!(
        "  {} accepted, and the counts of all lanes add up",
        tally.accepted
    ));
    let encrypted = scene.all_encrypted(synapse).await?;
    console.line(&format!(
        "  {encrypted} events on the homeserver, every one of them encrypted"
    ));
    let traces = wait_for_no_traces(scene).await?;
    if traces.is_empty() {
        console.line("  No text left in the bridge's files and trace logs");
    }
    for trace in &traces {
        console.line(&format!(
            "  A file still contains text of a message: {}",
            trace.display()
        ));
    }
    let good = there.is_clean() && here.is_clean() && traces.is_empty();
    console.line(if good { "\n  Passed." } else { "\n  Failed." });
    Ok(good)
}

fn name_faults(name: &str, verdict: &Verdict, console: &Console) {
    let faults = [
        ("lost", &verdict.lost),
        ("doubled", &verdict.doubled),
        ("out of order", &verdict.misplaced),
        ("never said", &verdict.unknown),
    ];
    for (fault, numbers) in faults {
        if !numbers.is_empty() {
            let first: Vec<String> = numbers.iter().take(20).map(ToString::to_string).collect();
            console.line(&format!("  {name}, {fault}: {}", first.join(" ")));
        }
    }
}

/// Files with traces of texts. The running bridge may need a moment until its write-ahead log is truncated.
async fn wait_for_no_traces(scene: &Scenario) -> anyhow::Result<Vec<PathBuf>> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let traces = scene.traces()?;
        if traces.is_empty() || Instant::now() > deadline {
            return Ok(traces);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
