//! Closed places, and messages that the other side refuses.

use std::time::Duration;

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Fault, Matcher, Page, Rule};

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F30",
            title: "the bridge is banned from the channel for a while",
            help: "Banned with pending messages, then unbanned: no pending message is lost, and the bridge does not \
                   retry too often.",
            run: |context| Box::pin(banned(context)),
        },
        Row {
            id: "F31",
            title: "poison messages",
            help: "One post in twenty is refused permanently (413): each ends as failed, and does not delay the \
                   others.",
            run: |context| Box::pin(poison(context)),
        },
    ]
}

async fn banned(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    let (sim, channel, bot) = (&rig.scene.sim, &rig.scene.stage.channel, &rig.scene.bot);
    let refused = |refusal| anyhow::anyhow!("{refusal}");
    sim.ban(&channel.id, &bot.id).map_err(refused)?;
    let began = std::time::Instant::now();
    for _ in 0..context.pick(5, 20, 100) {
        rig.traffic.say_in_room(&rig.scene, 0).await?;
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    let tries = rig.api()?.recorded_requests(began, &Matcher::posts()).len();
    sim.unban(&channel.id, &bot.id).map_err(refused)?;
    sim.join(&channel.id, &bot.id).map_err(refused)?;
    rig.traffic.say_in_channel(&rig.scene, 0);
    let mut outcome = rig.finish("F30").await?;
    outcome.injections = 1;
    outcome.remark = format!("{tries} attempts to post within 20 s");
    if tries > 10 {
        outcome.object("too many attempts");
    }
    Ok(outcome)
}

async fn poison(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            portals: 2,
            delivery: "attempts = 2",
            ..ScenarioOptions::default()
        },
    )
    .await?;
    let poison = Fault::status(413, Page::Empty);
    let chance = context.pick(0.2, 0.1, 0.05);
    rig.api()?
        .add(Rule::sometimes("413", Matcher::posts(), poison, chance));
    rig.talk(context.pick(30, 80, 400), 8.0).await?;
    // Poison messages never arrive: the row waits only for the others.
    rig.arrive(Duration::from_secs(10)).await;
    let mut outcome = rig.finish_within("F31", Duration::from_secs(5)).await?;
    rig.expect_failures(&mut outcome).await?;
    Ok(outcome)
}
