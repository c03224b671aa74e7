//! Kills: at random under traffic, and at every named point of the program.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use footbridge_core::crash_points::POINTS;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::super::side_traffic::{self, SideTraffic};
use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Fault, Matcher, Page, Rule, ToDevice};
use crate::scenario::until;
use crate::synapse::Synapse;

/// Messages a second each way while processes die. They live for so short a time that few get through, and a debug
/// build opens them slowly.
const RATE: f64 = 2.0;
/// How long what has piled up may take to arrive afterwards.
const TIMEOUT: Duration = Duration::from_mins(10);
/// The signal by which `footbridge_core::crash_points` ends the process.
const SIGABRT: i32 = 6;
/// A homeserver may bring as few events of a room at once as it likes: then every pause is a gap to be filled.
const SYNC_LIMIT: u32 = 3;
/// How long a process gets to reach the point at which it is to die.
const REACH_TIMEOUT: Duration = Duration::from_secs(12);
/// The same where it must first give up a key.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(45);

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F01",
            title: "SIGKILL at any moment",
            help: "Kills the bridge after 50 to 1,500 ms of each life, again and again, while both sides talk; half of the \
                   time with a homeserver that brings few events at once.",
            run: |context| Box::pin(random(context)),
        },
        Row {
            id: "F02",
            title: "death at every named point",
            help: "Dies at each point of footbridge_core::crash_points::POINTS in turn, at its first to third passage, while both sides \
                   talk, room keys come late or never, gaps have to be filled, messages are refused and questions asked. \
                   The remark counts the deaths at each point.",
            run: |context| Box::pin(points(context)),
        },
    ]
}

fn plan() -> ScenarioOptions {
    ScenarioOptions {
        // A message whose key comes late would pass on, marked, after this: here nothing may change places.
        matrix: "key_wait = \"5m\"",
        log_filter: "warn",
        ..ScenarioOptions::default()
    }
}

async fn random(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, plan()).await?;
    let kills = context.pick(8, 40, 750);
    let mut dice = StdRng::seed_from_u64(context.seed);
    rig.while_talking(RATE, async {
        for kill in 1..=kills {
            let few = dice.random_bool(0.5).then_some(SYNC_LIMIT);
            rig.homeserver()?.limit_timeline(few);
            tokio::time::sleep(Duration::from_millis(dice.random_range(50..=1500))).await;
            if let Some(status) = rig.scene.bridge.ended()? {
                anyhow::bail!(
                    "before kill {kill} the bridge ended by itself, {status}\n{}",
                    rig.scene.bridge.logs_end()
                );
            }
            rig.kill().await?;
            if kill % 50 == 0 {
                context.tell(&format!("{kill} kills"));
            }
        }
        Ok(())
    })
    .await?;
    rig.scene.bridge.wait_ready().await?;
    let mut outcome = rig.finish_within("F01", TIMEOUT).await?;
    outcome.injections = u64::from(outcome.restarts);
    Ok(outcome)
}

async fn points(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let plan = ScenarioOptions {
        spare: side_traffic::SPARE,
        delivery: "notice_after = \"1s\"\nkey_limit = \"20s\"\nattempts = 1",
        ..plan()
    };
    let rig = FaultScenario::open(context, plan).await?;
    let nuisance = SideTraffic::begin(&rig, context.synapse).await?;
    let each = context.pick(1, 2, 26);
    let mut dice = StdRng::seed_from_u64(context.seed);
    let reached = POINTS.iter().filter(|point| is_reached(point));
    let mut deaths: BTreeMap<&str, u32> = reached.map(|point| (*point, 0)).collect();
    let mut missed = 0;
    rig.while_talking(RATE, async {
        for round in 1..=each {
            let mut order: Vec<&str> = deaths.keys().copied().collect();
            order.shuffle(&mut dice);
            for point in order {
                let mut tries = 6;
                while tries > 0 && deaths.get(point).is_some_and(|count| *count < round) {
                    tries -= 1;
                    let passage = dice.random_range(1..=3);
                    if die_at(&rig, &nuisance, context.synapse, (point, passage)).await? {
                        *deaths.entry(point).or_default() += 1;
                    } else {
                        missed += 1;
                    }
                }
            }
            context.tell(&format!("{round} deaths at each point"));
        }
        Ok(())
    })
    .await?;
    rig.homeserver()?.limit_timeline(None);
    if rig.scene.bridge.pid().is_some() {
        rig.scene.bridge.kill().await?;
    }
    rig.launch()?;
    rig.scene.bridge.wait_ready().await?;
    nuisance.end(&rig).await?;
    let mut outcome = rig.finish_within("F02", TIMEOUT).await?;
    outcome.injections = deaths.values().copied().map(u64::from).sum();
    nuisance.judge(&rig, &mut outcome).await?;
    let counts: Vec<String> = deaths
        .iter()
        .map(|(point, count)| format!("{point} {count}"))
        .collect();
    outcome.note(&format!(
        "{}; {missed} lives ended elsewhere",
        counts.join(", ")
    ));
    for (point, count) in &deaths {
        if *count < each {
            outcome.object(&format!("{point} was hit {count} times"));
        }
    }
    Ok(outcome)
}

/// Starts the bridge so that it dies at this point, at this passage where there are several in a life, under the traffic
/// that passes there; says whether it did. What is left of it is killed: that is a kill like any other.
async fn die_at(
    rig: &FaultScenario,
    nuisance: &SideTraffic,
    synapse: &Synapse,
    (point, passage): (&str, u32),
) -> anyhow::Result<bool> {
    let homeserver = rig.homeserver()?;
    homeserver.limit_timeline(gap_point(point).then_some(SYNC_LIMIT));
    if rig.scene.bridge.pid().is_some() {
        rig.scene.bridge.kill().await?;
    }
    let passage = if ordinary(point) { passage } else { 1 };
    let mut reach = REACH_TIMEOUT;
    match point {
        // Passed when a device writes to the bridge's for the first time.
        "keys.received" => rig.traffic.say_as_new_member(&rig.scene, synapse).await?,
        "fill.before" => {
            homeserver.set_to_device(ToDevice::Hold);
            rig.traffic.forget_keys(&rig.scene).await?;
        }
        // Only a limited account sends several messages in one event, once they wait.
        "bundle.saved" => {
            let fault = Fault::Status {
                status: 429,
                page: Page::Matrix,
                headers: Vec::new(),
                retry_after_ms: Some(1_500),
                after_work: false,
            };
            homeserver.add(Rule::times("limited", Matcher::sends(), fault, 1));
        }
        "delivery.parked" => nuisance.say_refused(rig).await?,
        "command.received" | "command.done" => nuisance.ask(rig).await?,
        "undecryptable.notified" => nuisance.say_unreadable().await?,
        "undecryptable.failed" => {
            nuisance.say_unreadable().await?;
            reach = GIVE_UP_TIMEOUT;
        }
        // While nobody listens more is said than one sync brings.
        _ if gap_point(point) => {
            for _ in 0..SYNC_LIMIT * 2 {
                rig.traffic.say_in_room(&rig.scene, 0).await?;
            }
        }
        _ => {}
    }
    let held = homeserver.to_device_taken();
    rig.launch_armed(&format!("{point}:{passage}"))?;
    if point == "fill.before" {
        // The message is there before its key.
        until(REACH_TIMEOUT, || homeserver.to_device_taken() > held)
            .await
            .ok();
        tokio::time::sleep(Duration::from_millis(300)).await;
        homeserver.set_to_device(ToDevice::Pass);
    }
    if let Some(status) = rig.death(reach).await? {
        anyhow::ensure!(
            status.signal() == Some(SIGABRT),
            "at {point} the bridge ended by itself, {status}\n{}",
            rig.scene.bridge.logs_end()
        );
        return Ok(true);
    }
    Ok(false)
}

fn gap_point(point: &str) -> bool {
    point.starts_with("gap.")
}

/// Whether a running bridge passes it by what the row does: the others are of F29, of `device reset`, and of commands that
/// change portals, which `tests/bridge/control/kills.rs` dies at.
fn is_reached(point: &str) -> bool {
    let others = [
        "session.", "device.", "request.", "portal.", "consent.", "person.", "room.",
    ];
    !others.iter().any(|start| point.starts_with(start))
}

/// Whether plain traffic passes it again and again in one life.
fn ordinary(point: &str) -> bool {
    ["sync.", "accept.", "plan.", "perform.", "step."]
        .iter()
        .any(|start| point.starts_with(start))
}
