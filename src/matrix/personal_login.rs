//! Login and logout of a person's account. The device that a login makes belongs to the person: it never creates or replaces the
//! person's cross-signing identity, and speaks only once the person has signed it with another client.

use std::sync::Arc;

use footbridge_core::{clock::Clock, secret::Secret};
use footbridge_store::{AccountId, AccountInfo, AccountRole, Store, StoreKey};
use matrix_sdk::{
    Client,
    ruma::{OwnedUserId, UserId},
};
use tracing::info;
use url::Url;

use super::{
    Boxed, Homeserver, MatrixConfig, MatrixError, Trust, account, client,
    password_login::{Credentials, log_in_with_password},
    request_error::RequestError,
    saved_account::{KEY_PURPOSE, directory, homeserver_of_person, remove_keys, restore},
    session::{self, SessionKeeper, SessionState, sealed},
};

/// What the login of a person needs.
pub struct PersonLogin<'a> {
    /// Where the session is saved.
    pub store: Store,
    /// The key of the SDK's stores.
    pub key: &'a StoreKey,
    /// `[matrix]`.
    pub config: MatrixConfig,
    /// Whose account it is.
    pub user: OwnedUserId,
    /// The password.
    pub password: Secret,
    /// The one HTTP client.
    pub http: reqwest::Client,
    /// The time.
    pub clock: Clock,
    /// Called with one short line for each step.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// Logs a person in on a new device, or finishes a login that was interrupted. Returns the account with the device's fingerprint.
/// A session that the homeserver accepts is used as it is: see [`find`].
///
/// # Errors
/// [`MatrixError::Refused`] where the user name or the password is wrong, or the homeserver has logged in somebody else: then the
/// session is ended again, and nothing is kept. [`MatrixError::Unavailable`] where it does not say whether a saved session is
/// still accepted.
#[must_use]
pub fn log_in(with: PersonLogin<'_>) -> Boxed<'_, Result<AccountInfo, MatrixError>> {
    Box::pin(async move {
        let known = with.store.own_accounts().await?;
        let active = known
            .iter()
            .find(|account| account.user_id == with.user.as_str() && account.is_active);
        if active.is_some_and(|account| account.role == AccountRole::Relay) {
            return Err(MatrixError::Refused(
                "this is the bridge's own account: `footbridge login` logs it in".into(),
            ));
        }
        let id = match active {
            Some(account) => match state(&with.store, &with.http, account.id).await? {
                SessionState::Gone => {
                    account::forget_person(&with.store, account.id).await?;
                    new_device(&with).await?
                }
                SessionState::Expired => {
                    log_in_again(&with, account.id).await?;
                    account.id
                }
                SessionState::Accepted => account.id,
                SessionState::Unknown => return Err(unconfirmed("the saved session")),
            },
            None => new_device(&with).await?,
        };
        finish(&with, id).await
    })
}

/// The state of the saved session of a person, by the homeserver.
///
/// # Errors
/// [`MatrixError::NoAccount`] where the account is not logged in.
#[must_use]
pub fn state<'a>(
    store: &'a Store,
    http: &'a reqwest::Client,
    id: AccountId,
) -> Boxed<'a, Result<SessionState, MatrixError>> {
    Box::pin(async move {
        let account = store.account(id).await?.ok_or(MatrixError::NoAccount)?;
        let (server, token) = (server_of(&account.info)?, session::read(&account)?);
        match session::whoami(&server, &token.tokens.access_token, http).await {
            SessionState::Expired => session::renew(store, &account, &server, http).await,
            state => Ok(state),
        }
    })
}

/// The account of a person who is logged in completely, by a session that the homeserver accepts.
///
/// # Errors
/// [`MatrixError::Store`] where the store cannot be read.
#[must_use]
pub fn find<'a>(
    store: &'a Store,
    http: &'a reqwest::Client,
    user: &'a UserId,
) -> Boxed<'a, Result<Option<AccountInfo>, MatrixError>> {
    Box::pin(async move {
        let known = store.own_accounts().await?;
        let active = known
            .iter()
            .find(|account| account.user_id == user.as_str() && account.is_active);
        let Some(active) = active.filter(|account| account.role == AccountRole::Personal) else {
            return Ok(None);
        };
        let is_accepted = state(store, http, active.id).await? == SessionState::Accepted;
        let account = store.account(active.id).await?;
        let info = account.map(|account| account.info);
        Ok(info.filter(|info| is_accepted && info.ed25519.is_some()))
    })
}

/// The session has expired by a soft logout: logs in again on the same device, whose keys stay as they are.
async fn log_in_again(with: &PersonLogin<'_>, id: AccountId) -> Result<(), MatrixError> {
    (with.progress)("The session has expired: logging in again, on the same device");
    let account = with.store.account(id).await?;
    let account = account.ok_or(MatrixError::NoAccount)?;
    let homeserver = homeserver_of_person(&account.info, &with.config)?;
    let fresh = client::build_without_stores(&homeserver, with.http.clone()).await?;
    let credentials = Credentials {
        user: &with.user,
        password: &with.password,
        device_name: &with.config.device_name,
        clock: with.clock,
    };
    let device = account.info.device_id.as_str();
    let (session, life) = log_in_with_password(&fresh, &credentials, Some(device)).await?;
    if session.meta.user_id != with.user || session.meta.device_id.as_str() != device {
        return Err(refuse(
            &fresh,
            "it has logged in another user or device than the saved one",
        )
        .await);
    }
    with.store
        .save_session(id, &sealed(&session, life)?)
        .await?;
    Ok(())
}

fn server_of(info: &AccountInfo) -> Result<Url, MatrixError> {
    Url::parse(&info.homeserver).map_err(|_| {
        MatrixError::CryptoStore("the saved account has no valid homeserver URL".into())
    })
}

/// Logs in on a new device, and saves the session before anything else.
async fn new_device(with: &PersonLogin<'_>) -> Result<AccountId, MatrixError> {
    (with.progress)("Looking for the homeserver");
    let homeserver = if with.user.server_name() == with.config.user.server_name() {
        with.config.homeserver.clone()
    } else {
        Homeserver::Name(with.user.server_name().to_owned())
    };
    let fresh = client::build_without_stores(&homeserver, with.http.clone()).await?;
    (with.progress)("Logging in");
    let credentials = Credentials {
        user: &with.user,
        password: &with.password,
        device_name: &format!("{} (speaks as you)", with.config.device_name),
        clock: with.clock,
    };
    let (session, life) = log_in_with_password(&fresh, &credentials, None).await?;
    if session.meta.user_id != with.user {
        let what = format!(
            "it has logged in {} instead of {}",
            session.meta.user_id, with.user
        );
        return Err(refuse(&fresh, &what).await);
    }
    let info = AccountInfo {
        user_id: session.meta.user_id.to_string(),
        device_id: session.meta.device_id.to_string(),
        homeserver: fresh.homeserver().to_string(),
        ed25519: None,
        master_key: None,
    };
    let sealed = sealed(&session, life)?;
    let saved = with
        .store
        .save_account(AccountRole::Personal, &info, &sealed, with.clock.now());
    let id = match saved.await {
        Ok(Some(id)) => id,
        Ok(None) => return Err(refuse(&fresh, "this account is logged in already").await),
        Err(error) => {
            // Nobody would know of the device.
            let _refusal = refuse(&fresh, "it could not be saved").await;
            return Err(error.into());
        }
    };
    // Those of a device that was logged out.
    remove_keys(&with.store, id)?;
    info!("A person has logged in");
    Ok(id)
}

/// Ends a session that is not kept, and says whether that worked.
async fn refuse(fresh: &Client, what: &str) -> MatrixError {
    let ended = match fresh.matrix_auth().logout().await {
        Ok(_) => "that session is ended again",
        Err(_) => "that session could not be ended: remove it with another client",
    };
    MatrixError::Refused(format!("{what}; {ended}"))
}

/// Opens the databases of the device, uploads its keys, and saves its fingerprint.
async fn finish(with: &PersonLogin<'_>, id: AccountId) -> Result<AccountInfo, MatrixError> {
    let account = with.store.account(id).await?;
    let account = account.ok_or(MatrixError::NoAccount)?;
    if account.info.ed25519.is_some() {
        return Ok(account.info);
    }
    (with.progress)("Uploading the keys of the device");
    let client = client::build(client::ClientOptions {
        homeserver: &homeserver_of_person(&account.info, &with.config)?,
        directory: &directory(&with.store, id),
        key: &with.key.derive(KEY_PURPOSE),
        trust: Trust::CrossSigned,
        http: with.http.clone(),
        pins: Arc::default(),
    })
    .await?;
    restore(&client, &account.session).await?;
    let _kept_when_refreshed = SessionKeeper::of(&client, &with.store, &account, with.clock)?;
    let synced = client::sync_state(&client, client::StateSync::none()).await;
    synced.map_err(|error| RequestError::from(&error).into_matrix_error("upload the keys"))?;
    save_fingerprints(&client, &with.store, id).await?;
    let account = with.store.account(id).await?;
    Ok(account.ok_or(MatrixError::NoAccount)?.info)
}

async fn save_fingerprints(
    client: &Client,
    store: &Store,
    id: AccountId,
) -> Result<(), MatrixError> {
    let own = client.user_id().ok_or(MatrixError::NoAccount)?;
    let encryption = client.encryption();
    let ed25519 = encryption
        .ed25519_key()
        .await
        .ok_or_else(|| MatrixError::CryptoStore("the device has no keys".into()))?;
    let identity = encryption.request_user_identity(own).await;
    let identity = identity.map_err(|error| {
        RequestError::from(&error).into_matrix_error("read the account's identity")
    })?;
    let master_key = identity
        .and_then(|identity| identity.master_key().get_first_key())
        .map(|key| key.to_base64());
    Ok(store
        .save_fingerprints(id, &ed25519, master_key.as_deref())
        .await?)
}

/// What became of a device that was logged out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedOut {
    /// The homeserver has removed it, and no longer accepts its token.
    Revoked,
    /// It had been removed before.
    WasGone,
    /// Its session had expired, so that it could not log itself out: the person must remove it with another client.
    Expired,
}

/// Logs the device of a person out and removes its keys and its session from this machine.
///
/// # Errors
/// [`MatrixError::Unavailable`] where the homeserver does not answer: then nothing is removed.
#[must_use]
pub fn log_out<'a>(
    store: &'a Store,
    http: &'a reqwest::Client,
    id: AccountId,
) -> Boxed<'a, Result<LoggedOut, MatrixError>> {
    Box::pin(async move {
        let ended = match state(store, http, id).await? {
            SessionState::Accepted => revoke(store, http, id).await?,
            SessionState::Gone => LoggedOut::WasGone,
            SessionState::Expired => LoggedOut::Expired,
            SessionState::Unknown => return Err(unconfirmed("the logout")),
        };
        account::forget_person(store, id).await?;
        info!("A person's device is logged out");
        Ok(ended)
    })
}

/// Logs the device out by its present token, and asks whether that is refused now: only then it was revoked.
async fn revoke(
    store: &Store,
    http: &reqwest::Client,
    id: AccountId,
) -> Result<LoggedOut, MatrixError> {
    let account = store.account(id).await?.ok_or(MatrixError::NoAccount)?;
    let (server, session) = (server_of(&account.info)?, session::read(&account)?);
    let token = session.tokens.access_token.clone();
    match session::log_out(&server, session, http).await {
        SessionState::Accepted => {}
        SessionState::Gone => return Ok(LoggedOut::WasGone),
        SessionState::Expired | SessionState::Unknown => return Err(unconfirmed("the logout")),
    }
    match session::whoami(&server, &token, http).await {
        SessionState::Gone => Ok(LoggedOut::Revoked),
        _ => Err(unconfirmed("the logout")),
    }
}

fn unconfirmed(what: &str) -> MatrixError {
    MatrixError::Unavailable(anyhow::anyhow!(
        "the homeserver does not confirm {what}; the device may still be logged in"
    ))
}
