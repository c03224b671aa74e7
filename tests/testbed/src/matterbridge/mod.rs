//! A Matterbridge as a client of its HTTP API sees one: the buffer, the stream, the WebSocket, posting, and all that is odd about them.
//! What stands behind its gateways is whoever calls [`MatterbridgeSim::say`].

#![expect(
    clippy::must_use_candidate,
    reason = "a test may say something and not care for what comes back"
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

/// What a simulator is started with. The defaults are Matterbridge's own.
#[derive(Clone, Debug)]
pub struct Options {
    /// `Token=` of the API account.
    pub token: Option<String>,
    /// What the API account is called.
    pub account: String,
    /// `Buffer=`: how many messages are kept.
    pub buffer: usize,
    /// The gateways that exist.
    pub gateways: Vec<String>,
    /// How often the stream looks into the buffer.
    pub pace: Duration,
    /// How often the WebSocket is pinged.
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

/// What everyone in the simulator shares.
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
    /// The server; nothing while it does not listen.
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
            // Cancelled, or an error nobody could act on: either way no connection outlives its port.
            drop(stop.run_until_cancelled(async move { server.await }).await);
            shared.connections.cut_all(Cut::Close);
        });
        *self.server() = Some(server);
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.0.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An outage of the way there: the port closes and every connection drops. Matterbridge goes on, people talk, and its buffer fills.
    pub async fn stop_listening(&self) {
        let server = self.server().take();
        if let Some(server) = server {
            server.abort();
            // Aborted: there is no result to look at.
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

    /// What `/api/…` stands behind.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// What is made to go wrong.
    pub fn faults(&self) -> &Faults {
        &self.0.shared.faults
    }

    /// Disturbs every open connection; returns how many there were.
    pub fn cut(&self, how: Cut) -> usize {
        self.0.shared.connections.cut_all(how)
    }

    /// The API account gets another token; open connections stay.
    pub fn set_token(&self, token: Option<&str>) {
        self.0.shared.world.set_token(token);
    }

    /// Somebody in one of the networks says something; as the API account is told. Without a time where it is not told: because
    /// the API leaves such an event out, or because another message comes first.
    pub fn say(&self, message: Message) -> Message {
        self.0.shared.world.say(message, &self.0.shared.faults)
    }

    /// What was posted and went into a gateway that exists, in order.
    pub fn posted(&self) -> Vec<Message> {
        self.0.shared.world.posted()
    }

    /// What was answered with 200 and went nowhere.
    pub fn dropped(&self) -> usize {
        self.0.shared.world.dropped()
    }

    /// What the buffer dropped that nobody had heard: the API's own loss.
    pub fn overwritten(&self) -> Vec<Message> {
        self.0.shared.world.overwritten()
    }

    /// What was handed out of the buffer to a reader that was gone within two seconds: whoever took it had the only copy.
    pub fn handed_out(&self) -> Vec<Message> {
        self.0.shared.world.handed_out()
    }

    /// How many messages the buffer holds.
    pub fn buffered(&self) -> usize {
        self.0.shared.world.buffered()
    }

    /// Open web sockets.
    pub fn open_sockets(&self) -> usize {
        self.0.shared.world.open_sockets()
    }

    /// Calls per route since the start, such as `POST message`.
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
