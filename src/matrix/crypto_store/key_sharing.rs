//! Whose devices get room keys. The SDK shares with every device that its owner's identity has signed, whichever
//! identity the homeserver shows. Here it finds, while it shares, only those of an identity that is believed; of users
//! of whom no other identity was ever seen, nothing is looked at.

use std::collections::HashMap;

use matrix_sdk_crypto::{
    DeviceData, LocalTrust, UserIdentityData,
    store::{CryptoStore as _, types::IdentityChanges},
};
use ruma::{OwnedDeviceId, UserId};

use super::{BufferedCryptoStore, Error, Result};
use crate::identity_pins::IdentityPins;

tokio::task_local! {
    /// Set where something is sent, which is where room keys are shared.
    static SHARING: ();
}

/// Runs a send of the SDK so that its room key goes to believed identities only.
pub(crate) fn sharing<F: Future>(send: F) -> impl Future<Output = F::Output> {
    SHARING.scope((), send)
}

/// Whether this is asked by a send.
fn is_sharing() -> bool {
    SHARING.try_with(|()| ()).is_ok()
}

/// The public master key of an identity.
fn master_key(identity: &UserIdentityData) -> Option<String> {
    Some(identity.master_key().get_first_key()?.to_base64())
}

impl BufferedCryptoStore {
    /// By which identity each user is believed.
    pub(crate) fn pins(&self) -> &IdentityPins {
        &self.pins
    }

    /// Compares the identities that are believed with those that are stored: one may have been stored by a process that
    /// did not look.
    pub(crate) async fn check_pinned_identities(&self) -> Result<()> {
        for user in self.pins.users() {
            self.check_identity(&user).await?;
        }
        Ok(())
    }

    /// Compares the identity by which a user is believed with the one that is stored.
    pub(crate) async fn check_identity(&self, user: &str) -> Result<()> {
        let Ok(id) = <&UserId>::try_from(user) else {
            return Ok(());
        };
        match self.inner.get_user_identity(id).await? {
            Some(identity) => self.see(&[named(&identity)]).await,
            None => Ok(()),
        }
    }

    /// Notes which of these identities are not the ones that are believed. Called before they are stored, so that none
    /// is used before it is noted, and after, for a user whose first identity was believed meanwhile.
    pub(super) async fn see(&self, identities: &[(String, Option<String>)]) -> Result<()> {
        for (user, key) in identities {
            if let Some(key) = key {
                let seen = self.pins.see(user, key).await;
                seen.map_err(|error| Error::InvalidData {
                    details: format!("an identity cannot be noted: {error}"),
                })?;
            }
        }
        Ok(())
    }

    /// A user's devices as the one who asks may see them: a send sees none that would get a room key and must not.
    pub(super) async fn devices_for_sharing(
        &self,
        user: &UserId,
    ) -> Result<HashMap<OwnedDeviceId, DeviceData>> {
        let mut devices = self.current_devices(user).await?;
        if is_sharing() {
            self.withhold(user, &mut devices).await?;
        }
        Ok(devices)
    }

    /// Takes from devices what would get them a room key: all of them, unless the identity that is believed has signed
    /// them. The devices were read before it is asked whether another identity was seen, so that none passes that the
    /// other one has signed.
    async fn withhold(
        &self,
        user: &UserId,
        devices: &mut HashMap<OwnedDeviceId, DeviceData>,
    ) -> Result<()> {
        if !self.pins.has_changed(user.as_str()) {
            return Ok(());
        }
        let pinned = self.pins.pinned_key(user.as_str());
        let shown = self.inner.get_user_identity(user).await?;
        let believed = shown.filter(|shown| pinned.is_some() && master_key(shown) == pinned);
        for device in devices.values_mut() {
            let keys = device.as_device_keys();
            let signed = believed.as_ref().is_some_and(|identity| {
                let key = identity.self_signing_key();
                key.verify_device_keys(keys).is_ok()
            });
            if !signed {
                let mut keys = keys.clone();
                keys.signatures.clear();
                *device = DeviceData::new(keys, LocalTrust::BlackListed);
            }
        }
        Ok(())
    }
}

/// The identities that a change brings: user, public master key.
pub(super) fn shown(changes: &IdentityChanges) -> Vec<(String, Option<String>)> {
    let shown = changes.new.iter().chain(&changes.changed);
    shown.map(named).collect()
}

fn named(identity: &UserIdentityData) -> (String, Option<String>) {
    (identity.user_id().to_string(), master_key(identity))
}
