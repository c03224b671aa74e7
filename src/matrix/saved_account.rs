//! The account that the store has: its homeserver, its session, and where the SDK's databases are.

use std::path::PathBuf;

use footbridge_store::{AccountId, AccountInfo, SecretBytes, Store};
use matrix_sdk::{
    Client, authentication::matrix::MatrixSession, ruma::UserId, store::RoomLoadSettings,
};
use url::Url;

use super::{Homeserver, MatrixConfig, MatrixError};

/// The purpose for which the key of the SDK's databases is derived.
pub(super) const KEY_PURPOSE: &str = "matrix-sdk";

/// The directory of the SDK's databases of an account.
pub(super) fn directory(store: &Store, account: AccountId) -> PathBuf {
    let name = account.to_string();
    store.directory().join("devices").join(name)
}

/// Removes the encryption keys of a device that this store no longer uses.
pub(super) fn remove_keys(store: &Store, account: AccountId) -> Result<(), MatrixError> {
    let directory = directory(store, account);
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

/// The homeserver of a person's account: the configured one where the person is on it, or the one that was found at the login.
pub(super) fn homeserver_of_person(
    face: &AccountInfo,
    config: &MatrixConfig,
) -> Result<Homeserver, MatrixError> {
    let user = <&UserId>::try_from(face.user_id.as_str());
    if user.is_ok_and(|user| user.server_name() == config.user.server_name()) {
        return homeserver(face, config);
    }
    Url::parse(&face.homeserver)
        .map(Homeserver::Url)
        .map_err(|_| {
            MatrixError::CryptoStore("the saved account has no valid homeserver URL".into())
        })
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
