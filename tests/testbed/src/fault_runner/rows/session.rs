//! Access tokens that expire after seconds, and the end of a session.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::http::Method;
use footbridge_store::{Store, StoreKey};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Cut, Fault, Matcher, Rule};
use crate::scenario::PASSWORD;
use crate::synapse::{Limits, Synapse};

/// How long an access token is valid.
const LIFETIME: &str = "2s";
/// How long a process may take to reach the crash point.
const REACH_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn rows() -> Vec<Row> {
    vec![Row {
        id: "F29",
        title: "sessions that expire every other second",
        help: "The homeserver's access tokens expire after two seconds. Kills before and after refreshed tokens are \
               saved and at random, and lost responses to refreshes: the session continues, on the same device. In \
               the end another client logs the device out: the bridge ends with 77 and keeps its queue.",
        run: |context| Box::pin(expiring(context)),
    }]
}

fn renewals() -> Matcher {
    Matcher::of(Method::POST).with("/refresh")
}

async fn expiring(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let settings = json!({ "refreshable_access_token_lifetime": LIFETIME });
    let synapse = Synapse::start_with(Limits::Relaxed, settings).await?;
    let rig = FaultScenario::open_on(context, &synapse, ScenarioOptions::default()).await?;
    rig.scene.bridge.terminate().await?;
    let device = device_of(&rig).await?;
    rig.launch()?;
    rig.scene.bridge.wait_ready().await?;
    let mut dice = StdRng::seed_from_u64(context.seed);
    let (mut kills, mut at_points) = (0_u64, 0_u64);
    let began = std::time::Instant::now();
    rig.while_talking(3.0, async {
        for round in 0..context.pick(4, 20, 100) {
            let point = ["session.refreshed", "session.saved"].get(round % 4);
            if round % 4 == 2 {
                let lost = Fault::DropReply(Cut::Reset);
                rig.homeserver()?
                    .add(Rule::times("renewal", renewals(), lost, 1));
            }
            rig.scene.bridge.kill().await?;
            kills += 1;
            match point {
                Some(point) => {
                    rig.launch_armed(point)?;
                    let died = rig.death(REACH_TIMEOUT).await?;
                    ensure!(died.is_some(), "{point} was not reached");
                    at_points += 1;
                    rig.launch()?;
                }
                None => rig.launch()?,
            }
            tokio::time::sleep(Duration::from_millis(dice.random_range(500..=4_000))).await;
            if let Some(status) = rig.scene.bridge.ended()? {
                anyhow::bail!(
                    "in round {round} the bridge ended by itself, {status}\n{}",
                    rig.scene.bridge.logs_end()
                );
            }
        }
        Ok(())
    })
    .await?;
    rig.scene.bridge.wait_ready().await?;
    let mut outcome = rig.finish("F29").await?;
    let renewed = rig
        .homeserver()?
        .recorded_requests(began, &renewals())
        .len();
    outcome.injections += kills + at_points;
    outcome.remark = format!(
        "{kills} kills, {at_points} aborts around a refresh, {} responses lost, {renewed} refreshes",
        outcome.injections - kills - at_points
    );
    rig.scene.bridge.terminate().await?;
    if device_of(&rig).await? != device {
        outcome.object("the device id changed");
    }
    rig.launch()?;
    rig.scene.bridge.wait_ready().await?;
    logged_out(&rig, &synapse, &device, &mut outcome).await?;
    Ok(outcome)
}

/// The device id of the stopped bridge.
async fn device_of(rig: &FaultScenario) -> anyhow::Result<String> {
    let bridge = &rig.scene.bridge;
    let key = StoreKey::read(&bridge.directory().join("footbridge.key"))?;
    let store = Store::open(&bridge.data_directory(), &key).await?;
    let account = store
        .relay_account()
        .await?
        .context("nobody is logged in")?;
    Ok(account.info.device_id)
}

/// Another client logs the device out while the bridge runs.
async fn logged_out(
    rig: &FaultScenario,
    synapse: &Synapse,
    device: &str,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let address = format!("{}/_matrix/client/v3", synapse.url());
    let http = reqwest::Client::builder().build()?;
    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": rig.scene.bridge_user},
        "password": PASSWORD,
        "device_id": device,
    });
    let answer = http.post(format!("{address}/login")).json(&login).send();
    let answer: Value = answer.await?.error_for_status()?.json().await?;
    let token = answer.get("access_token").and_then(Value::as_str);
    let logout = http
        .post(format!("{address}/logout"))
        .bearer_auth(token.context("no token")?);
    logout.send().await?.error_for_status()?;
    rig.traffic.say_in_channel(&rig.scene, 0);
    let ended = rig.death(Duration::from_mins(1)).await?;
    let code = ended.and_then(|status| status.code());
    if code != Some(77) {
        outcome.object(&format!("logged out, it ended with {code:?}"));
    }
    if !rig.scene.bridge.logs().contains("error[B20]") {
        outcome.object("it did not report that it was logged out");
    }
    outcome.note("logged out it ended with 77");
    Ok(())
}
