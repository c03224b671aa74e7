//! Login, once, with the account's cross-signing identity; and the restore of a saved session.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use footbridge_core::{clock::Clock, secret::Secret};
use footbridge_store::{AccountInfo, SecretBytes, Store, StoreKey};
use matrix_sdk::{
    Client, authentication::matrix::MatrixSession, ruma::api::client::session::get_login_types,
    store::RoomLoadSettings,
};
use serde::Serialize;
use tracing::info;
use url::Url;

use super::{
    Boxed, Homeserver, MatrixConfig, MatrixError, Trust, client, cross_signing, databases,
    device_reset, lease,
    request_error::RequestError,
    session::{self, SessionState, TokenLifetime},
};

/// What a login needs.
pub struct Login<'a> {
    /// Where the session is saved.
    pub store: Store,
    /// The key of the SDK's stores.
    pub key: &'a StoreKey,
    /// `[matrix]`.
    pub config: MatrixConfig,
    /// The password.
    pub password: Secret,
    /// The recovery key, for an account that has a cross-signing identity already.
    pub recovery_key: Option<Secret>,
    /// The one HTTP client.
    pub http: reqwest::Client,
    /// The time.
    pub clock: Clock,
    /// Called with one short line for each step.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// The result of a login.
#[derive(Debug)]
pub struct LoggedIn {
    /// The account that is logged in.
    pub face: AccountInfo,
    /// The recovery key, when this login created the account's cross-signing identity: shown once.
    pub recovery_key: Option<Secret>,
}

/// Logs in with a password, saves the session before anything else, creates or joins the account's cross-signing
/// identity and signs this device with it. If the store already has an account, it does not log in again, unless the
/// session has expired: it finishes what an earlier, interrupted login left undone.
#[must_use]
pub fn login(with: Login<'_>) -> Boxed<'_, Result<LoggedIn, MatrixError>> {
    Box::pin(async move {
        device_reset::discard_old_keys(&with.store).await?;
        let client = match with.store.account().await? {
            Some(account) => {
                check_user(&account.info, &with.config)?;
                // After a device reset there are no databases yet that could be missing.
                if account.info.ed25519.is_some() || with.store.former_device().await?.is_none() {
                    databases::require_databases(&directory(&with.store))?;
                }
                let state = session::ask(&with.store, &with.config, &with.http).await?;
                let account = with.store.account().await?.ok_or(MatrixError::NoAccount)?;
                let client = build(&with, &homeserver(&account.info, &with.config)?).await?;
                if state == SessionState::Expired {
                    session::log_in_again(&client, &with, &account).await?;
                } else {
                    (with.progress)("Using the saved session; no second login");
                    restore(&client, &account.session).await?;
                }
                lease::refuse_old_store(&client, &with.store).await?;
                client
            }
            None => log_in(&with).await?,
        };
        let kept = with.store.account().await?.ok_or(MatrixError::NoAccount)?;
        let _kept_when_refreshed =
            session::SessionKeeper::of(&client, &with.store, &kept.session, with.clock)?;
        client
            .encryption()
            .wait_for_e2ee_initialization_tasks()
            .await;
        let recovery_key = cross_signing::set_up_cross_signing(&client, &with).await?;
        device_reset::log_out_old_device(&with.store, &with.http).await?;
        let face = with
            .store
            .account()
            .await?
            .ok_or(MatrixError::NoAccount)?
            .info;
        Ok(LoggedIn { face, recovery_key })
    })
}

/// The first login of this store.
async fn log_in(with: &Login<'_>) -> Result<Client, MatrixError> {
    // Keys without a session are left over from a login that ended before its session was saved.
    remove_keys(&with.store)?;
    (with.progress)("Looking for the homeserver");
    let client = build(with, &with.config.homeserver).await?;
    (with.progress)("Logging in");
    let (session, life) = log_in_with_password(&client, with, None).await?;
    let info = AccountInfo {
        user_id: session.meta.user_id.to_string(),
        device_id: session.meta.device_id.to_string(),
        homeserver: client.homeserver().to_string(),
        ed25519: None,
        master_key: None,
    };
    let sealed = sealed(&session, life)?;
    if !with
        .store
        .save_account(&info, &sealed, with.clock.now())
        .await?
    {
        return Err(MatrixError::Refused(
            "an account is logged in already".into(),
        ));
    }
    info!("Logged in");
    check_user(&info, &with.config)?;
    Ok(client)
}

/// Logs in by password: on a new device, or on the device with this id.
pub(super) async fn log_in_with_password(
    client: &Client,
    with: &Login<'_>,
    device: Option<&str>,
) -> Result<(MatrixSession, TokenLifetime), MatrixError> {
    let login = client
        .matrix_auth()
        .login_username(&with.config.user, with.password.expose())
        .request_refresh_token();
    let login = match device {
        Some(device) => login.device_id(device),
        None => login.initial_device_display_name(&with.config.device_name),
    };
    offers_password(client).await?;
    let answer = login
        .send()
        .await
        .map_err(|error| match RequestError::from(&error) {
            RequestError::Forbidden(_) => {
                MatrixError::Refused("it does not accept this user name and password".into())
            }
            RequestError::SignedOut(reason) | RequestError::Invalid(reason) => {
                MatrixError::Refused(reason)
            }
            error => error.into_matrix_error("log in"),
        })?;
    let life = TokenLifetime::of(answer.expires_in, with.clock.now());
    let session = client.matrix_auth().session();
    Ok((session.ok_or(MatrixError::NoAccount)?, life))
}

/// A session as the store keeps it, with its token lifetime.
pub(super) fn sealed(
    session: &MatrixSession,
    life: TokenLifetime,
) -> Result<SecretBytes, MatrixError> {
    #[derive(Serialize)]
    struct Kept<'a> {
        #[serde(flatten)]
        session: &'a MatrixSession,
        #[serde(flatten)]
        life: TokenLifetime,
    }
    let session = serde_json::to_vec(&Kept { session, life })
        .context("the session could not be serialized")
        .map_err(MatrixError::Unavailable)?;
    Ok(SecretBytes(session))
}

/// Checks that the homeserver offers login by password. It is also the first request, so that a server that does not
/// answer or is not a homeserver is reported here.
async fn offers_password(client: &Client) -> Result<(), MatrixError> {
    use get_login_types::v3::LoginType;
    let offered = client
        .matrix_auth()
        .get_login_types()
        .await
        .map_err(|error| {
            let (RequestError::Forbidden(why)
            | RequestError::NotFound(why)
            | RequestError::Invalid(why)
            | RequestError::NotSent(why)
            | RequestError::Unknown(why)) = RequestError::from(&error)
            else {
                return RequestError::from(&error).into_matrix_error("ask how to log in");
            };
            MatrixError::Unavailable(anyhow::anyhow!(
                "{} does not answer as a Matrix homeserver: {why}",
                client.homeserver()
            ))
        })?;
    let flows = offered.flows;
    if flows
        .iter()
        .any(|flow| matches!(flow, LoginType::Password(_)))
    {
        return Ok(());
    }
    let mut instead: Vec<&str> = flows
        .iter()
        .filter_map(|flow| match flow {
            LoginType::Sso(_) => Some("single sign-on"),
            LoginType::ApplicationService(_) => Some("login for application services"),
            _ => None,
        })
        .collect();
    instead.dedup();
    Err(MatrixError::PasswordLoginDisabled(
        match instead.as_slice() {
            [] => "no login type that the bridge supports".to_owned(),
            known => known.join(" and "),
        },
    ))
}

async fn build(with: &Login<'_>, homeserver: &Homeserver) -> Result<Client, MatrixError> {
    client::build(client::ClientOptions {
        homeserver,
        directory: &directory(&with.store),
        key: &with.key.derive(KEY_PURPOSE),
        // A login sends no message and relays none.
        trust: Trust::CrossSigned,
        http: with.http.clone(),
        pins: Arc::default(),
    })
    .await
}

/// The purpose for which the key of the SDK's databases is derived.
pub(super) const KEY_PURPOSE: &str = "matrix-sdk";

/// The directory of the SDK's databases.
pub(super) fn directory(store: &Store) -> PathBuf {
    store.directory().join(Path::new("matrix"))
}

/// Removes the encryption keys of a device that this store no longer uses.
pub(super) fn remove_keys(store: &Store) -> Result<(), MatrixError> {
    let directory = directory(store);
    match std::fs::remove_dir_all(&directory) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(footbridge_store::Error::Io {
                path: directory,
                source,
            }
            .into())
        }
        _ => Ok(()),
    }
}

/// The homeserver of the saved account: the configured URL, or the URL that was discovered at the login.
pub(super) fn homeserver(
    face: &AccountInfo,
    config: &MatrixConfig,
) -> Result<Homeserver, MatrixError> {
    match &config.homeserver {
        Homeserver::Url(_) => Ok(config.homeserver.clone()),
        Homeserver::Name(_) => Url::parse(&face.homeserver)
            .map(Homeserver::Url)
            .map_err(|_| {
                MatrixError::CryptoStore("the saved account has no valid homeserver URL".into())
            }),
    }
}

/// Refuses a configuration that names another account than the saved one.
pub(super) fn check_user(face: &AccountInfo, config: &MatrixConfig) -> Result<(), MatrixError> {
    if face.user_id == config.user.as_str() {
        return Ok(());
    }
    Err(MatrixError::WrongAccount {
        store: face.user_id.clone(),
        configured: config.user.to_string(),
    })
}

/// Restores the saved session in a new client. Every failure is final: a client that continued after one would sync
/// without encryption.
pub(super) async fn restore(client: &Client, session: &SecretBytes) -> Result<(), MatrixError> {
    let session: MatrixSession = serde_json::from_slice(&session.0)
        .map_err(|_| MatrixError::CryptoStore("the saved session could not be read".into()))?;
    client
        .matrix_auth()
        .restore_session(session, RoomLoadSettings::default())
        .await
        .map_err(|error| {
            MatrixError::CryptoStore(format!(
                "the saved session does not match the encryption store: {error}"
            ))
        })
}
