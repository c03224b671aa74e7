//! Hours of ordinary traffic with mild faults: messages both ways at an even pace; now and then a response or a request
//! is lost, refused or late, a feed breaks, the bridge is killed. It checks what accumulates: messages, memory,
//! descriptors, files.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Context, FaultScenario, Outcome, ScenarioOptions};
use crate::proxy::{Cut, Fault, Matcher, Page, Rule};
use crate::report::short;

/// How often memory and files are measured.
const SAMPLE: Duration = Duration::from_secs(10);
/// A process that has just started fills its caches: that is no leak.
const WARM_UP: f64 = 90.0;

/// The length of the run and the rate of its faults.
pub struct Soak {
    /// How long messages are sent.
    pub length: Duration,
    /// Messages a second in each direction.
    pub rate: f64,
    /// The average time between two kills of the bridge.
    pub kill_every: Duration,
    /// How often a line is printed.
    pub report_every: Duration,
}

/// One measurement of the process.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Seconds since the start.
    at: f64,
    /// The number of the process.
    life: u32,
    /// Seconds since that process started.
    age: f64,
    /// Resident memory.
    mib: f64,
    /// The part of it that was allocated: the rest are pages of the program, which are loaded when needed.
    allocated: f64,
    files: usize,
    logs: u64,
}

/// Runs the soak; `line` is called with each line of its report.
pub async fn run(
    context: &Context<'_>,
    soak: &Soak,
    line: &dyn Fn(&str),
) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            portals: 2,
            settle: "2s",
            log_filter: "warn",
            ..ScenarioOptions::default()
        },
    )
    .await?;
    mild_faults(&rig)?;
    let mut samples = Vec::new();
    rig.while_talking(
        soak.rate,
        live(&rig, soak, context.seed, &mut samples, line),
    )
    .await?;
    let mut outcome = rig.finish_within("F45", Duration::from_mins(5)).await?;
    outcome.remark = summary(&samples);
    ensure!(!samples.is_empty(), "the process was never measured");
    Ok(outcome)
}

fn mild_faults(rig: &FaultScenario) -> anyhow::Result<()> {
    for proxy in [rig.homeserver()?, rig.api()?] {
        let sometimes = |name, fault, chance| {
            proxy.add(Rule::sometimes(name, Matcher::all(), fault, chance));
        };
        sometimes("reply lost", Fault::DropReply(Cut::Reset), 0.01);
        sometimes("request lost", Fault::DropRequest(Cut::Close), 0.01);
        sometimes("502", Fault::status(502, Page::Html), 0.005);
        sometimes("503", Fault::status(503, Page::Empty), 0.005);
        let (soon, later) = (Duration::ZERO, Duration::from_secs(2));
        sometimes("late", Fault::DelayReply(soon, later), 0.04);
    }
    Ok(())
}

/// Runs beside the traffic: measurements, cuts, kills, reports.
async fn live(
    rig: &FaultScenario,
    soak: &Soak,
    seed: u64,
    samples: &mut Vec<Sample>,
    line: &dyn Fn(&str),
) -> anyhow::Result<()> {
    let mut dice = StdRng::seed_from_u64(seed);
    let began = Instant::now();
    let (mut born, mut life) = (began, 0);
    let mut next_report = soak.report_every;
    let mut next_kill = soak.kill_every;
    let mut clock = tokio::time::interval(SAMPLE.min(soak.length / 4));
    clock.tick().await;
    while began.elapsed() < soak.length {
        clock.tick().await;
        if let Some(status) = rig.scene.bridge.ended()? {
            anyhow::bail!(
                "the bridge ended by itself, {status}\n{}",
                rig.scene.bridge.logs_end()
            );
        }
        let usage = rig.scene.bridge.usage()?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "memory in MiB is no large number"
        )]
        samples.push(Sample {
            at: began.elapsed().as_secs_f64(),
            life,
            age: born.elapsed().as_secs_f64(),
            mib: usage.resident_kib as f64 / 1024.0,
            allocated: usage.anonymous_kib as f64 / 1024.0,
            files: usage.files,
            logs: write_ahead_logs(&rig.scene.bridge.data_directory()),
        });
        if dice.random_bool(0.1) {
            for feed in rig.feeds()? {
                feed.cut_all(Cut::Reset);
            }
        }
        if began.elapsed() >= next_kill && began.elapsed() + soak.kill_every / 4 < soak.length {
            next_kill += soak.kill_every.mul_f64(dice.random_range(0.7..1.3));
            rig.kill().await?;
            rig.scene.bridge.wait_ready().await?;
            (born, life) = (Instant::now(), life + 1);
        }
        if began.elapsed() >= next_report {
            next_report += soak.report_every;
            line(&report(rig, began.elapsed(), life, samples)?);
        }
    }
    Ok(())
}

fn report(
    rig: &FaultScenario,
    since: Duration,
    kills: u32,
    samples: &[Sample],
) -> anyhow::Result<String> {
    let mut verdict = rig.traffic.toward_channels(&rig.scene);
    verdict.join(rig.traffic.toward_rooms(&rig.scene));
    Ok(format!(
        "  {:>4.0} min  {} messages, {} pending, {} doubled, {} reordered, p50 {}, longest {}; {} faults, {kills} kills; {}",
        since.as_secs_f64() / 60.0,
        verdict.messages,
        verdict.lost.len(),
        verdict.doubled.len() + verdict.unknown.len(),
        verdict.misplaced.len(),
        short(verdict.percentile(50)),
        short(verdict.longest()),
        rig.fault_count()?,
        summary(samples),
    ))
}

fn summary(samples: &[Sample]) -> String {
    let Some(last) = samples.last() else {
        return String::new();
    };
    let most = samples.iter().map(|sample| sample.mib).fold(0.0, f64::max);
    let files = samples.iter().map(|sample| sample.files).max();
    let logs = samples.iter().map(|sample| sample.logs).max();
    let slope = slope(samples).map_or_else(|| "-".to_owned(), |slope| format!("{slope:+.2}"));
    #[expect(clippy::cast_precision_loss, reason = "files of some megabytes")]
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    format!(
        "{:.1} MiB ({most:.1} at most), {:.1} allocated ({slope} MiB/h), {} open files ({} at most), WAL {:.1} MB ({:.1} at most)",
        last.mib,
        last.allocated,
        last.files,
        files.unwrap_or_default(),
        megabytes(last.logs),
        megabytes(logs.unwrap_or_default()),
    )
}

/// How fast allocated memory grows, in MiB an hour, by least squares over all processes together, each with its own
/// offset: the small size of a new process must not hide that the previous one grew.
fn slope(samples: &[Sample]) -> Option<f64> {
    let (mut products, mut squares) = (0.0, 0.0);
    let lives = samples.iter().map(|sample| sample.life).max()?;
    for life in 0..=lives {
        let warm: Vec<&Sample> = samples
            .iter()
            .filter(|sample| sample.life == life && sample.age > WARM_UP)
            .collect();
        if warm.len() < 2 {
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "some hundreds of samples")]
        let mean = |of: fn(&Sample) -> f64| {
            warm.iter().map(|sample| of(sample)).sum::<f64>() / warm.len() as f64
        };
        let (at, mib) = (mean(|sample| sample.at), mean(|sample| sample.allocated));
        for sample in warm {
            products += (sample.at - at) * (sample.allocated - mib);
            squares += (sample.at - at).powi(2);
        }
    }
    (squares > 0.0).then(|| products / squares * 3600.0)
}

/// The size of all write-ahead logs together, in bytes.
fn write_ahead_logs(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return write_ahead_logs(&path);
            }
            let is_log = path.to_string_lossy().ends_with("-wal");
            // A log may have been deleted by now: then its size is 0.
            entry
                .metadata()
                .map_or(0, |found| if is_log { found.len() } else { 0 })
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, life: u32, age: f64, mib: f64) -> Sample {
        Sample {
            at,
            life,
            age,
            mib: mib + 40.0,
            allocated: mib,
            files: 30,
            logs: 0,
        }
    }

    #[test]
    fn growth_is_seen_although_new_processes_begin_small() {
        let mut samples = Vec::new();
        for life in 0..3_u32 {
            for step in 0..60_u32 {
                let age = f64::from(step) * 10.0;
                let at = f64::from(life) * 600.0 + age;
                // 6 MiB an hour, after a growth at the start that is no leak.
                let start = if age < 60.0 { -20.0 } else { 0.0 };
                samples.push(sample(at, life, age, 40.0 + start + age / 600.0));
            }
        }
        let slope = slope(&samples).unwrap();
        assert!((slope - 6.0).abs() < 0.01, "{slope}");
    }

    #[test]
    fn steady_memory_has_no_slope_and_too_few_samples_give_none() {
        let steady: Vec<_> = (0..100)
            .map(|step| f64::from(step) * 10.0)
            .map(|at| sample(at, 0, at, 40.0))
            .collect();
        assert_eq!(slope(&steady), Some(0.0));
        assert_eq!(slope(&steady[..1]), None);
    }
}
