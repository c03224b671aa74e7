//! Homeservers that do what the specification leaves open, or get it wrong, without meaning harm.

use super::super::{Context, Outcome, Plan, Rig, Row};
use crate::proxy::Lie;

pub(super) fn rows() -> Vec<Row> {
    vec![Row {
        id: "F46",
        title: "history leaves out the newest event of a sync",
        help: "Positions that a sync names are exclusive, as on homeservers of the conduwuit family, and every sync that \
               brings more than two events leaves the rest out; the bridge is away in between.",
        run: |context| Box::pin(exclusive(context)),
    }]
}

async fn exclusive(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = Rig::open(context, Plan::default()).await?;
    let homeserver = rig.homeserver()?;
    homeserver.tell(Lie::exclusive_positions());
    homeserver.limit_timeline(Some(2));
    let rounds = context.pick(2, 6, 30);
    for _ in 0..rounds {
        rig.scene.bridge.terminate().await?;
        for _ in 0..context.pick(5, 20, 20) {
            rig.crowd.say_in_room(&rig.scene, 0).await?;
        }
        rig.crowd.say_in_channel(&rig.scene, 0);
        rig.launch()?;
        rig.scene.bridge.wait_ready().await?;
    }
    let mut outcome = rig.finish("F46").await?;
    outcome.injections = rounds;
    Ok(outcome)
}
