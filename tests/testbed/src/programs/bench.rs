//! Measures the bridge: idle memory and CPU, latency, throughput compared with the homeserver's own, catching up.
//! `cargo run --release -p footbridge-testbed -- bench`; one table at the end. On a machine that does other work
//! meanwhile, only the ratios are meaningful.

mod converters;
mod crowd;
mod files;
mod raw;

use std::path::Path;
use std::time::{Duration, Instant};

use footbridge_testbed::arguments::{Bench as Arguments, Part};
use footbridge_testbed::bridge::{Usage, build};
use footbridge_testbed::console::Console;
use footbridge_testbed::report::{Table, percentile, short};
use footbridge_testbed::scenario::{Options, Scenario, until};
use footbridge_testbed::synapse::{Limits, Synapse};

use self::raw::RawRoom;
use anyhow::Context as _;

/// More requests a minute than anything here uses, so that the bridge is measured and not Gitter's limit.
const BUDGET: u32 = 60_000;

pub async fn run(arguments: &Arguments, console: &Console) -> anyhow::Result<bool> {
    let profile = if cfg!(debug_assertions) {
        "debug build: not for comparison"
    } else {
        "release build"
    };
    console.heading(&format!("Footbridge, measured ({profile})"));
    let wants = |part| arguments.only.is_none_or(|only| only == part);
    let mut table = Table::new(&["measured", "value", "remarks"]);
    if wants(Part::Converters) {
        console.step("Converting texts");
        converters::measure(&mut table);
    }
    let crowd = arguments.only == Some(Part::Crowd);
    if wants(Part::Files) || wants(Part::Messages) || crowd {
        console.step("Building the bridge");
        let binary = match &arguments.binary {
            Some(binary) => binary.clone(),
            None => build::footbridge().await?,
        };
        console.step("Starting a throwaway Synapse");
        let synapse = Synapse::start(Limits::Relaxed).await?;
        if wants(Part::Messages) {
            messages(&synapse, &binary, arguments, &mut table, console).await?;
        }
        if wants(Part::Files) {
            files::measure(&synapse, &binary, arguments.megabytes, &mut table, console).await?;
        }
        if crowd {
            for members in &arguments.members {
                crowd::measure(&synapse, &binary, *members, &mut table, console).await?;
            }
        }
    }
    console.line(&format!("\n{table}"));
    Ok(true)
}

async fn messages(
    synapse: &Synapse,
    binary: &Path,
    arguments: &Arguments,
    table: &mut Table,
    console: &Console,
) -> anyhow::Result<()> {
    let crowd = open(synapse, binary, 50, console).await?;
    console.step("Rest, with 50 portals");
    at_rest(&crowd, arguments, "50 portals", table).await?;
    crowd.bridge.terminate().await?;
    drop(crowd);

    let scene = open(synapse, binary, 1, console).await?;
    console.step("Rest, with 1 portal");
    at_rest(&scene, arguments, "1 portal", table).await?;
    console.step("8 messages a second each way");
    latency(&scene, arguments, table).await?;
    console.step("Bursts, alternating with raw requests");
    throughput(&scene, synapse, arguments, table).await?;
    console.step("CPU of one direction at a time");
    cost(&scene, arguments, table).await?;
    console.step(&format!(
        "{} messages while the bridge is stopped, and their arrival",
        arguments.catch_up
    ));
    catch_up(&scene, arguments, table).await?;
    let (there, here) = (scene.toward_channel(), scene.toward_room());
    anyhow::ensure!(
        there.is_clean() && here.is_clean(),
        "messages were lost, doubled or out of order"
    );
    Ok(())
}

async fn open(
    synapse: &Synapse,
    binary: &Path,
    portals: usize,
    console: &Console,
) -> anyhow::Result<Scenario> {
    let mut options = Options::new(binary.to_owned()).with_budget(BUDGET);
    options.portals = portals;
    let scene = Scenario::set_up(synapse, options, &|text| console.step(text)).await?;
    console.step("The bridge starts and accepts the invitations");
    scene.open().await?;
    Ok(scene)
}

async fn at_rest(
    scene: &Scenario,
    arguments: &Arguments,
    name: &str,
    table: &mut Table,
) -> anyhow::Result<()> {
    // A first message each way, so that keys and caches are as in daily use.
    scene.say_in_channel();
    scene.say_in_room().await?;
    scene.settle(Duration::from_mins(2)).await?;
    scene.bridge.terminate().await?;
    scene.bridge.start().await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = scene.bridge.usage()?;
    tokio::time::sleep(Duration::from_secs(arguments.rest)).await;
    let after = scene.bridge.usage()?;
    let share = 100.0 * seconds(after.cpu.saturating_sub(before.cpu))
        / seconds(Duration::from_secs(arguments.rest));
    table.row(&[
        &format!("at rest, {name}"),
        &format!(
            "{} MB, {} without the program file",
            after.resident_kib / 1024,
            after.anonymous_kib / 1024
        ),
        &format!("{share:.2} % CPU, {} open files", after.files),
    ]);
    Ok(())
}

async fn latency(scene: &Scenario, arguments: &Arguments, table: &mut Table) -> anyhow::Result<()> {
    let (past_room, past_channel) = (
        scene.from_room.said().len(),
        scene.from_channel.said().len(),
    );
    let mut own = Vec::new();
    let mut clock = tokio::time::interval(Duration::from_millis(125));
    for _ in 0..arguments.latency_messages {
        clock.tick().await;
        scene.say_in_channel();
        let began = Instant::now();
        scene.say_in_room().await?;
        own.push(began.elapsed());
    }
    scene.settle(Duration::from_mins(2)).await?;
    own.sort_unstable();
    let both = |latencies: &[Duration]| {
        let (half, most) = (percentile(latencies, 50), percentile(latencies, 95));
        format!("p50 {}, p95 {}", short(half), short(most))
    };
    table.row(&[
        "8/s room → channel",
        &both(&scene.toward_channel_from(past_room).latencies),
        "from the start of Ann's own send",
    ]);
    table.row(&[
        "8/s channel → room",
        &both(&scene.toward_room_from(past_channel).latencies),
        "to Ann's sight",
    ]);
    table.row(&[
        "of which Ann's own send",
        &both(&own),
        "encryption and Synapse, no bridge",
    ]);
    Ok(())
}

/// Messages a second into the encrypted room compared with plain unencrypted requests, in alternating blocks.
async fn throughput(
    scene: &Scenario,
    synapse: &Synapse,
    arguments: &Arguments,
    table: &mut Table,
) -> anyhow::Result<()> {
    let raw = RawRoom::open(synapse, &scene.ann).await?;
    let (mut bridged, mut plain) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..4 {
        plain += raw.send(arguments.block).await?;
        bridged += burst(scene, arguments.block).await?;
    }
    let count = 4.0 * f64::from(u32::try_from(arguments.block)?);
    let (encrypted, unencrypted) = (count / seconds(bridged), count / seconds(plain));
    table.row(&[
        "encrypted sends",
        &format!("{encrypted:.1}/s"),
        &format!(
            "{:.2} of {unencrypted:.1}/s raw and unencrypted",
            encrypted / unencrypted
        ),
    ]);
    Ok(())
}

/// Sends many messages in the channel at once; returns the time from the first to the last event in the room.
async fn burst(scene: &Scenario, messages: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    for _ in 0..messages {
        scene.say_in_channel();
    }
    until(Duration::from_mins(5), || {
        scene.toward_room().lost.is_empty()
    })
    .await?;
    let seen = scene.in_room(|event, _| Some(event.at));
    let last = *seen.last().context("nothing arrived")?;
    Ok(last - began)
}

/// CPU time for a thousand messages, one direction at a time.
async fn cost(scene: &Scenario, arguments: &Arguments, table: &mut Table) -> anyhow::Result<()> {
    let messages = arguments.block * 3;
    let before = scene.bridge.usage()?;
    burst(scene, messages).await?;
    let between = settled_usage(scene).await?;
    table.row(&[
        "CPU, channel → room",
        &per_thousand(before, between, messages)?,
        "in bursts",
    ]);
    for _ in 0..messages {
        scene.say_in_room().await?;
    }
    let after = settled_usage(scene).await?;
    table.row(&[
        "CPU, room → channel",
        &per_thousand(between, after, messages)?,
        "as fast as Ann can send",
    ]);
    Ok(())
}

async fn settled_usage(scene: &Scenario) -> anyhow::Result<Usage> {
    scene.settle(Duration::from_mins(5)).await?;
    scene.bridge.usage()
}

fn per_thousand(before: Usage, after: Usage, messages: usize) -> anyhow::Result<String> {
    let spent = seconds(after.cpu.saturating_sub(before.cpu));
    let thousands = f64::from(u32::try_from(messages)?) / 1000.0;
    Ok(format!("{:.1} s per 1,000", spent / thousands))
}

/// Measures encrypted messages that arrived while the bridge was stopped.
async fn catch_up(
    scene: &Scenario,
    arguments: &Arguments,
    table: &mut Table,
) -> anyhow::Result<()> {
    scene.bridge.terminate().await?;
    for _ in 0..arguments.catch_up {
        scene.say_in_room().await?;
    }
    let began = Instant::now();
    scene.bridge.launch()?;
    let wanted = u64::try_from(arguments.catch_up)?;
    let accepted = loop {
        let read = match scene.bridge.metrics().await {
            Ok(metrics) => {
                let open = metrics.sum_where("footbridge_pending", "toward", "silo");
                (open, scene.toward_channel().lost.len())
            }
            Err(_) => (0, arguments.catch_up),
        };
        let delivered = wanted.saturating_sub(u64::try_from(read.1)?);
        if delivered + read.0 >= wanted {
            break began.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let usage = scene.bridge.usage()?;
    until(Duration::from_mins(10), || {
        scene.toward_channel().lost.is_empty()
    })
    .await?;
    let all = began.elapsed();
    table.row(&[
        &format!("catching up {}", arguments.catch_up),
        &format!("{} on disk", short(Some(accepted))),
        &format!(
            "{:.1} s CPU until then, {} until all were in the channel, {} MB at most",
            seconds(usage.cpu),
            short(Some(all)),
            scene.bridge.usage()?.peak_kib / 1024
        ),
    ]);
    scene.settle(Duration::from_mins(1)).await
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(f64::EPSILON)
}
