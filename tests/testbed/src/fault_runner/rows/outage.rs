//! Outages: the bridge, the homeserver, the silo, or all of them are unavailable for a while.

use std::time::{Duration, Instant};

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Cut, Fault, Matcher, Rule};
use crate::scenario::{ObservedEvent, until};
use crate::synapse::{Limits, Synapse};

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F10",
            title: "the bridge is stopped while users write in the room",
            help: "More messages are sent in the room than one sync response contains; all of them arrive in order \
                   when the bridge is back.",
            run: |context| Box::pin(away_from_room(context)),
        },
        Row {
            id: "F11",
            title: "the bridge is stopped while users write in the channel",
            help: "New messages, thread replies, edits and deletions in the channel; all of them are relayed when the \
                   bridge is back.",
            run: |context| Box::pin(away_from_channel(context)),
        },
        Row {
            id: "F19",
            title: "the homeserver freezes",
            help: "SIGSTOP while users write in the channel, then SIGCONT; the remark gives the growth of the \
                   bridge's memory and the time until everything had arrived.",
            run: |context| Box::pin(frozen(context)),
        },
        Row {
            id: "F20",
            title: "both sides are unreachable",
            help: "Every request is dropped for a while, under traffic both ways; the remark gives the number of \
                   requests that the bridge made.",
            run: |context| Box::pin(both(context)),
        },
        Row {
            id: "F26",
            title: "the clock is wrong",
            help: "Starts with a clock that is an hour slow, a day fast, in 1970 and right again, each time with \
                   pending messages; the remark gives the longest time that a start took to deliver them, and the CPU \
                   time of an idle minute.",
            run: |context| Box::pin(wrong_clock(context)),
        },
        Row {
            id: "F32",
            title: "SIGTERM under load",
            help: "Sends SIGTERM to the bridge several times; each time it must end with code 0 within 15 s.",
            run: |context| Box::pin(terminated(context)),
        },
    ]
}

async fn away_from_room(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    rig.scene.bridge.terminate().await?;
    for _ in 0..context.pick(20, 120, 500) {
        rig.traffic.say_in_room(&rig.scene, 0).await?;
    }
    rig.traffic.say_in_channel(&rig.scene, 0);
    rig.launch()?;
    rig.scene.bridge.wait_ready().await?;
    let mut outcome = rig.finish("F10").await?;
    outcome.injections = 1;
    Ok(outcome)
}

async fn away_from_channel(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    let (sim, channel, mary) = (&rig.scene.sim, &rig.scene.stage.channel, &rig.scene.mary);
    let early: Vec<_> = (0..6)
        .map(|number| sim.say(&channel.id, &mary.id, &format!("early words {number}")))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.scene.bridge.settle(Duration::from_mins(1)).await?;
    rig.scene.bridge.terminate().await?;
    let mut parent = String::new();
    for turn in 0..context.pick(20, 120, 500) {
        if turn % 10 == 5 {
            rig.traffic.say_in_thread(&rig.scene, &parent);
            continue;
        }
        rig.traffic.say_in_channel(&rig.scene, 0);
        let newest = sim.messages(&channel.id).pop();
        parent = newest.map(|message| message.id).unwrap_or_default();
    }
    for (number, message) in early.iter().enumerate() {
        let done = if number % 2 == 0 {
            sim.edit(&channel.id, &message.id, &format!("later words {number}"))
                .map(drop)
        } else {
            sim.delete(&channel.id, &message.id)
        };
        done.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    }
    rig.launch()?;
    rig.scene.bridge.wait_ready().await?;
    let room = &rig.scene.stage.room;
    let by_bridge = |event: &ObservedEvent| event.seen.sender == rig.scene.bridge_user;
    let edits = || {
        let edits = rig.scene.room_observer.pick(room, |event| {
            let body = event.seen.content.get("body")?.as_str()?;
            let later = event.edits().is_some() && body.contains("later words");
            (later && by_bridge(event)).then_some(())
        });
        edits.len()
    };
    let removed = || {
        let removed = rig.scene.room_observer.pick(room, |event| {
            let removal = event.seen.event_type == "m.room.redaction";
            (removal && by_bridge(event)).then_some(())
        });
        removed.len()
    };
    // The audit finds what a listing omitted, as soon as the listing can no longer be stale.
    until(Duration::from_mins(1), || edits() == 3 && removed() == 3)
        .await
        .ok();
    let mut outcome = rig.finish("F11").await?;
    outcome.injections = 1;
    let (edits, removed) = (edits(), removed());
    outcome.note(&format!(
        "{edits} of 3 edits and {removed} of 3 deletions relayed"
    ));
    if edits != 3 || removed != 3 {
        outcome.object("not every edit and deletion was relayed exactly once");
    }
    Ok(outcome)
}

async fn frozen(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let synapse = Synapse::start(Limits::Relaxed).await?;
    let rig = FaultScenario::open_on(context, &synapse, ScenarioOptions::default()).await?;
    let before = rig.scene.bridge.usage()?.resident_kib;
    synapse.freeze()?;
    let length = Duration::from_secs(context.pick(5, 30, 300));
    let pause = length / context.pick(20, 60, 300);
    for _ in 0..context.pick(20, 60, 300) {
        rig.traffic.say_in_channel(&rig.scene, 0);
        tokio::time::sleep(pause).await;
    }
    let grown = rig
        .scene
        .bridge
        .usage()?
        .resident_kib
        .saturating_sub(before);
    synapse.thaw()?;
    let thawed = Instant::now();
    rig.arrive(Duration::from_mins(3)).await;
    let recovery = thawed.elapsed();
    rig.talk(5, 5.0).await?;
    let mut outcome = rig.finish("F19").await?;
    outcome.injections = 1;
    outcome.remark = format!(
        "{} s; memory +{:.1} MiB; everything arrived {:.1} s after SIGCONT",
        length.as_secs(),
        f64::from(u32::try_from(grown).unwrap_or(u32::MAX)) / 1024.0,
        recovery.as_secs_f64()
    );
    if recovery > Duration::from_mins(1) || grown > 20 * 1024 {
        outcome.object("more than 60 s or 20 MiB");
    }
    Ok(outcome)
}

async fn both(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            portals: 3,
            ..ScenarioOptions::default()
        },
    )
    .await?;
    for proxy in rig.everywhere()? {
        proxy.add(Rule::always(
            "away",
            Matcher::all(),
            Fault::DropRequest(Cut::Close),
        ));
        proxy.cut_all(Cut::Reset);
    }
    let began = Instant::now();
    rig.talk(context.pick(10, 40, 200), 4.0).await?;
    let length = Duration::from_secs(context.pick(15, 60, 900));
    tokio::time::sleep(length.saturating_sub(began.elapsed())).await;
    let asked = |since: Instant| -> anyhow::Result<usize> {
        let everywhere = rig.everywhere()?;
        Ok(everywhere
            .iter()
            .map(|proxy| proxy.recorded_requests(since, &Matcher::all()).len())
            .sum())
    };
    let (all, last) = (asked(began)?, asked(began + length * 3 / 4)?);
    let mut outcome = rig.finish_within("F20", Duration::from_mins(8)).await?;
    outcome.remark = format!(
        "{all} requests in {} s, {last} of them in the last quarter",
        length.as_secs()
    );
    Ok(outcome)
}

async fn wrong_clock(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    let year_1970 = -100 * 366 * 86_400;
    let (mut slowest, mut busiest) = (Duration::ZERO, Duration::ZERO);
    for offset in [-3_600, 86_400, year_1970, 0] {
        rig.scene.bridge.kill().await?;
        for _ in 0..context.pick(5, 10, 50) {
            rig.traffic.say_in_room(&rig.scene, 0).await?;
            rig.traffic.say_in_channel(&rig.scene, 0);
        }
        let began = Instant::now();
        rig.count_restart();
        rig.scene.bridge.launch_at(offset)?;
        rig.arrive(Duration::from_mins(6)).await;
        slowest = slowest.max(began.elapsed());
        rig.talk(context.pick(5, 10, 50), 5.0).await?;
        rig.arrive(Duration::from_mins(1)).await;
        let before = rig.scene.bridge.usage()?.cpu;
        tokio::time::sleep(Duration::from_secs(context.pick(2, 10, 60))).await;
        busiest = busiest.max(rig.scene.bridge.usage()?.cpu.saturating_sub(before));
    }
    let mut outcome = rig.finish("F26").await?;
    outcome.injections = 4;
    outcome.remark = format!(
        "slowest start {:.1} s, {} ms of CPU while idle",
        slowest.as_secs_f64(),
        busiest.as_millis()
    );
    if slowest > Duration::from_mins(5) || busiest > Duration::from_secs(1) {
        outcome.object("a lane stalled, or the idle bridge uses CPU");
    }
    Ok(outcome)
}

async fn terminated(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    let mut slowest = Duration::ZERO;
    let mut codes = Vec::new();
    rig.while_talking(5.0, async {
        for _ in 0..context.pick(3, 10, 200) {
            // Before that the process cannot decide how it ends.
            rig.scene.bridge.wait_ready().await?;
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..1500))).await;
            let asked = Instant::now();
            let status = rig.scene.bridge.terminate().await?;
            slowest = slowest.max(asked.elapsed());
            codes.push(status.code().unwrap_or(-1));
            rig.launch()?;
        }
        Ok(())
    })
    .await?;
    rig.scene.bridge.wait_ready().await?;
    let mut outcome = rig.finish("F32").await?;
    outcome.injections = u64::from(outcome.restarts);
    outcome.remark = format!("slowest end {:.1} s", slowest.as_secs_f64());
    if codes.iter().any(|code| *code != 0) || slowest > Duration::from_secs(15) {
        outcome.object(&format!("exit codes {codes:?}"));
    }
    Ok(outcome)
}
