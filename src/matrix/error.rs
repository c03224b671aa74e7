//! Errors of the Matrix side, as the other packages see them.

use std::path::PathBuf;

/// An error of the Matrix side.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The homeserver no longer accepts the session (B20).
    #[error("{0}")]
    SignedOut(String),
    /// Nobody is logged in.
    #[error("nobody is logged in")]
    NoAccount,
    /// The user name or the password is wrong.
    #[error("{0}")]
    Refused(String),
    /// The homeserver does not offer login by password; the text names what it offers instead.
    #[error("the homeserver does not offer login by password")]
    PasswordLoginDisabled(String),
    /// The account has a cross-signing identity that has not signed this device (B21), or the recovery key is wrong.
    #[error("{0}")]
    Identity(String),
    /// The room cannot be found or joined.
    #[error("{0}")]
    NoRoom(String),
    /// One of the SDK's databases is missing or empty.
    #[error("the database {path} is missing or empty", path = .0.display())]
    DatabaseMissing(PathBuf),
    /// The store belongs to another account than the configured one (B16).
    #[error("the store belongs to {store}, the configuration names {configured}")]
    WrongAccount {
        /// The account of the store.
        store: String,
        /// The configured account.
        configured: String,
    },
    /// The store is older than what the homeserver knows of its device (B22): it must never be used again.
    #[error("{0}")]
    StaleStore(String),
    /// Another process uses a copy of this store in another place (B19).
    #[error("{0}")]
    StoreInUse(String),
    /// The crypto store does not open with this key, or belongs to another device.
    #[error("{0}")]
    CryptoStore(String),
    /// The homeserver cannot be reached, or does not speak Matrix. Worth retrying.
    #[error("{}", footbridge_core::error_chain::format(.0.as_ref()))]
    Unavailable(anyhow::Error),
    /// The bridge's own store failed: the bridge must stop.
    #[error(transparent)]
    Store(#[from] footbridge_store::Error),
}
