//! Logging in, once, and the account's cross-signing identity.

use footbridge_store::{AccountFace, Store, StoreKey};

use super::{Boxed, MatrixConfig, MatrixError};
use crate::{clock::Clock, secret::Secret};

/// What a login needs.
pub struct Login<'a> {
    /// Where the session is kept.
    pub store: Store,
    /// The key of the SDK's stores.
    pub key: &'a StoreKey,
    /// `[matrix]`.
    pub config: MatrixConfig,
    /// The password.
    pub password: Secret,
    /// The recovery key, for an account that has an identity already.
    pub recovery_key: Option<Secret>,
    /// The one HTTP client.
    pub http: reqwest::Client,
    /// The time.
    pub clock: Clock,
    /// Told what is being done, one short line each.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// What a login made.
#[derive(Debug)]
pub struct LoggedIn {
    /// Who we are now.
    pub face: AccountFace,
    /// The recovery key, when this login made the account's identity: to be shown once.
    pub recovery_key: Option<Secret>,
}

/// Logs in with a password, keeps the session before anything else, makes or joins the account's cross-signing
/// identity and signs this device with it. Where an account is kept already it does not log in again: it
/// finishes what an earlier, interrupted login left undone.
pub fn login(with: Login<'_>) -> Boxed<'_, Result<LoggedIn, MatrixError>> {
    let _ = with;
    unimplemented!()
}
