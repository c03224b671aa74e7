//! Silos: chat networks without Matrix. Each kind is a folder, a line of [`KINDS`] and one call of the contract in the tests.

mod account;
pub mod capabilities;
mod request_error;
mod rest;
mod reconnect;
mod url_scanner;
mod echoes;
pub(crate) mod framing;
mod feed_health;
mod backfill;
pub mod config;
pub mod markdown;
mod circuit_breaker;
mod server_clock;
mod shortcodes;
mod websocket;
pub mod gitter;
pub mod matterbridge;
pub mod mattermost;
#[cfg(any(test, feature = "testbed"))]
pub mod reference;
#[cfg(any(test, feature = "testbed"))]
pub mod fuzz;

pub use account::Account;

use std::{any::Any, fmt, sync::Arc};

use async_trait::async_trait;
use footbridge_core::{
    clock::Clock,
    inbox::Inbox,
    outlet::Outlet,
    room_profile::{ProfileField, RoomProfile},
};
use footbridge_store::Place;
use tokio_util::sync::CancellationToken;

/// A channel as the silo knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its place; a new name of the channel does not change it.
    pub place: Place,
    /// Its present name.
    pub name: String,
    /// How many messages from before its first listening are relayed as backfill.
    pub backfill: usize,
}

impl Channel {
    /// Each place once, in the given order: several portals may link rooms to one channel, which is listened to once.
    /// The largest backfill of them counts.
    #[must_use]
    pub fn distinct(channels: Vec<Self>) -> Vec<Self> {
        let mut distinct: Vec<Self> = Vec::with_capacity(channels.len());
        for channel in channels {
            let mut known = distinct.iter_mut();
            match known.find(|known| known.place == channel.place) {
                Some(known) => known.backfill = known.backfill.max(channel.backfill),
                None => distinct.push(channel),
            }
        }
        distinct
    }
}

/// Why a silo cannot continue by itself.
#[derive(Debug, thiserror::Error)]
pub enum SiloError {
    /// The silo refuses the account's token: the operator must give the bridge a new one.
    #[error("{0}")]
    SignedOut(String),
    /// The channel does not exist, or the account may not see it.
    #[error("{0}")]
    NoChannel(String),
    /// The silo cannot be reached or gives an unexpected response. Worth retrying.
    #[error("{}", footbridge_core::error_chain::format(.0.as_ref()))]
    Unavailable(anyhow::Error),
    /// The bridge's own store failed: the process must end.
    #[error(transparent)]
    Store(#[from] footbridge_store::Error),
}

/// A chat network without Matrix.
#[async_trait]
pub trait Silo: Outlet {
    /// The account's name in the silo; proves that the token works.
    async fn whoami(&self) -> Result<String, SiloError>;

    /// Finds a channel by the name in the configuration and checks that the account may read and write there. The account joins it
    /// where that is needed and nobody has to allow it.
    async fn resolve(&self, channel: &str) -> Result<Channel, SiloError>;

    /// The same, but changes nothing: the account need not be a member where it could join.
    async fn look_up(&self, channel: &str) -> Result<Channel, SiloError> {
        self.resolve(channel).await
    }

    /// Whether a channel that [`Silo::resolve`] returns is known to exist. Where the silo cannot tell, `resolve`
    /// accepts every name.
    fn knows_channels(&self) -> bool {
        true
    }

    /// The account: whether the silo accepts it, and the state of its feed.
    fn account(&self) -> &Account;

    /// Listens to these channels until `stop`: catches up from the stored cursors, then follows the live feed. The silo
    /// reconnects by itself. Returns early only when it cannot continue by itself. A channel may be listed once per
    /// portal; it is listened to once (see [`Channel::distinct`]). Before a channel is read, the newest link barrier is noted
    /// ([`footbridge_store::Store::newest_link_barrier`]); it is lifted when everything up to the end has been accepted.
    async fn listen(
        &self,
        channels: Vec<Channel>,
        inbox: Inbox,
        stop: CancellationToken,
    ) -> Result<(), SiloError>;

    /// Who can read a channel, given by its name.
    async fn audience(&self, _channel: &str) -> Audience {
        Audience::default()
    }

    /// The message with exactly this text among the newest of a channel, which need not be listened to. The bridge
    /// polls it while somebody has to prove that they may decide about the channel.
    async fn find_code(&self, _channel: &Place, _code: &str) -> Result<Option<Poster>, SiloError> {
        Ok(None)
    }

    /// The name, topic and avatar of a channel.
    async fn room_profile(&self, _channel: &Place) -> Result<RoomProfile, SiloError> {
        Ok(RoomProfile::default())
    }

    /// Changes a field of the profile that [`Silo::room_profile`] returns.
    async fn set_profile_field(
        &self,
        _channel: &Place,
        _field: ProfileField,
        _value: &str,
    ) -> Result<(), SiloError> {
        Err(SiloError::Unavailable(anyhow::anyhow!(
            "this silo does not allow the change"
        )))
    }

    /// The state of the feed, for `/health/ready` and `status`.
    fn feed(&self) -> FeedState {
        self.account().health.state()
    }

    /// The addresses of its channels that are closed to the account. The others continue.
    fn closed_channels(&self) -> Vec<String> {
        self.account().health.closed()
    }

    /// The addresses of the channels that are closed to the account or not caught up.
    fn waiting(&self) -> Vec<String> {
        self.account().health.waiting()
    }
}

/// Who can read a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Whether everybody can; `None` when unknown.
    pub public: Option<bool>,
    /// Who runs the silo: a name or a host.
    pub operator: String,
}

/// Who posted a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poster {
    /// The name that the silo shows.
    pub name: String,
    /// Whether they are an admin of the channel; `None` where the silo does not tell.
    pub is_admin: Option<bool>,
}

/// The state of a silo's feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedState {
    /// Messages arrive as they are written.
    Live,
    /// Catching up, or reconnecting.
    Connecting,
    /// The operator must act.
    Down,
}

/// A silo that runs.
pub type AnySilo = Arc<dyn Silo>;

/// A `[[silo]]` of any kind.
pub type AnySiloConfig = Arc<dyn SiloConfig>;

/// The register of silos: one line per kind.
pub static KINDS: &[&capabilities::SiloKind] =
    &[&gitter::KIND, &matterbridge::KIND, &mattermost::KIND];

/// What a `[[silo]]` says.
pub trait SiloConfig: Any + fmt::Debug + Send + Sync {
    /// The name that portals call it by.
    fn name(&self) -> &str;

    /// Its kind.
    fn kind(&self) -> &'static capabilities::SiloKind;

    /// The silo. Nothing is requested yet.
    fn build(&self, http: &reqwest::Client, clock: Clock) -> anyhow::Result<AnySilo>;
}

#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod plans_tests;
