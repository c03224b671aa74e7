//! Kills: at random under traffic, and at every crash point of the program.

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

/// Messages a second each way while processes die. Each process lives so briefly that it relays only a few messages,
/// and a debug build decrypts them slowly.
const RATE: f64 = 2.0;
/// How long the pending messages may take to arrive afterwards.
const TIMEOUT: Duration = Duration::from_mins(10);
/// The signal by which `footbridge_core::crash_points` aborts the process.
const SIGABRT: i32 = 6;
/// A homeserver may limit how many events of a room it sends at once: then every pause leaves a gap to fill.
const SYNC_LIMIT: u32 = 3;
/// How long a process may take to reach the crash point.
const REACH_TIMEOUT: Duration = Duration::from_secs(12);
/// The same where it must first give up a room key.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(45);

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F01",
            title: "SIGKILL at any moment",
            help: "Kills the bridge after 50 to 1,500 ms of each life, many times, under traffic both ways; half of \
                   the time with a homeserver that sends few events at once.",
            run: |context| Box::pin(random(context)),
        },
        Row {
            id: "F02",
            title: "abort at every crash point",
            help: "Aborts at each point of footbridge_core::crash_points::POINTS in turn, at its first to third \
                   passage, under traffic both ways, with room keys that come late or never, gaps to fill, refused \
                   messages and commands. The remark counts the aborts at each point.",
            run: |context| Box::pin(points(context)),
        },
    ]
}

fn plan() -> ScenarioOptions {
    ScenarioOptions {
        // Otherwise a message whose key comes late would be overtaken after this time: messages must not be reordered
        // here.
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
    let side = SideTraffic::begin(&rig, context.synapse).await?;
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
                    if die_at(&rig, &side, context.synapse, (point, passage)).await? {
                        *deaths.entry(point).or_default() += 1;
                    } else {
                        missed += 1;
                    }
                }
            }
            context.tell(&format!("{round} aborts at each point"));
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
    side.end(&rig).await?;
    let mut outcome = rig.finish_within("F02", TIMEOUT).await?;
    outcome.injections = deaths.values().copied().map(u64::from).sum();
    side.judge(&rig, &mut outcome).await?;
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

/// Starts the bridge so that it aborts at this crash point, at this passage if a life passes it several times, with the
/// traffic that leads to it; returns whether it did. If it did not, the next call kills it, which is a kill like any
/// other.
async fn die_at(
    rig: &FaultScenario,
    side: &SideTraffic,
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
        // Passed when a device writes to the bridge's device for the first time.
        "keys.received" => rig.traffic.say_as_new_member(&rig.scene, synapse).await?,
        "fill.before" => {
            homeserver.set_to_device(ToDevice::Hold);
            rig.traffic.forget_keys(&rig.scene).await?;
        }
        // Only a rate limited account sends several waiting messages in one event.
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
        "delivery.parked" => side.say_refused(rig).await?,
        "command.received" | "command.done" => side.ask(rig).await?,
        "undecryptable.notified" => side.say_unreadable().await?,
        "undecryptable.failed" => {
            side.say_unreadable().await?;
            reach = GIVE_UP_TIMEOUT;
        }
        // While the bridge is stopped, more messages are sent than one sync response contains.
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
        // The message arrives before its room key.
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

/// Whether the traffic of this row makes a running bridge pass the point. The other points belong to F29, to `device
/// reset`, and to commands that change portals, which `tests/bridge/control/kills.rs` tests.
fn is_reached(point: &str) -> bool {
    let others = [
        "session.", "device.", "request.", "portal.", "consent.", "person.", "room.",
    ];
    !others.iter().any(|start| point.starts_with(start))
}

/// Whether ordinary traffic passes the point several times in one life.
fn ordinary(point: &str) -> bool {
    ["sync.", "accept.", "plan.", "perform.", "step."]
        .iter()
        .any(|start| point.starts_with(start))
}
