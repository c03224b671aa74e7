//! Who signs the device of a person.

use std::time::Duration;

use anyhow::Context;
use matrix_sdk::{Client, ruma::api::client::uiaa};

use crate::matrix::client;

/// Who signs the device of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The person makes a new cross-signing identity with this device.
    New,
    /// The person joins the account's identity with its recovery key.
    Recovered(String),
    /// Nobody: the device stays unsigned, and others have no reason to trust it.
    None,
}

/// Makes the account's identity and signs this device with it.
pub(super) async fn sign_device(client: &Client, password: &str) -> anyhow::Result<()> {
    let encryption = client.encryption();
    if let Err(error) = encryption.bootstrap_cross_signing(None).await {
        let answer = error
            .as_uiaa_response()
            .context("cross-signing was refused")?;
        let user = client.user_id().context("nobody is logged in")?;
        let mut password = uiaa::Password::new(
            uiaa::UserIdentifier::Matrix(uiaa::MatrixUserIdentifier::new(user.to_string())),
            password.to_owned(),
        );
        password.session.clone_from(&answer.session);
        encryption
            .bootstrap_cross_signing(Some(uiaa::AuthData::Password(password)))
            .await?;
    }
    client::sync(client, Duration::ZERO).await?;
    Ok(())
}
