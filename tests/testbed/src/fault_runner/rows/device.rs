//! Faults of the device's keys: kills while they are uploaded, and one-time keys that are used up.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::http::Method;
use serde_json::{Value, json};

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Cut, Fault, Matcher, Rule};

/// A response that never comes, as far as a killed process can tell.
const NEVER_DELAY: Duration = Duration::from_mins(10);

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F39",
            title: "kills while keys are uploaded and room keys are shared",
            help: "A new account each time. The first login is killed during its first upload of keys, of the \
                   cross-signing identity or of signatures, before or after the homeserver handled it; the bridge is \
                   killed while it sends room keys to a new device. Afterwards no key is missing, and none is \
                   refused.",
            run: |context| Box::pin(uploads(context)),
        },
        Row {
            id: "F40",
            title: "one-time keys used up while the bridge is stopped",
            help: "Another client claims one-time keys of the bridge's device until only the fallback key is left. \
                   Then new members join and write: their messages can be decrypted when the bridge is back.",
            run: |context| Box::pin(used_up(context)),
        },
    ]
}

/// The requests of a first login during which it is killed.
const UPLOADS: [&str; 3] = [
    "/keys/upload",
    "/keys/device_signing/upload",
    "/keys/signatures/upload",
];

async fn uploads(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome {
        fault: "F39",
        ..Outcome::default()
    };
    for round in 0..context.pick(1, 2, 12) {
        for (number, path) in UPLOADS.into_iter().enumerate() {
            let fault = if (round + number) % 2 == 0 {
                Fault::DelayReply(NEVER_DELAY, NEVER_DELAY)
            } else {
                Fault::Delay(NEVER_DELAY, NEVER_DELAY)
            };
            let matcher = Matcher::of(Method::POST).with(path);
            let plan = ScenarioOptions {
                matrix: "key_wait = \"5m\"",
                fault_at_login: Some(Rule::times("login", matcher, fault, 1)),
                ..ScenarioOptions::default()
            };
            let rig = FaultScenario::open(context, plan).await?;
            one(context, &rig, round + number, &mut outcome)
                .await
                .with_context(|| format!("killed at {path}"))?;
            context.tell(&format!("{} deaths", outcome.injections));
        }
    }
    Ok(outcome)
}

/// The rest of one life: a new device joins, and the bridge dies while it sends it the room key.
async fn one(
    context: &Context<'_>,
    rig: &FaultScenario,
    turn: usize,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let homeserver = rig.homeserver()?;
    let gifts = Matcher::of(Method::PUT).with("/sendToDevice/m.room.encrypted");
    let fault = if turn.is_multiple_of(2) {
        Fault::DropReply(Cut::Reset)
    } else {
        Fault::DropRequest(Cut::Reset)
    };
    rig.traffic
        .say_as_new_member(&rig.scene, context.synapse)
        .await?;
    rig.arrive(Duration::from_mins(1)).await;
    let before = homeserver.fault_count();
    homeserver.add(Rule::times("gift", gifts, fault, 1));
    rig.traffic.say_in_channel(&rig.scene, 0);
    let struck = || homeserver.fault_count() > before;
    crate::scenario::until(Duration::from_secs(30), struck)
        .await
        .context("no room key was shared")?;
    rig.kill().await?;
    rig.scene.bridge.wait_ready().await?;
    rig.traffic.forget_keys(&rig.scene).await?;
    rig.talk(3, 5.0).await?;
    let run = rig.finish("F39").await?;
    let logs = rig.scene.bridge.logs();
    for sign in ["already exists", "error[B22]", "Undecryptable messages"] {
        if logs.contains(sign) {
            outcome.object(&format!("the log says: {sign}"));
        }
    }
    outcome.injections += 2;
    outcome.restarts += run.restarts;
    outcome.verdict.join(run.verdict);
    outcome.took += run.took;
    outcome.objections.extend(run.objections);
    Ok(())
}

async fn used_up(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let plan = ScenarioOptions {
        // The bridge may learn of a new device a moment after its message: messages must not be reordered here.
        matrix: "key_wait = \"5m\"",
        ..ScenarioOptions::default()
    };
    let rig = FaultScenario::open(context, plan).await?;
    let mut claims = 0_u64;
    let mut fallbacks = 0;
    for _ in 0..context.pick(1, 3, 10) {
        let shown = rig.scene.bridge.run_words(&["device", "show"]).await?;
        let device = shown
            .lines()
            .find_map(|line| line.strip_prefix("Device"))
            .context("no device")?
            .trim()
            .to_owned();
        rig.scene.bridge.terminate().await?;
        let claimer = context
            .synapse
            .register_session(&format!("claimer{:08x}", rand::random::<u32>()), "claims")
            .await?;
        let mut seen = HashSet::new();
        let mut repeated = 0;
        while repeated < 3 {
            claims += 1;
            ensure!(claims < 5_000, "the one-time keys are not used up");
            let key = claim(
                &context.synapse.url(),
                &claimer.access_token,
                &rig.scene.bridge_user,
                &device,
            )
            .await?;
            if !seen.insert(key) {
                repeated += 1;
            }
        }
        fallbacks += repeated;
        for _ in 0..3 {
            rig.traffic
                .say_as_new_member(&rig.scene, context.synapse)
                .await?;
        }
        rig.launch()?;
        rig.scene.bridge.wait_ready().await?;
        rig.talk(3, 5.0).await?;
        rig.arrive(Duration::from_mins(1)).await;
    }
    let mut outcome = rig.finish("F40").await?;
    outcome.injections = claims;
    outcome.note(&format!(
        "{claims} keys claimed, the fallback key {fallbacks} times"
    ));
    Ok(outcome)
}

/// Claims one one-time key of a device; returns the key's id.
async fn claim(server: &str, token: &str, user: &str, device: &str) -> anyhow::Result<String> {
    let http = reqwest::Client::builder().build()?;
    let answer = http
        .post(format!("{server}/_matrix/client/v3/keys/claim"))
        .bearer_auth(token)
        .json(&json!({ "one_time_keys": { user: { device: "signed_curve25519" } } }))
        .send()
        .await?;
    let answer: Value = answer.error_for_status()?.json().await?;
    let keys = answer
        .get("one_time_keys")
        .and_then(|all| all.get(user)?.get(device)?.as_object())
        .context("no key was left")?;
    let (name, _) = keys.iter().next().context("no key was left")?;
    Ok(name.clone())
}
