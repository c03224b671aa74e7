//! The account's cross-signing identity and its recovery key, by which other devices trust this one.

use std::time::Duration;

use anyhow::anyhow;
use footbridge_core::secret::Secret;
use footbridge_store::{Account, SecretBytes as Sealed};
use matrix_sdk::{
    Client,
    encryption::{
        recovery::{RecoveryError, RecoveryState},
        secret_storage::SecretStorageError,
    },
    ruma::api::client::uiaa,
};
use tracing::info;

use super::{MatrixError, client, password_login::Login, request_error::RequestError};

/// Signs this device with the account's cross-signing identity, and creates the identity if there is none. Returns the
/// recovery key if this call created one. Can be called again after any interruption.
pub(super) async fn set_up_cross_signing(
    client: &Client,
    with: &Login<'_>,
) -> Result<Option<Secret>, MatrixError> {
    (with.progress)("Reading the account's devices");
    sync(client).await?;
    let mut made = None;
    if identity_exists(client).await? {
        join_identity(client, with).await?;
    } else {
        (with.progress)("Creating the account's cross-signing identity");
        bootstrap(client, with).await?;
    }
    sync(client).await?;
    identity_exists(client).await?;
    require_signed_device(client).await?;
    if load_recovery_key(with).await?.is_none() {
        (with.progress)("Creating a recovery key");
        let key = make_recovery_key(client).await?;
        store_recovery_key(with, &key).await?;
        made = Some(key);
    }
    save_fingerprints(client, with).await?;
    info!("This device is signed with the account's cross-signing identity");
    Ok(made)
}

/// Fails unless this device is cross-signed: otherwise others have no reason to share room keys with it or to trust
/// what it sends (B21). Needs no network.
pub(super) async fn require_signed_device(client: &Client) -> Result<(), MatrixError> {
    let device = client
        .encryption()
        .get_own_device()
        .await
        .map_err(|error| {
            MatrixError::CryptoStore(format!(
                "the bridge's own device could not be read: {error}"
            ))
        })?;
    match device {
        Some(device) if device.is_cross_signed_by_owner() => Ok(()),
        _ => Err(MatrixError::Identity(
            "this device is not signed by the account's cross-signing identity".into(),
        )),
    }
}

async fn sync(client: &Client) -> Result<(), MatrixError> {
    client::sync(client, Duration::ZERO)
        .await
        .map(drop)
        .map_err(|error| RequestError::from(&error).into_matrix_error("read the account's state"))
}

/// Queries the homeserver, so that changes by other devices are seen.
async fn identity_exists(client: &Client) -> Result<bool, MatrixError> {
    let own = client.user_id().ok_or(MatrixError::NoAccount)?;
    client
        .encryption()
        .request_user_identity(own)
        .await
        .map(|identity| identity.is_some())
        .map_err(|error| {
            RequestError::from(&error).into_matrix_error("read the account's identity")
        })
}

/// Creates the identity, unless its private keys are here already, and signs this device. Only called for an account
/// without an identity or with the one that this store holds: it would replace any other.
async fn bootstrap(client: &Client, with: &Login<'_>) -> Result<(), MatrixError> {
    let encryption = client.encryption();
    let Err(error) = encryption.bootstrap_cross_signing(None).await else {
        return Ok(());
    };
    let failed = |error: &matrix_sdk::Error| {
        MatrixError::Identity(format!(
            "the cross-signing identity could not be created: {error}"
        ))
    };
    // Some homeservers require the password once more.
    let Some(challenge) = error.as_uiaa_response() else {
        return Err(failed(&error));
    };
    let mut password = uiaa::Password::new(
        uiaa::UserIdentifier::Matrix(uiaa::MatrixUserIdentifier::new(
            with.config.user.to_string(),
        )),
        with.password.expose().to_owned(),
    );
    password.session.clone_from(&challenge.session);
    encryption
        .bootstrap_cross_signing(Some(uiaa::AuthData::Password(password)))
        .await
        .map_err(|error| failed(&error))
}

/// Joins the identity that exists.
async fn join_identity(client: &Client, with: &Login<'_>) -> Result<(), MatrixError> {
    let mut signed = require_signed_device(client).await.is_ok();
    if !signed && has_identity_keys(client).await {
        // The login that created the identity was interrupted before it signed this device (F39). The same keys and
        // their signature of this device are uploaded once more.
        (with.progress)("Signing this device");
        bootstrap(client, with).await?;
        signed = true;
    }
    let given = with.recovery_key.clone();
    let key = match (given, load_recovery_key(with).await?) {
        (None, _) | (_, Some(_)) if signed => return Ok(()),
        (Some(given), _) => given,
        (None, Some(kept)) => kept,
        (None, None) => {
            return Err(MatrixError::Identity(format!(
                "{} has a cross-signing identity already: give its recovery key, so that this device can be \
                 signed with it",
                with.config.user
            )));
        }
    };
    (with.progress)("Joining the account's cross-signing identity");
    client
        .encryption()
        .recovery()
        .recover(key.expose().trim())
        .await
        .map_err(|error| recovery_error(&error))?;
    store_recovery_key(with, &key).await
}

/// Whether the private keys of the account's identity are in this store.
async fn has_identity_keys(client: &Client) -> bool {
    let status = client.encryption().cross_signing_status().await;
    status.is_some_and(|status| status.is_complete())
}

/// Creates a recovery key for an identity whose private keys are in this store and whose recovery key was never shown.
async fn make_recovery_key(client: &Client) -> Result<Secret, MatrixError> {
    let recovery = client.encryption().recovery();
    let made = if recovery.state() == RecoveryState::Enabled {
        recovery.reset_key().await
    } else {
        match recovery.enable().await {
            // An interrupted login had already created the backup.
            Err(RecoveryError::BackupExistsOnServer) => recovery.reset_key().await,
            made => made,
        }
    };
    made.map(Secret::new)
        .map_err(|error| recovery_error(&error))
}

fn recovery_error(error: &RecoveryError) -> MatrixError {
    match error {
        RecoveryError::Sdk(error)
        | RecoveryError::SecretStorage(SecretStorageError::Sdk(error)) => {
            RequestError::from(error).into_matrix_error("reach the account's secret storage")
        }
        RecoveryError::SecretStorage(SecretStorageError::SecretStorageKey(_)) => {
            MatrixError::Identity("this is not the account's recovery key".into())
        }
        error => MatrixError::Identity(format!("the recovery failed: {error}")),
    }
}

async fn relay(with: &Login<'_>) -> Result<Account, MatrixError> {
    let account = with.store.relay_account().await?;
    account.ok_or(MatrixError::NoAccount)
}

async fn load_recovery_key(with: &Login<'_>) -> Result<Option<Secret>, MatrixError> {
    let account = relay(with).await?;
    let key = account.recovery_key;
    key.map(|key| String::from_utf8(key.0.clone()).map(Secret::new))
        .transpose()
        .map_err(|_| MatrixError::Unavailable(anyhow!("the saved recovery key could not be read")))
}

async fn store_recovery_key(with: &Login<'_>, key: &Secret) -> Result<(), MatrixError> {
    let sealed = Sealed(key.expose().trim().as_bytes().to_vec());
    let account = relay(with).await?.id;
    Ok(with.store.save_recovery_key(account, &sealed).await?)
}

async fn save_fingerprints(client: &Client, with: &Login<'_>) -> Result<(), MatrixError> {
    let encryption = client.encryption();
    let own = client.user_id().ok_or(MatrixError::NoAccount)?;
    let ed25519 = encryption
        .ed25519_key()
        .await
        .ok_or_else(|| MatrixError::CryptoStore("the device has no keys".into()))?;
    let master_key = encryption
        .get_user_identity(own)
        .await
        .map_err(|error| {
            MatrixError::CryptoStore(format!("the account's identity could not be read: {error}"))
        })?
        .and_then(|identity| identity.master_key().get_first_key())
        .map(|key| key.to_base64());
    let account = relay(with).await?.id;
    Ok(with
        .store
        .save_fingerprints(account, &ed25519, master_key.as_deref())
        .await?)
}
