//! A Gitter simulator that behaves as the real service did until it was switched off: REST, HTTP stream and Bayeux,
//! each on its own port, and a separate control port, which clients cannot notice. `GitterSim` offers the same control
//! to tests in this process.

#![expect(
    clippy::must_use_candidate,
    reason = "a test may ignore what a call returns"
)]

mod auth;
pub mod channel;
mod bayeux;
mod actions;
mod control;
mod faults;
mod ids;
mod inline;
mod listing;
mod markdown;
mod options;
mod posts;
mod rate;
mod api_error;
mod rest;
mod shared;
mod stream;
mod time;
mod view;
mod world;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use anyhow::Context;
use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::DropGuard;

pub use crate::{call_faults::Fault, connections::Cut};
pub use api_error::ApiError;
pub use channel::{GitterChannel, SIMULATOR};
pub use faults::{Echo, Faults, Framing};
pub use options::{Options, Room, RoomOptions, User};
pub use posts::Message;
pub use shared::{Change, Operation};
pub use view::Compatibility;

use self::shared::{LateNotices, Shared, lock};
use crate::connections::{CuttableListener, OpenConnections, Switch};

/// The addresses, fixed at the first start and kept over a restart.
#[derive(Clone, Copy)]
struct Addresses {
    api: SocketAddr,
    stream: SocketAddr,
    realtime: SocketAddr,
    control: SocketAddr,
}

struct SimInner {
    shared: Arc<Shared>,
    addresses: Addresses,
    /// The servers of the three ports; empty while they do not listen.
    servers: Mutex<Vec<JoinHandle<()>>>,
    _stop: DropGuard,
}

/// A running simulator. Clones share it; it stops with the last one.
#[derive(Clone)]
pub struct GitterSim(Arc<SimInner>);

/// Starts a task that ends by itself when the simulator stops.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulator represents another machine, so its tasks are not the bridge's"
)]
fn start<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(task)
}

async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("listening on port {port} for the Gitter simulator"))
}

fn serve(
    shared: &Arc<Shared>,
    inner: TcpListener,
    connections: &OpenConnections,
    router: Router,
) -> JoinHandle<()> {
    let listener = CuttableListener {
        inner,
        connections: connections.clone(),
    };
    let service = router.into_make_service_with_connect_info::<Switch>();
    let stop = shared.stop.clone();
    let connections = connections.clone();
    start(async move {
        let server = axum::serve(listener, service);
        let ended = stop.run_until_cancelled(async move { server.await }).await;
        // Cancelled, or an error that nobody could handle: in both cases no connection outlives its port.
        drop(ended);
        connections.cut_all(Cut::Close);
    })
}

/// Delivers the delayed notices, in order, each when it is due.
async fn tell_late(shared: Arc<Shared>, mut late: LateNotices) {
    loop {
        let next = tokio::select! {
            () = shared.stop.cancelled() => return,
            next = late.recv() => next,
        };
        let Some((due, notices)) = next else { return };
        tokio::time::sleep_until(due).await;
        shared.deliver(notices);
    }
}

/// The HTML that Gitter renders from a message's text.
pub fn rendered(text: &str) -> String {
    markdown::render(text).html
}

impl GitterSim {
    /// Starts listening on the loopback interface.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let listeners = [
            bind(options.api_port).await?,
            bind(options.stream_port).await?,
            bind(options.realtime_port).await?,
        ];
        let control = bind(options.control_port).await?;
        let [api, stream, realtime] = &listeners;
        let addresses = Addresses {
            api: api.local_addr()?,
            stream: stream.local_addr()?,
            realtime: realtime.local_addr()?,
            control: control.local_addr()?,
        };
        let (shared, late) = Shared::new(options);
        let shared = Arc::new(shared);
        let stop = shared.stop.clone().drop_guard();
        start(tell_late(Arc::clone(&shared), late));
        let sim = Self(Arc::new(SimInner {
            shared,
            addresses,
            servers: Mutex::default(),
            _stop: stop,
        }));
        sim.serve_all(listeners);
        // A weak reference, so that the control port does not keep the simulator alive.
        let router = control::router(Arc::downgrade(&sim.0));
        serve(&sim.0.shared, control, &OpenConnections::default(), router);
        Ok(sim)
    }

    fn serve_all(&self, listeners: [TcpListener; 3]) {
        let shared = &self.0.shared;
        let [api, stream, realtime] = listeners;
        let faults = &shared.faults;
        let servers = vec![
            serve(shared, api, &faults.api, rest::router(Arc::clone(shared))),
            serve(
                shared,
                stream,
                &faults.stream,
                stream::router(Arc::clone(shared)),
            ),
            serve(
                shared,
                realtime,
                &faults.realtime,
                bayeux::router(Arc::clone(shared)),
            ),
        ];
        *lock(&self.0.servers) = servers;
    }

    /// Begins an outage: the ports close and every connection drops. The world stays; users in it can keep writing.
    pub async fn stop_listening(&self) {
        let servers = std::mem::take(&mut *lock(&self.0.servers));
        for server in servers {
            server.abort();
            // The task was aborted, so it has no result.
            drop(server.await);
        }
        let faults = &self.0.shared.faults;
        for connections in [&faults.api, &faults.stream, &faults.realtime] {
            connections.cut_all(Cut::Close);
        }
        self.0.shared.sessions.clear();
    }

    /// Ends an outage, on the same ports.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop_listening().await;
        let addresses = self.0.addresses;
        self.serve_all([
            bind(addresses.api.port()).await?,
            bind(addresses.stream.port()).await?,
            bind(addresses.realtime.port()).await?,
        ]);
        Ok(())
    }

    /// The base URL of the REST API.
    pub fn api_url(&self) -> String {
        format!("http://{}/v1", self.0.addresses.api)
    }

    /// The base URL of the HTTP stream.
    pub fn stream_url(&self) -> String {
        format!("http://{}/v1", self.0.addresses.stream)
    }

    /// The URL of the Bayeux endpoint.
    pub fn realtime_url(&self) -> String {
        format!("ws://{}/bayeux", self.0.addresses.realtime)
    }

    /// The URL of the control port, with a page for people at its root.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.0.addresses.control)
    }

    /// The faults that a test can inject.
    pub fn faults(&self) -> &Faults {
        &self.0.shared.faults
    }

    /// The number of calls per route since the start.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.0.shared.calls()
    }

    /// The number of open HTTP streams.
    pub fn open_streams(&self) -> usize {
        self.0.shared.streams.count()
    }

    /// The number of live Bayeux sessions.
    pub fn open_sessions(&self) -> usize {
        self.0.shared.sessions.count()
    }
}
