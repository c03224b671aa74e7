//! Homeservers whose behaviour the specification leaves open, or that have bugs, without bad intent.

use std::time::{Duration, Instant};

use axum::http::Method;

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Fault, Matcher, Rewrite, Rule};

/// How long a homeserver was seen to take for the first sync after a start (Tuwunel).
const FIRST_SYNC: Duration = Duration::from_secs(5);
/// How late a homeserver was seen to answer a long poll (Palpo).
const LATE: Duration = Duration::from_secs(2);

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F49",
            title: "history omits the newest event of a sync",
            help: "Positions that a sync names are exclusive, as on homeservers of the conduwuit family, and every \
                   sync with more than two events is limited; the bridge is stopped in between.",
            run: |context| Box::pin(exclusive(context)),
        },
        Row {
            id: "F50",
            title: "sync responses are late",
            help: "The first sync after a start takes 5 s, as on Tuwunel, and every later one is answered 2 s late, \
                   as on Palpo. That is no outage: the bridge stays ready and logs no warning.",
            run: |context| Box::pin(late(context)),
        },
    ]
}

async fn exclusive(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    let homeserver = rig.homeserver()?;
    homeserver.set_rewrite(Rewrite::exclusive_positions());
    homeserver.limit_timeline(Some(2));
    let rounds = context.pick(2, 6, 30);
    for _ in 0..rounds {
        rig.scene.bridge.terminate().await?;
        for _ in 0..context.pick(5, 20, 20) {
            rig.traffic.say_in_room(&rig.scene, 0).await?;
        }
        rig.traffic.say_in_channel(&rig.scene, 0);
        rig.launch()?;
        rig.scene.bridge.wait_ready().await?;
    }
    let mut outcome = rig.finish("F49").await?;
    outcome.injections = rounds;
    Ok(outcome)
}

async fn late(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    let homeserver = rig.homeserver()?;
    let logged_before = rig.scene.bridge.logs().len();
    let mut looks = 0;
    let mut unready = 0;
    for _ in 0..context.pick(1, 2, 5) {
        rig.scene.bridge.terminate().await?;
        homeserver.clear();
        let by = |time| Fault::DelayReply(time, time);
        homeserver.add(Rule::times("first sync", syncs(), by(FIRST_SYNC), 1));
        homeserver.add(Rule::always("late sync", syncs(), by(LATE)));
        rig.launch()?;
        rig.scene.bridge.wait_ready().await?;
        // Longer than a sync may be old at the largest size.
        let until = Instant::now() + Duration::from_secs(context.pick(15, 30, 100));
        let looking = async {
            while Instant::now() < until {
                looks += 1;
                unready += u32::from(!rig.scene.bridge.is_ready().await?);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(())
        };
        rig.while_talking(1.0, looking).await?;
    }
    let mut outcome = rig.finish("F50").await?;
    if unready > 0 {
        outcome.object(&format!("not ready in {unready} of {looks} checks"));
    }
    let logs = rig.scene.bridge.logs();
    let mut logs = logs.get(logged_before..).unwrap_or_default().lines();
    if let Some(line) = logs.find(|line| line.contains(" WARN ") || line.contains(" ERROR ")) {
        outcome.object(&format!("a warning in the log: {line}"));
    }
    Ok(outcome)
}

fn syncs() -> Matcher {
    Matcher::of(Method::GET).with("/sync")
}
