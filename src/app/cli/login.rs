//! `footbridge login`: once per account. The password is read from a file or asked for, and kept nowhere.

use footbridge_core::{clock::Clock, http_client, secret::Secret};
use footbridge_matrix::{
    MatrixError,
    account::{self, LoggedIn, Login},
    session::{self, SessionState},
};
use footbridge_store::{Account, AccountInfo, Store, StoreKey};

use super::{CommandResult, console, diagnostics, preflight, progress::Progress};
use crate::config::{Config, Diagnostic, Exit, Report, secret_file};

/// The store key, the store and the account of a device that is about to be logged out.
pub(super) async fn logged_in(config: &Config) -> Result<(StoreKey, Store, Account), Report> {
    preflight::before_opening(config)?;
    let key = StoreKey::read(&config.store.key_file)?;
    let store = Store::open(&config.store.path, &key).await?;
    let account = store.relay_account().await?.ok_or(MatrixError::NoAccount)?;
    same_user(&account.info, config)?;
    Ok((key, store, account))
}

/// Logs in, or reports that the account is logged in already.
pub async fn run(config: &Config) -> CommandResult {
    with_password(config, || password(config)).await
}

/// Logs in with the password that `ask` returns; `ask` is called only when the password is needed.
pub async fn with_password(
    config: &Config,
    ask: impl FnOnce() -> Result<Secret, Diagnostic>,
) -> CommandResult {
    preflight::before_opening(config)?;
    let key = StoreKey::read_or_create(&config.store.key_file)?;
    let store = Store::open(&config.store.path, &key).await?;
    if let Some(account) = store.relay_account().await? {
        let info = &account.info;
        same_user(info, config)?;
        let http = http_client::client()
            .map_err(|error| Report::of(diagnostics::from_bridge_error(&error)))?;
        let state = session::ask(&store, &config.matrix, &http).await?;
        if state == SessionState::Gone {
            return Err(Report::of(logged_out(info)));
        }
        if state == SessionState::Expired {
            console::say(&format!(
                "The session of device {} has expired; logging in again on the same device.",
                info.device_id
            ));
        } else if info.master_key.is_some()
            && info.ed25519.is_some()
            && store.former_device(account.id).await?.is_none()
        {
            console::say(&format!(
                "Already logged in as {} on device {}.",
                info.user_id, info.device_id
            ));
            return Ok(Exit::Fine);
        }
    }
    let recovery_key = recovery_key(config)?;
    let password = ask().map_err(Report::of)?;
    let http = http_client::client()
        .map_err(|error| Report::of(diagnostics::from_bridge_error(&error)))?;
    let progress = Progress::start();
    let done = account::login(Login {
        store: store.clone(),
        key: &key,
        config: config.matrix.clone(),
        password,
        recovery_key,
        http,
        clock: Clock::start(),
        progress: &|step| progress.say(step),
    })
    .await;
    drop(progress);
    print_result(&done?);
    store.checkpoint().await?;
    Ok(Exit::Fine)
}

/// The store must belong to the account of the configuration.
pub fn same_user(info: &AccountInfo, config: &Config) -> Result<(), Report> {
    if info.user_id == config.matrix.user.as_str() {
        return Ok(());
    }
    Err(Report::of(diagnostics::another_account(
        &info.user_id,
        config.matrix.user.as_str(),
    )))
}

/// The recovery key, if there is a file with it.
pub fn recovery_key(config: &Config) -> Result<Option<Secret>, Report> {
    let file = config.matrix.recovery_key_file.as_deref();
    file.map(|path| secret_file::read("recovery_key_file", path))
        .transpose()
        .map_err(Report::of)
}

/// The device was logged out: its keys cannot be used any more.
fn logged_out(info: &AccountInfo) -> Diagnostic {
    Diagnostic::new(
        "B20",
        format!(
            "device {} of {} was logged out",
            info.device_id, info.user_id
        ),
    )
    .exit(Exit::Permission)
    .note("pending messages stay in the store")
    .help("footbridge device reset, which makes a new device")
}

pub fn print_result(done: &LoggedIn) {
    console::say(&format!(
        "Logged in as {} on device {}.",
        done.face.user_id, done.face.device_id
    ));
    if let Some(key) = &done.recovery_key {
        console::say(&format!(
            "\nRecovery key of this account, shown this once:\n\n    {}\n\n\
             Keep it where you keep passwords, not on this machine: anyone who has it can act as this account, and\n\
             without it the account's identity cannot be recovered when this machine is lost.\n",
            key.expose()
        ));
    }
}

/// The password, from its file or from the terminal.
pub fn password(config: &Config) -> Result<Secret, Diagnostic> {
    match config.matrix.password_file.as_deref() {
        Some(path) => secret_file::read("password_file", path),
        None => ask(
            &format!("Password of {}", config.matrix.user),
            "`[matrix] password_file`",
            true,
        ),
    }
}

/// Asks for a secret on the terminal. `fallback` names the other way to give it; where it is not `needed`, it may be
/// empty.
pub fn ask(prompt: &str, fallback: &str, needed: bool) -> Result<Secret, Diagnostic> {
    if !console::is_interactive() {
        return Err(Diagnostic::new(
            "B18",
            "there is no terminal to ask for a secret and no file to read it from",
        )
        .exit(Exit::NoInput)
        .help(format!(
            "put it into a file of mode 0600 and name the file: {fallback}"
        )));
    }
    dialoguer::Password::new()
        .with_prompt(prompt)
        .allow_empty_password(!needed)
        .interact()
        .map(Secret::new)
        .map_err(|error| unanswered(&error))
}

/// The question was not answered.
pub fn unanswered(error: &dialoguer::Error) -> Diagnostic {
    Diagnostic::new("B18", format!("the question was not answered: {error}"))
        .exit(Exit::NoInput)
        .help("run it again on a terminal")
}
