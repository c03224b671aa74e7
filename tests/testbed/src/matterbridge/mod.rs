//! A Matterbridge simulator, as a client of its HTTP API sees one: the buffer, the stream, the WebSocket, posting, and
//! their quirks. Instead of the networks behind its gateways, tests call [`MatterbridgeSim::say`].

#![expect(
    clippy::must_use_candidate,
    reason = "a test may ignore what a call returns"
)]

mod faults;
mod message;
mod rest;
mod socket;
mod stream;
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
pub use message::Message;

use self::world::World;
use crate::gitter::connections::{CuttableListener, OpenConnections, Switch};

/// The options of a simulator. The defaults are Matterbridge's own.
#[derive(Clone, Debug)]
pub struct Options {
    /// `Token=` of the API account.
    pub token: Option<String>,
    /// The name of the API account.
    pub account: String,
    /// `Buffer=`: how many messages the buffer holds.
    pub buffer: usize,
    /// The gateways that exist.
    pub gateways: Vec<String>,
    /// How often the stream reads the buffer.
    pub pace: Duration,
    /// The interval of WebSocket pings.
    pub ping: Duration,
    /// The port; 0 takes a free one.
    pub port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            account: "api.footbridge".to_owned(),
            buffer: world::DEFAULT_BUFFER,
            gateways: vec!["gateway1".to_owned()],
            pace: Duration::from_millis(100),
            ping: Duration::from_secs(54),
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
pub struct MatterbridgeSim(Arc<SimInner>);

async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("listening on port {port} for the Matterbridge simulator"))
}

impl MatterbridgeSim {
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

    /// Begins an outage of the network: the port closes and every connection drops. Matterbridge keeps running, users write,
    /// and its buffer fills.
    pub async fn stop_listening(&self) {
        let server = self.server().take();
        if let Some(server) = server {
            server.abort();
            // The task was aborted, so it has no result.
            drop(server.await);
        }
        self.0.shared.connections.cut_all(Cut::Close);
    }

    /// Ends an outage, on the same port.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop_listening().await;
        self.serve(bind(self.0.address.port()).await?);
        Ok(())
    }

    /// The base URL, which `/api/…` follows.
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

    /// Sets another token of the API account; open connections stay.
    pub fn set_token(&self, token: Option<&str>) {
        self.0.shared.world.set_token(token);
    }

    /// A user in one of the networks sends a message. Returns it as the API account gets it, without a time if it is
    /// not sent: because the API omits such events, or because another message is sent first.
    pub fn say(&self, message: Message) -> Message {
        self.0.shared.world.say(message, &self.0.shared.faults)
    }

    /// The posted messages that were accepted by an existing gateway, in order.
    pub fn posted(&self) -> Vec<Message> {
        self.0.shared.world.posted()
    }

    /// How many posts got a 200 and were dropped.
    pub fn dropped(&self) -> usize {
        self.0.shared.world.dropped()
    }

    /// The messages that the buffer dropped before any client received them: the API's own loss.
    pub fn overwritten(&self) -> Vec<Message> {
        self.0.shared.world.overwritten()
    }

    /// The messages that a reader took out of the buffer less than two seconds before it disconnected: it had the only
    /// copy.
    pub fn handed_out(&self) -> Vec<Message> {
        self.0.shared.world.handed_out()
    }

    /// How many messages are in the buffer.
    pub fn buffered(&self) -> usize {
        self.0.shared.world.buffered()
    }

    /// The number of open WebSocket connections.
    pub fn open_sockets(&self) -> usize {
        self.0.shared.world.open_sockets()
    }

    /// The number of calls per route since the start, such as `POST message`.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.0.shared.calls().clone()
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
