//! Room keys that arrive late or never, and a room that becomes encrypted.

use std::time::Duration;

use tokio::time::Instant;

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::ToDevice;
use crate::scenario::until;

/// How long a message that is relayed late may take.
const TIMEOUT: Duration = Duration::from_mins(3);

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F27",
            title: "room keys come late",
            help: "Holds back to-device messages while Ann sends messages with new room keys; the channel's messages \
                   are relayed meanwhile, and hers arrive, once and marked, when the keys do.",
            run: |context| Box::pin(late(context)),
        },
        Row {
            id: "F28",
            title: "room keys never come",
            help: "Drops them; the channel gets a notice, and at the limit each message ends as failed.",
            run: |context| Box::pin(never(context)),
        },
        Row {
            id: "F36",
            title: "the room becomes encrypted in the middle of a burst",
            help: "An unencrypted room is encrypted under traffic both ways: the bridge sends nothing unencrypted \
                   after it could know, and all messages wait for consent.",
            run: |context| Box::pin(encrypted(context)),
        },
    ]
}

async fn late(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            matrix: "key_wait = \"1s\"",
            delivery: "notice_after = \"2s\"",
            ..ScenarioOptions::default()
        },
    )
    .await?;
    let homeserver = rig.homeserver()?;
    let mut others = Duration::ZERO;
    for _ in 0..context.pick(1, 3, 20) {
        homeserver.set_to_device(ToDevice::Hold);
        rig.traffic.forget_keys(&rig.scene).await?;
        for _ in 0..3 {
            rig.traffic.say_in_room(&rig.scene, 0).await?;
        }
        let held = Duration::from_secs(context.pick(3, 5, 30));
        let asked = std::time::Instant::now();
        rig.traffic.say_in_channel(&rig.scene, 0);
        while !rig.traffic.toward_rooms(&rig.scene).lost.is_empty() && asked.elapsed() < held {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        others = others.max(asked.elapsed());
        tokio::time::sleep(held.saturating_sub(asked.elapsed())).await;
        homeserver.set_to_device(ToDevice::Pass);
        // Some event has to arrive, because keys come with the same sync response.
        rig.traffic.say_in_channel(&rig.scene, 0);
        rig.arrive(Duration::from_mins(1)).await;
    }
    let mut outcome = rig.finish("F27").await?;
    outcome.injections = homeserver.to_device_taken();
    // A late message is out of order; that is limit 3 of the guarantee.
    let displaced = std::mem::take(&mut outcome.verdict.misplaced).len();
    outcome.remark = format!(
        "{displaced} late and out of order; the other direction took at most {} ms",
        others.as_millis()
    );
    if others > Duration::from_secs(5) {
        outcome.object("other messages were delayed");
    }
    Ok(outcome)
}

async fn never(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(
        context,
        ScenarioOptions {
            matrix: "key_wait = \"1s\"",
            delivery: "notice_after = \"2s\"\nkey_limit = \"8s\"",
            ..ScenarioOptions::default()
        },
    )
    .await?;
    let homeserver = rig.homeserver()?;
    homeserver.set_to_device(ToDevice::Drop);
    rig.traffic.forget_keys(&rig.scene).await?;
    let notices = rig.scene.in_channel().len();
    for _ in 0..context.pick(3, 6, 30) {
        rig.traffic.say_in_room(&rig.scene, 0).await?;
    }
    let has_notice = || rig.scene.in_channel().len() > notices;
    let notified = until(Duration::from_mins(1), has_notice).await.is_ok();
    tokio::time::sleep(Duration::from_secs(10)).await;
    homeserver.set_to_device(ToDevice::Pass);
    rig.traffic.forget_keys(&rig.scene).await?;
    rig.talk(5, 5.0).await?;
    let mut outcome = rig.finish_within("F28", Duration::from_secs(40)).await?;
    outcome.injections = homeserver.to_device_taken();
    rig.expect_failures(&mut outcome).await?;
    if notified {
        outcome.note("the channel got a notice");
    } else {
        outcome.object("the channel got no notice");
    }
    Ok(outcome)
}

async fn encrypted(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let (mut plain, mut late) = (0, 0);
    for _ in 0..context.pick(1, 2, 10) {
        let rig = FaultScenario::open(
            context,
            ScenarioOptions {
                encrypted: false,
                ..ScenarioOptions::default()
            },
        )
        .await?;
        let room = &rig.scene.stage.room;
        rig.while_talking(8.0, async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            rig.scene.ann.enable_encryption(room).await?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            // Nothing has been relayed since; that needs consent.
            let to = format!("!bridge consent gitter {}", rig.scene.stage.channel.uri);
            rig.scene.ann.say(room, &to).await?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(())
        })
        .await?;
        // Ann's own client may send unencrypted events for a moment after the change: they are not relayed.
        let deadline = Instant::now() + TIMEOUT;
        let skipped = loop {
            let metrics = rig.scene.bridge.metrics().await?;
            let rule = "plaintext-in-encrypted-room";
            let skipped = metrics.sum_where("footbridge_skipped_total", "rule", rule);
            let missing: u64 = rig.traffic.missing(&rig.scene).try_into()?;
            if missing == skipped || Instant::now() > deadline {
                break skipped;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let mut run = rig.finish_within("F36", Duration::ZERO).await?;
        if u64::try_from(run.verdict.lost.len())? == skipped {
            run.verdict.lost.clear();
            late += skipped;
        }
        let events = context.synapse.events(room).await?;
        let after = events
            .iter()
            .skip_while(|event| event.event_type != "m.room.encryption")
            .filter(|event| {
                event.sender == rig.scene.bridge_user && event.event_type == "m.room.message"
            });
        plain += after.count();
        outcome.fault = run.fault;
        outcome.injections += 1;
        outcome.verdict.join(run.verdict);
        outcome.took += run.took;
        outcome.objections.extend(run.objections);
    }
    // Events that were being sent when the room was encrypted may come after that: the server orders them, not the
    // bridge.
    outcome.remark = format!(
        "{plain} of the bridge unencrypted after the room was encrypted, {late} of Ann's not relayed"
    );
    if plain > usize::try_from(outcome.injections)? {
        outcome.object("more unencrypted events than were being sent");
    }
    Ok(outcome)
}
