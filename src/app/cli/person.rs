//! Gives the bridge a device on a person's own account, and takes it back.

use std::path::Path;

use footbridge_core::{clock::Clock, http_client};
use footbridge_matrix::personal_login::{self, LoggedOut, PersonLogin};
use footbridge_store::{AccountInfo, AccountRole, Store, StoreKey};
use ruma::OwnedUserId;

use super::{CommandResult, console, diagnostics, login, preflight, progress::Progress};
use crate::config::{Config, Diagnostic, Exit, Report, secret_file};

/// Logs a person in, and says how they sign the device.
pub async fn log_in(config: &Config, user: &OwnedUserId, file: Option<&Path>) -> CommandResult {
    preflight::before_opening(config)?;
    let key = StoreKey::read(&config.store.key_file)?;
    let store = Store::open(&config.store.path, &key).await?;
    let http = http_client::client()
        .map_err(|error| Report::of(diagnostics::from_bridge_error(&error)))?;
    if let Some(info) = personal_login::find(&store, &http, user).await? {
        console::say(&format!(
            "Already logged in as {user} on device {}.\n{}",
            info.device_id,
            how_to_sign(user, &info)
        ));
        return Ok(Exit::Fine);
    }
    let password = match file {
        Some(path) => secret_file::read("--password-file", path),
        None => login::ask(&format!("Password of {user}"), "`--password-file`", true),
    };
    let password = password.map_err(Report::of)?;
    let progress = Progress::start();
    let done = personal_login::log_in(PersonLogin {
        store: store.clone(),
        key: &key,
        config: config.matrix.clone(),
        user: user.clone(),
        password,
        http,
        clock: Clock::start(),
        progress: &|step| progress.say(step),
    })
    .await;
    drop(progress);
    let info = done?;
    store.checkpoint().await?;
    console::say(&format!(
        "Logged in as {user} on device {}.\n{}\n\
         What the bridge holds there: the room keys that {user} sends and receives from now on, sealed on this machine. It reads \
         no messages with them. To take the device back: footbridge logout --person {user}, or remove it in Element.",
        info.device_id,
        how_to_sign(user, &info)
    ));
    Ok(Exit::Fine)
}

fn how_to_sign(user: &OwnedUserId, info: &AccountInfo) -> String {
    let (device, fingerprint) = (&info.device_id, info.ed25519.as_deref().unwrap_or_default());
    format!(
        "{user} must sign this device with the account's own identity; until then the bridge speaks for them itself. In Element: \
         type\n\n    /verify {device} {fingerprint}\n\nin any room, or choose the device in the list of sessions and verify it by its \
         text."
    )
}

/// Logs the device of a person out.
pub async fn log_out(config: &Config, user: &OwnedUserId) -> CommandResult {
    preflight::before_opening(config)?;
    let key = StoreKey::read(&config.store.key_file)?;
    let store = Store::open(&config.store.path, &key).await?;
    let accounts = store.own_accounts().await?;
    let account = accounts.iter().find(|account| {
        account.role == AccountRole::Personal
            && account.is_active
            && account.user_id == user.as_str()
    });
    let account = account.ok_or_else(|| {
        Report::of(
            Diagnostic::new("B20", format!("{user} is not logged in"))
                .exit(Exit::Permission)
                .help("nothing is left to do for this person"),
        )
    })?;
    let http = http_client::client()
        .map_err(|error| Report::of(diagnostics::from_bridge_error(&error)))?;
    let ended = personal_login::log_out(&store, &http, account.id).await?;
    store.checkpoint().await?;
    let device = &account.device_id;
    let what = match ended {
        LoggedOut::Revoked => format!(
            "Device {device} of {user} is logged out: the homeserver no longer accepts its token."
        ),
        LoggedOut::WasGone => format!("Device {device} of {user} had been removed already."),
        LoggedOut::Expired => format!(
            "The session of device {device} has expired, so it cannot log itself out: {user} must remove it in another client."
        ),
    };
    console::say(&format!(
        "{what} Its encryption keys and its session are removed from this machine. The bridge speaks for {user} itself again."
    ));
    Ok(Exit::Fine)
}
