//! Who signs the device of a person.

use std::time::Duration;

use anyhow::{Context, bail};
use matrix_sdk::{
    Client,
    encryption::{CrossSigningResetAuthType, LocalTrust},
    ruma::{UserId, api::client::uiaa},
};

use super::TestClient;
use crate::{Boxed, client};

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

impl TestClient {
    /// Puts the identity's secrets into the account's secret storage; answers the recovery key.
    #[must_use]
    pub fn make_recovery_key(&self) -> Boxed<'_, anyhow::Result<String>> {
        Box::pin(async move { Ok(self.client.encryption().recovery().enable().await?) })
    }

    /// Makes another identity in place of the one the account has, as people do who have lost everything, and as those do
    /// who have stolen it.
    #[must_use]
    pub fn replace_identity(&self, password: &str) -> Boxed<'_, anyhow::Result<()>> {
        let password = password.to_owned();
        Box::pin(async move {
            let encryption = self.client.encryption();
            if let Some(reset) = encryption.reset_cross_signing().await? {
                let CrossSigningResetAuthType::Uiaa(answer) = reset.auth_type() else {
                    bail!("the homeserver wants another way of proving who this is");
                };
                let user = self.user_id();
                let mut password = uiaa::Password::new(
                    uiaa::UserIdentifier::Matrix(uiaa::MatrixUserIdentifier::new(user)),
                    password,
                );
                password.session.clone_from(&answer.session);
                reset.auth(Some(uiaa::AuthData::Password(password))).await?;
            }
            client::sync(&self.client, Duration::ZERO).await?;
            Ok(())
        })
    }

    /// Hands no more room keys to the devices of this user. Takes effect with the next room key, and only for a
    /// person without an identity: the others go by signatures alone.
    #[must_use]
    pub fn block(&self, user: &str) -> Boxed<'_, anyhow::Result<()>> {
        let user = user.to_owned();
        Box::pin(async move {
            let user = <&UserId>::try_from(user.as_str())?;
            let devices = self.client.encryption().get_user_devices(user).await?;
            for device in devices.devices() {
                device.set_local_trust(LocalTrust::BlackListed).await?;
            }
            Ok(())
        })
    }
}
