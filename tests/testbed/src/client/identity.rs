//! The cross-signing identity of a test client, and how its device is signed.

use std::time::Duration;

use anyhow::{Context, bail};
use matrix_sdk::{
    Client,
    encryption::{CrossSigningResetAuthType, LocalTrust},
    ruma::{UserId, api::client::uiaa},
};

use super::{Boxed, TestClient, session};

/// How the device of a test client is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The client creates a new cross-signing identity with this device.
    New,
    /// The client recovers the account's identity with its recovery key.
    Recovered(String),
    /// The device stays unsigned, so that others have no reason to trust it.
    None,
}

/// Creates the account's cross-signing identity and signs this device with it.
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
    session::sync(client, Duration::ZERO).await?;
    Ok(())
}

impl TestClient {
    /// Stores the identity's private keys in the account's secret storage; returns the recovery key.
    #[must_use]
    pub fn make_recovery_key(&self) -> Boxed<'_, anyhow::Result<String>> {
        Box::pin(async move { Ok(self.client.encryption().recovery().enable().await?) })
    }

    /// Whether this client knows that the owner signed this device: it gives room keys to no other.
    pub async fn knows_signed(&self, user: &str, device: &str) -> anyhow::Result<bool> {
        let user = matrix_sdk::ruma::UserId::parse(user)?;
        let encryption = self.client.encryption();
        let found = encryption.get_device(&user, device.into()).await?;
        Ok(found.is_some_and(|device| device.is_cross_signed_by_owner()))
    }

    /// Signs another device of the account, as a person does who verifies a session by its text.
    #[must_use]
    pub fn sign_own_device<'a>(&'a self, device: &'a str) -> Boxed<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let own = self.client.user_id().context("nobody is logged in")?;
            let encryption = self.client.encryption();
            encryption.request_user_identity(own).await?;
            let found = encryption.get_device(own, device.into()).await?;
            Ok(found.context("no such device")?.verify().await?)
        })
    }

    /// Removes another device of the account, as a person does in the list of sessions.
    #[must_use]
    pub fn remove_device<'a>(
        &'a self,
        device: &'a str,
        password: &'a str,
    ) -> Boxed<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let devices = [device.into()];
            let Err(error) = self.client.delete_devices(&devices, None).await else {
                return Ok(());
            };
            let answer = error
                .as_uiaa_response()
                .context("the removal was refused")?;
            let mut auth = uiaa::Password::new(
                uiaa::UserIdentifier::Matrix(uiaa::MatrixUserIdentifier::new(self.user_id())),
                password.to_owned(),
            );
            auth.session.clone_from(&answer.session);
            self.client
                .delete_devices(&devices, Some(uiaa::AuthData::Password(auth)))
                .await?;
            Ok(())
        })
    }

    /// Replaces the account's cross-signing identity by a new one, as a user does who lost all keys, or an attacker who
    /// took over the account.
    #[must_use]
    pub fn replace_identity(&self, password: &str) -> Boxed<'_, anyhow::Result<()>> {
        let password = password.to_owned();
        Box::pin(async move {
            let encryption = self.client.encryption();
            if let Some(reset) = encryption.reset_cross_signing().await? {
                let CrossSigningResetAuthType::Uiaa(answer) = reset.auth_type() else {
                    bail!("the homeserver requires another kind of authentication");
                };
                let user = self.user_id();
                let mut password = uiaa::Password::new(
                    uiaa::UserIdentifier::Matrix(uiaa::MatrixUserIdentifier::new(user)),
                    password,
                );
                password.session.clone_from(&answer.session);
                reset.auth(Some(uiaa::AuthData::Password(password))).await?;
            }
            session::sync(&self.client, Duration::ZERO).await?;
            Ok(())
        })
    }

    /// Sends no more room keys to the devices of this user. It takes effect with the next room key, and only for a
    /// client without an identity: the other clients decide by signatures alone.
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
