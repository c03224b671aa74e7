//! `footbridge logout`: logs the device out and reports what stays.

use footbridge_core::{clock::Clock, http_client, secret::Secret};
use footbridge_matrix::{account::Login, device_reset};

use super::{CommandResult, console, diagnostics, login, progress::Progress};
use crate::config::{Config, Exit, Report};

/// Logs the device out.
pub async fn run(config: &Config) -> CommandResult {
    let (key, store, account) = login::logged_in(config).await?;
    let http = http_client::client()
        .map_err(|error| Report::of(diagnostics::from_bridge_error(&error)))?;
    let progress = Progress::start();
    let done = device_reset::log_out(Login {
        store: store.clone(),
        key: &key,
        config: config.matrix.clone(),
        // Logging out needs no password.
        password: Secret::new(String::new()),
        recovery_key: None,
        http,
        clock: Clock::start(),
        progress: &|step| progress.say(step),
    })
    .await;
    drop(progress);
    done?;
    let pending: u64 = store
        .lane_counters()
        .await?
        .iter()
        .map(|counters| counters.pending)
        .sum();
    store.checkpoint().await?;
    console::say(&format!(
        "Device {} of {} is logged out, and its encryption keys are removed from this machine.\n\
         Kept: the queue ({pending} messages are pending), the links, the recovery key (sealed) and the configuration \
         here; the account and its cross-signing identity on the homeserver.\n\
         To continue on a new device: footbridge login",
        account.info.device_id, account.info.user_id
    ));
    Ok(Exit::Fine)
}
