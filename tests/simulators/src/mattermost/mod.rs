//! A Mattermost simulator, as an account of a server sees one: the REST API of version 4, the WebSocket, and their
//! quirks, as observed on a 5.37 server. Tests call its methods to make its users act.

#![expect(
    clippy::must_use_candidate,
    reason = "a test may ignore what a call returns"
)]
#![expect(
    clippy::indexing_slicing,
    reason = "a key that a JSON value does not have reads as null"
)]

mod actions;
pub mod channel;
mod faults;
mod records;
mod rest;
mod socket;
mod world;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

pub use crate::{call_faults::Fault, connections::Cut};
pub use channel::{MattermostChannel, SIMULATOR};
pub use faults::Faults;
pub use records::{Channel, File, Post, Team, User};

use self::world::World;
use crate::server::{Calls, Server};

/// The longest message, in Unicode scalars.
pub const LONGEST: usize = 16_383;

/// The options of a simulated server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether apps show `override_username` and `override_icon_url` (`EnablePostUsernameOverride`).
    pub overrides: bool,
    /// Whether posts of users with such fields are refused (`ExperimentalEnableHardenedMode`).
    pub hardened: bool,
    /// How long a post may be edited; `None` is without a limit.
    pub edit_limit: Option<Duration>,
    /// How long the server remembers a `pending_post_id`.
    pub remembered: Duration,
    /// Calls per second, and how many at once; `None` is without a limit.
    pub rate_limit: Option<(u32, u32)>,
    /// The largest number of rows in a response to `since`.
    pub since_cap: usize,
    /// The largest file that is accepted, in bytes.
    pub largest_file: usize,
    /// Whether reactions that are no emoji's name are refused, as newer servers do.
    pub knows_emoji: bool,
    /// The port; 0 takes a free one.
    pub port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            overrides: false,
            hardened: false,
            edit_limit: None,
            remembered: Duration::from_secs(30),
            rate_limit: None,
            since_cap: 1_000,
            largest_file: 100 << 20,
            knows_emoji: false,
            port: 0,
        }
    }
}

/// The state that all parts of the simulator share.
struct Shared {
    options: Options,
    world: World,
    faults: Faults,
    calls: Calls,
    stop: CancellationToken,
}

struct SimInner {
    shared: Arc<Shared>,
    server: Server,
}

/// A running simulator. Clones share it; it stops with the last one.
#[derive(Clone)]
pub struct MattermostSim(Arc<SimInner>);

impl MattermostSim {
    /// Starts listening on the loopback interface.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let (port, stop) = (options.port, CancellationToken::new());
        let shared = Arc::new(Shared {
            world: World::new(&options),
            faults: Faults::default(),
            calls: Calls::default(),
            stop: stop.clone(),
            options,
        });
        let server = Server::start(port, rest::router(Arc::clone(&shared)), stop).await?;
        Ok(Self(Arc::new(SimInner { shared, server })))
    }

    /// Begins an outage: the port closes and every connection drops. Users keep writing, as on another node.
    pub async fn stop_listening(&self) {
        self.0.server.stop_listening().await;
    }

    /// Ends an outage, on the same port. The server loses what it has in memory only.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop_listening().await;
        self.0.shared.world.forget_pending();
        self.0.server.restart().await
    }

    /// The base URL, which `/api/v4/…` follows.
    pub fn url(&self) -> String {
        self.0.server.url()
    }

    /// The faults that a test can inject.
    pub fn faults(&self) -> &Faults {
        &self.0.shared.faults
    }

    /// Cuts every open connection; returns how many there were.
    pub fn cut(&self, how: Cut) -> usize {
        self.0.server.cut(how)
    }

    /// The number of calls per route since the start, such as `POST posts`.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.0.shared.calls.all()
    }

    /// The number of open WebSocket connections that are authenticated.
    pub fn open_sockets(&self) -> usize {
        self.0.shared.world.open_sockets()
    }
}
