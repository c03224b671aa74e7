//! Our Matrix account: one user on one device, with its sealed session.

use crate::{AccountFace, Error, Millis, Store};

/// A secret in memory: wiped when dropped, prints nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The account with its secrets opened.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who it is.
    pub face: AccountFace,
    /// The session as the Matrix side wrote it.
    pub session: Secret,
    /// The recovery key, once there is one.
    pub recovery_key: Option<Secret>,
}

impl Store {
    /// The account, if one is logged in.
    pub async fn account(&self) -> Result<Option<Account>, Error> {
        unimplemented!()
    }

    /// Keeps a fresh login. There can be only one account: a second is an error of the caller and replaces
    /// nothing (returns `false`).
    pub async fn save_account(
        &self,
        face: &AccountFace,
        session: &Secret,
        now: Millis,
    ) -> Result<bool, Error> {
        let _ = (face, session, now);
        unimplemented!()
    }

    /// Keeps a refreshed session.
    pub async fn save_session(&self, session: &Secret) -> Result<(), Error> {
        let _ = session;
        unimplemented!()
    }

    /// Keeps the recovery key.
    pub async fn save_recovery_key(&self, key: &Secret) -> Result<(), Error> {
        let _ = key;
        unimplemented!()
    }

    /// Keeps what `device show` prints.
    pub async fn save_fingerprints(
        &self,
        ed25519: &str,
        master_key: Option<&str>,
    ) -> Result<(), Error> {
        let _ = (ed25519, master_key);
        unimplemented!()
    }

    /// Forgets the account (after logout). Journal, outbox and links stay.
    pub async fn forget_account(&self) -> Result<(), Error> {
        unimplemented!()
    }
}
