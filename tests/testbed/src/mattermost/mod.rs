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
mod faults;
mod records;
mod rest;
mod socket;
mod world;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use crate::gitter::{Cut, Fault};
pub use faults::Faults;
pub use records::{Channel, File, Post, Team, User};

use self::world::World;
use crate::gitter::connections::{CuttableListener, OpenConnections, Switch};

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
    connections: OpenConnections,
    calls: Mutex<BTreeMap<String, u64>>,
    stop: CancellationToken,
}

struct SimInner {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// The server task; `None` while the port is closed.
    server: Mutex<Option<JoinHandle<()>>>,
    _stop: DropGuard,
}

/// A running simulator. Clones share it; it stops with the last one.
#[derive(Clone)]
pub struct MattermostSim(Arc<SimInner>);

async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("listening on port {port} for the Mattermost simulator"))
}

impl MattermostSim {
    /// Starts listening on the loopback interface.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let listener = bind(options.port).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            world: World::new(&options),
            faults: Faults::default(),
            connections: OpenConnections::default(),
            calls: Mutex::default(),
            stop: stop.clone(),
            options,
        });
        let sim = Self(Arc::new(SimInner {
            shared,
            address,
            server: Mutex::default(),
            _stop: stop.drop_guard(),
        }));
        sim.serve(listener);
        Ok(sim)
    }

    fn serve(&self, inner: TcpListener) {
        let shared = Arc::clone(&self.0.shared);
        let listener = CuttableListener {
            inner,
            connections: shared.connections.clone(),
        };
        let router = rest::router(Arc::clone(&shared));
        let service = router.into_make_service_with_connect_info::<Switch>();
        let server = tokio::spawn(async move {
            let server = axum::serve(listener, service);
            let stop = shared.stop.clone();
            // Cancelled, or an error that nobody could handle: in both cases no connection outlives its port.
            drop(stop.run_until_cancelled(async move { server.await }).await);
            shared.connections.cut_all(Cut::Close);
        });
        *self.server() = Some(server);
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.0.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an outage: the port closes and every connection drops. Users keep writing, as on another node.
    pub async fn stop_listening(&self) {
        let server = self.server().take();
        if let Some(server) = server {
            server.abort();
            // The task was aborted, so it has no result.
            drop(server.await);
        }
        self.0.shared.connections.cut_all(Cut::Close);
    }

    /// Ends an outage, on the same port. The server loses what it has in memory only.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop_listening().await;
        self.0.shared.world.forget_pending();
        self.serve(bind(self.0.address.port()).await?);
        Ok(())
    }

    /// The base URL, which `/api/v4/…` follows.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// The faults that a test can inject.
    pub fn faults(&self) -> &Faults {
        &self.0.shared.faults
    }

    /// Cuts every open connection; returns how many there were.
    pub fn cut(&self, how: Cut) -> usize {
        self.0.shared.connections.cut_all(how)
    }

    /// The number of calls per route since the start, such as `POST posts`.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.0.shared.calls().clone()
    }

    /// The number of open WebSocket connections that are authenticated.
    pub fn open_sockets(&self) -> usize {
        self.0.shared.world.open_sockets()
    }
}

impl Shared {
    fn calls(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, route: &str) {
        *self.calls().entry(route.to_owned()).or_insert(0) += 1;
    }
}
