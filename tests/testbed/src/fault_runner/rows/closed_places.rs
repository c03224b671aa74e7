//! Places that close, and messages that the other side does not take.

use std::time::Duration;

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Fault, Matcher, Page, Rule};

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F30",
            title: "the bridge is banned from the channel for a while",
            help: "Banned with messages waiting, then let in again: nothing of the queue is gone, and there is no storm of \
                   tries.",
            run: |context| Box::pin(banned(context)),
        },
        Row {
            id: "F31",
            title: "poison messages",
            help: "One post in twenty is refused for good (413): each ends as failed, and the others are not held up.",
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
    outcome.remark = format!("{tries} tries to post within 20 s");
    if tries > 10 {
        outcome.object("a storm of tries");
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
    // What is poison stays lost: only the rest is waited for.
    rig.arrive(Duration::from_secs(10)).await;
    let mut outcome = rig.finish_within("F31", Duration::from_secs(5)).await?;
    rig.expect_failures(&mut outcome).await?;
    Ok(outcome)
}
