//! What can go wrong on the Matrix side, as the rest of the house sees it.

use std::path::PathBuf;

/// What went wrong on the Matrix side.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The homeserver no longer knows our session (B20).
    #[error("{0}")]
    SignedOut(String),
    /// Nobody is logged in.
    #[error("nobody is logged in")]
    NoAccount,
    /// User name or password are wrong.
    #[error("{0}")]
    Refused(String),
    /// The server does not let passwords in; what it offers instead, in words.
    #[error("the homeserver does not offer login by password")]
    PasswordLoginDisabled(String),
    /// The account has a cross-signing identity that we are not part of (B21), or the recovery key is wrong.
    #[error("{0}")]
    Identity(String),
    /// The room cannot be found or joined.
    #[error("{0}")]
    NoRoom(String),
    /// One of the SDK's databases is gone or empty.
    #[error("the database {path} is gone or empty", path = .0.display())]
    DatabaseMissing(PathBuf),
    /// The store is that of another account than the configured one (B16).
    #[error("the store belongs to {store}, the configuration names {configured}")]
    WrongAccount {
        /// Whose the store is.
        store: String,
        /// Who is configured.
        configured: String,
    },
    /// The store is older than what the homeserver knows of its device (B22): it must never be used again.
    #[error("{0}")]
    StaleStore(String),
    /// Another Footbridge uses a copy of this store, at another place (B19).
    #[error("{0}")]
    StoreInUse(String),
    /// Our encryption store does not open with this key, or is another device's.
    #[error("{0}")]
    CryptoStore(String),
    /// The homeserver cannot be reached, or does not speak Matrix. Worth trying again.
    #[error("{}", footbridge_core::error_chain::format(.0.as_ref()))]
    Unavailable(anyhow::Error),
    /// Our own store failed: the house must stop.
    #[error(transparent)]
    Store(#[from] footbridge_store::Error),
}
