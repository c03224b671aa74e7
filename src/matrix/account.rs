//! Login, once, with the account's cross-signing identity; and the restore of a saved session.

use std::sync::Arc;

use footbridge_store::AccountInfo;
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
        old_device::discard_keys(&with.store).await?;
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
        old_device::log_out(&with.store, &with.http).await?;
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
