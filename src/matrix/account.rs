//! Login, once, with the account's cross-signing identity; and the restore of a saved session.

use std::sync::Arc;

use footbridge_store::{Account, AccountId, AccountInfo, AccountRole, Store};
use matrix_sdk::Client;
use tracing::info;

use super::{
    Boxed, Homeserver, MatrixError, Trust, client, cross_signing, databases, lease, old_device,
    password_login::log_in_with_password,
    saved_account::{KEY_PURPOSE, check_user, directory, homeserver, remove_keys, restore},
    session::{self, SessionState, sealed},
};

pub use super::password_login::{LoggedIn, Login};

/// Logs in with a password, saves the session before anything else, creates or joins the account's cross-signing
/// identity and signs this device with it. If the store already has an account, it does not log in again, unless the
/// session has expired: it finishes what an earlier, interrupted login left undone.
#[must_use]
pub fn login(with: Login<'_>) -> Boxed<'_, Result<LoggedIn, MatrixError>> {
    Box::pin(async move {
        let client = match with.store.relay_account().await? {
            Some(account) => continue_login(&with, account).await?,
            None => log_in(&with).await?,
        };
        let account = relay(&with.store).await?;
        let _kept_when_refreshed =
            session::SessionKeeper::of(&client, &with.store, &account, with.clock)?;
        client
            .encryption()
            .wait_for_e2ee_initialization_tasks()
            .await;
        let recovery_key = cross_signing::set_up_cross_signing(&client, &with).await?;
        old_device::log_out(&with.store, account.id, &with.http).await?;
        let face = relay(&with.store).await?.info;
        Ok(LoggedIn { face, recovery_key })
    })
}

/// The device of a personal account is gone: its keys and its session are removed.
///
/// # Errors
/// [`MatrixError::Store`] where that cannot be written.
pub async fn forget_person(store: &Store, account: AccountId) -> Result<(), MatrixError> {
    remove_keys(store, account)?;
    Ok(store.sign_out_account(account).await?)
}

/// The account of the store, with its session.
async fn relay(store: &Store) -> Result<Account, MatrixError> {
    let account = store.relay_account().await?;
    account.ok_or(MatrixError::NoAccount)
}

/// Continues with an account that is logged in: a login or a reset may have been interrupted, or its session has expired.
async fn continue_login(with: &Login<'_>, account: Account) -> Result<Client, MatrixError> {
    check_user(&account.info, &with.config)?;
    old_device::discard_keys(&with.store, account.id).await?;
    // Where a login or a reset was interrupted, there may be no databases yet that could be missing.
    if account.info.ed25519.is_some() {
        databases::require_databases(&directory(&with.store, account.id))?;
    }
    let state = session::ask(&with.store, &with.config, &with.http).await?;
    let account = relay(&with.store).await?;
    let homeserver = homeserver(&account.info, &with.config)?;
    let client = build(with, account.id, &homeserver).await?;
    if state == SessionState::Expired {
        session::log_in_again(&client, with, &account).await?;
    } else {
        (with.progress)("Using the saved session; no second login");
        restore(&client, &account.session).await?;
    }
    lease::refuse_old_store(&client, &with.store).await?;
    Ok(client)
}

/// The first login of an account.
async fn log_in(with: &Login<'_>) -> Result<Client, MatrixError> {
    (with.progress)("Looking for the homeserver");
    let fresh = client::build_without_stores(&with.config.homeserver, with.http.clone()).await?;
    (with.progress)("Logging in");
    let (session, life) = log_in_with_password(&fresh, &with.into(), None).await?;
    let info = AccountInfo {
        user_id: session.meta.user_id.to_string(),
        device_id: session.meta.device_id.to_string(),
        homeserver: fresh.homeserver().to_string(),
        ed25519: None,
        master_key: None,
    };
    let sealed = sealed(&session, life)?;
    let id = with
        .store
        .save_account(AccountRole::Relay, &info, &sealed, with.clock.now())
        .await?
        .ok_or_else(|| MatrixError::Refused("an account is logged in already".into()))?;
    info!("Logged in");
    check_user(&info, &with.config)?;
    // Those of a device that was logged out.
    remove_keys(&with.store, id)?;
    with.store.mark_former_store_moved(id).await?;
    let client = build(with, id, &homeserver(&info, &with.config)?).await?;
    restore(&client, &sealed).await?;
    Ok(client)
}

async fn build(
    with: &Login<'_>,
    account: AccountId,
    homeserver: &Homeserver,
) -> Result<Client, MatrixError> {
    client::build(client::ClientOptions {
        homeserver,
        directory: &directory(&with.store, account),
        key: &with.key.derive(KEY_PURPOSE),
        // A login sends no message and relays none.
        trust: Trust::CrossSigned,
        http: with.http.clone(),
        pins: Arc::default(),
    })
    .await
}
