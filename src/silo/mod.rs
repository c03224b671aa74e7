//! Silos: connected chat networks. Each is a folder, a line of [`KINDS`] and one call of the contract in the tests.

pub mod capabilities;
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
pub mod plan;
mod sign_out_log;
mod websocket;
pub mod gitter;
pub mod matterbridge;
pub mod mattermost;
#[cfg(any(test, feature = "testbed"))]
pub mod reference;
#[cfg(any(test, feature = "testbed"))]
pub mod fuzz;

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
    /// Where it is, for ever, whatever it is renamed to.
    pub place: Place,
    /// Its present name.
    pub name: String,
    /// How many of the messages that it has already are brought along when it is first listened to.
    pub backfill: usize,
}

impl Channel {
    /// Each place once, in the order in which they come: several portals may join rooms to one channel, which is
    /// listened to once. The longest history that one of them asks for is brought along.
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

/// Why a silo cannot go on by itself.
#[derive(Debug, thiserror::Error)]
pub enum SiloError {
    /// The account's token is no longer good. Somebody must give us a new one.
    #[error("{0}")]
    SignedOut(String),
    /// The channel does not exist, or we may not see it.
    #[error("{0}")]
    NoChannel(String),
    /// The silo cannot be reached or does not answer as it should. Worth trying again.
    #[error("{}", footbridge_core::error_chain::format(.0.as_ref()))]
    Unavailable(anyhow::Error),
    /// Our own store failed: the house must stop.
    #[error(transparent)]
    Store(#[from] footbridge_store::Error),
}

/// A connected chat network.
#[async_trait]
pub trait Silo: Outlet {
    /// Who we are there; proves that the token works.
    async fn whoami(&self) -> Result<String, SiloError>;

    /// Finds a channel by the name in the configuration and makes sure that we may read and write there.
    async fn resolve(&self, channel: &str) -> Result<Channel, SiloError>;

    /// Whether a channel that [`Silo::resolve`] answers is known to be there. Where the silo tells nobody, every name is
    /// taken.
    fn knows_channels(&self) -> bool {
        true
    }

    /// Whether the account's token was refused.
    fn is_signed_out(&self) -> bool;

    /// The token that was refused is accepted again, as [`Silo::whoami`] has shown: lanes and listeners may use it.
    fn note_signed_in(&self);

    /// Nothing has refused the account for a while since [`Silo::signed_in`]: the next refusal is news.
    fn note_stable(&self);

    /// Follows these channels until told to stop: catches up from the stored cursors, then live. Reconnecting
    /// is the silo's business. Returns early only when it cannot go on by itself. A channel may be listed more than
    /// once, once for each portal; it is followed once (see [`Channel::distinct`]).
    async fn listen(
        &self,
        channels: Vec<Channel>,
        inbox: Inbox,
        stop: CancellationToken,
    ) -> Result<(), SiloError>;

    /// Who can read a channel, by its name.
    async fn audience(&self, _channel: &str) -> Audience {
        Audience::default()
    }

    /// The message with exactly this text among the newest of a channel, which need not be followed. Asked for now and
    /// then while somebody has to show that they may decide about the channel.
    async fn find_code(&self, _channel: &Place, _code: &str) -> Result<Option<Poster>, SiloError> {
        Ok(None)
    }

    /// What stands at the head of a channel.
    async fn room_profile(&self, _channel: &Place) -> Result<RoomProfile, SiloError> {
        Ok(RoomProfile::default())
    }

    /// Writes something else there, where [`Silo::facts`] knows it.
    async fn set_profile_field(
        &self,
        _channel: &Place,
        _fact: ProfileField,
        _value: &str,
    ) -> Result<(), SiloError> {
        Err(SiloError::Unavailable(anyhow::anyhow!(
            "it cannot be changed there"
        )))
    }

    /// Whether the feed is alive, for `/health/ready` and `status`.
    fn feed(&self) -> FeedState;

    /// The addresses of its channels that are closed to us. The others go on.
    fn closed_channels(&self) -> Vec<String> {
        Vec::new()
    }

    /// How many these are.
    fn closed(&self) -> usize {
        self.closed_channels().len()
    }

    /// The addresses of the channels that are closed to us or not caught up with, where the silo knows them one by one.
    fn waiting(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Who can read a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Whether everybody can; `None` when that is not known.
    pub public: Option<bool>,
    /// Who runs the silo: a name or a host.
    pub operator: String,
}

/// Who has posted a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poster {
    /// The name people see there.
    pub name: String,
    /// Whether they are an admin of the channel; `None` where the silo does not tell who is.
    pub is_admin: Option<bool>,
}

/// How a silo's feed is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedState {
    /// Messages arrive as they are written.
    Live,
    /// Catching up, or connecting again.
    Connecting,
    /// It needs a person.
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
