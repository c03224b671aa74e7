//! Which devices get room keys. The SDK shares with every device that its owner's identity has signed, whichever
//! identity the homeserver shows. While the SDK shares, this store returns only devices that the pinned identity has
//! signed; for users of whom no other identity was ever seen, nothing is checked.

use std::collections::HashMap;

use matrix_sdk_crypto::{
    DeviceData, LocalTrust, UserIdentityData,
    store::{CryptoStore as _, types::IdentityChanges},
};
use ruma::{OwnedDeviceId, UserId};

use super::{BufferedCryptoStore, Error, Result};
use crate::identity_pins::IdentityPins;

tokio::task_local! {
    /// Set during a send, which is when room keys are shared.
    static SHARING: ();
}

/// Runs a send of the SDK so that its room key goes to devices of pinned identities only.
pub(crate) fn sharing<F: Future>(send: F) -> impl Future<Output = F::Output> {
    SHARING.scope((), send)
}

/// Whether the caller runs inside of a send.
fn is_sharing() -> bool {
    SHARING.try_with(|()| ()).is_ok()
}

/// The public master key of an identity.
fn master_key(identity: &UserIdentityData) -> Option<String> {
    Some(identity.master_key().get_first_key()?.to_base64())
}

impl BufferedCryptoStore {
    /// The pinned identity of each user.
    pub(crate) fn pins(&self) -> &IdentityPins {
        &self.pins
    }

    /// Compares the pinned identities with the stored ones: one may have been stored by a process that did not compare.
    pub(crate) async fn check_pinned_identities(&self) -> Result<()> {
        for user in self.pins.users() {
            self.check_identity(&user).await?;
        }
        Ok(())
    }

    /// Compares a user's pinned identity with the stored one.
    pub(crate) async fn check_identity(&self, user: &str) -> Result<()> {
        let Ok(id) = <&UserId>::try_from(user) else {
            return Ok(());
        };
        match self.inner.get_user_identity(id).await? {
            Some(identity) => self.see(&[named(&identity)]).await,
            None => Ok(()),
        }
    }

    /// Records which of these identities differ from the pinned ones. Called before they are stored, so that none is
    /// used before it is recorded, and again after, for a user whose first identity was pinned meanwhile.
    pub(super) async fn see(&self, identities: &[(String, Option<String>)]) -> Result<()> {
        for (user, key) in identities {
            if let Some(key) = key {
                let recorded = self.pins.see(user, key).await;
                recorded.map_err(|error| Error::InvalidData {
                    details: format!("an identity could not be recorded: {error}"),
                })?;
            }
        }
        Ok(())
    }

    /// A user's devices as this caller may see them: during a send, devices that must not get a room key are
    /// blacklisted.
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

    /// Blacklists devices, so that they get no room key: all of them, unless the pinned identity has signed them. The
    /// devices were read before the check for another identity, so that none passes that the other identity has signed.
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
        let trusted = shown.filter(|shown| pinned.is_some() && master_key(shown) == pinned);
        for device in devices.values_mut() {
            let keys = device.as_device_keys();
            let signed = trusted.as_ref().is_some_and(|identity| {
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

/// The identities in a change: user, public master key.
pub(super) fn shown(changes: &IdentityChanges) -> Vec<(String, Option<String>)> {
    let shown = changes.new.iter().chain(&changes.changed);
    shown.map(named).collect()
}

fn named(identity: &UserIdentityData) -> (String, Option<String>) {
    (identity.user_id().to_string(), master_key(identity))
}
