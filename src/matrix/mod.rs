//! The Matrix side: one ordinary account on one device. The only room that awaits the SDK's futures; all it
//! hands out is boxed, so that nobody else compiles them again.

pub mod account;
mod client;
pub mod convert;
mod encryption;
mod fault;
#[cfg(feature = "testbed")]
pub mod person;

use std::{
    collections::HashMap, future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration,
};

use async_trait::async_trait;
use footbridge_store::{Copy, Millis, Place, Store, StoreKey};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    clock::Clock,
    inbox::Inbox,
    outlet::{Done, Outgoing, Outlet, Plan, SendError, Step},
};

/// A boxed future: what this side hands out.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// `[matrix]` of `config.toml`.
#[derive(Clone, Debug)]
pub struct MatrixConfig {
    /// The base URL, or a server name to be discovered.
    pub homeserver: Homeserver,
    /// `@bridge:example.org`
    pub user: ruma::OwnedUserId,
    /// Where `login` reads the password; it asks when absent.
    pub password_file: Option<PathBuf>,
    /// Where `login` reads the recovery key of an account that has a cross-signing identity already.
    pub recovery_key_file: Option<PathBuf>,
    /// The device's name as others see it.
    pub device_name: String,
    /// How long a lane waits for a missing key before it lets later messages pass.
    pub key_wait: Duration,
}

/// How the homeserver is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Homeserver {
    /// By URL.
    Url(Url),
    /// By server name, to be looked up in `.well-known`.
    Name(ruma::OwnedServerName),
}

/// Whose messages are relayed and who gets our keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Cross-signed devices only.
    #[default]
    CrossSigned,
    /// Every device.
    AnyDevice,
}

/// What went wrong on the Matrix side.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The homeserver no longer knows our session (B20).
    #[error("{0}")]
    SignedOut(String),
    /// Nobody is logged in.
    #[error("nobody is logged in")]
    NoAccount,
    /// User name or password are wrong, or the server does not offer this way of logging in.
    #[error("{0}")]
    Refused(String),
    /// The account has a cross-signing identity that we are not part of (B21), or the recovery key is wrong.
    #[error("{0}")]
    Identity(String),
    /// The room cannot be found or joined.
    #[error("{0}")]
    NoRoom(String),
    /// Our encryption store does not open with this key, or is another device's.
    #[error("{0}")]
    Keys(String),
    /// The homeserver cannot be reached, or does not speak Matrix. Worth trying again.
    #[error("{0:#}")]
    Unavailable(anyhow::Error),
    /// Our own store failed: the house must stop.
    #[error(transparent)]
    Store(#[from] footbridge_store::Error),
}

/// The running account.
pub struct Matrix;

impl Matrix {
    /// Restores the session kept in the store: opens the SDK's stores in the store's directory, puts our cursor
    /// over the SDK's, then restores. Never logs in. Needs no network.
    pub fn open(
        store: Store,
        key: &StoreKey,
        config: MatrixConfig,
        trust: Trust,
        http: reqwest::Client,
        clock: Clock,
    ) -> Boxed<'_, Result<Arc<Self>, MatrixError>> {
        let _ = (store, key, config, trust, http, clock);
        unimplemented!()
    }

    /// Finds a room by alias or id.
    pub fn resolve<'a>(&'a self, room: &'a str) -> Boxed<'a, Result<Place, MatrixError>> {
        let _ = room;
        unimplemented!()
    }

    /// Follows the account until told to stop: accepts invites to these rooms, refuses others, takes in their
    /// messages. Returns early only when it cannot go on by itself.
    pub fn listen(
        &self,
        rooms: Vec<Place>,
        inbox: Inbox,
        stop: CancellationToken,
    ) -> Boxed<'_, Result<(), MatrixError>> {
        let _ = (rooms, inbox, stop);
        unimplemented!()
    }

    /// When the last sync was answered, if any was.
    #[must_use]
    pub fn last_sync(&self) -> Option<Millis> {
        unimplemented!()
    }

    /// Per room: whether it is encrypted, as far as the SDK knows.
    pub fn encryption(&self) -> Boxed<'_, HashMap<Place, bool>> {
        unimplemented!()
    }
}

#[async_trait]
impl Outlet for Matrix {
    fn plan(&self, _outgoing: &Outgoing, _now: Millis) -> Result<Plan, SendError> {
        unimplemented!()
    }
    async fn perform(&self, _to: &Place, _key: &str, _step: &Step) -> Result<Done, SendError> {
        unimplemented!()
    }
    fn dedupes(&self) -> bool {
        true
    }
    async fn recall(
        &self,
        _to: &Place,
        _step: &Step,
        _since: Millis,
    ) -> Result<Vec<Copy>, SendError> {
        Ok(Vec::new())
    }
    fn settle(&self) -> Duration {
        Duration::ZERO
    }
}
