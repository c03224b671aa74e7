//! The HTTP server of a simulator with one port: it can be stopped and started again on its port, its connections can be cut,
//! and it counts the calls of each route.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connections::{Cut, CuttableListener, OpenConnections, Switch};

/// A server on the loopback interface; it stops when it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    router: Router,
    connections: OpenConnections,
    /// The server task; `None` while the port is closed.
    task: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
    _stop: DropGuard,
}

async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("listening on port {port} for a simulator"))
}

impl Server {
    /// Starts listening on this port; 0 takes a free one. `stop` is cancelled when the server is dropped.
    pub(crate) async fn start(
        port: u16,
        router: Router,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let listener = bind(port).await?;
        let server = Self {
            address: listener.local_addr()?,
            router,
            connections: OpenConnections::default(),
            task: Mutex::default(),
            _stop: stop.clone().drop_guard(),
            stop,
        };
        server.serve(listener);
        Ok(server)
    }

    fn serve(&self, inner: TcpListener) {
        let connections = self.connections.clone();
        let listener = CuttableListener {
            inner,
            connections: connections.clone(),
        };
        let service = self.router.clone();
        let service = service.into_make_service_with_connect_info::<Switch>();
        let stop = self.stop.clone();
        let task = tokio::spawn(async move {
            let server = axum::serve(listener, service);
            // Cancelled, or an error that nobody could handle: in both cases no connection outlives its port.
            drop(stop.run_until_cancelled(async move { server.await }).await);
            connections.cut_all(Cut::Close);
        });
        *self.task() = Some(task);
    }

    fn task(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the port and every connection.
    pub(crate) async fn stop_listening(&self) {
        let task = self.task().take();
        if let Some(task) = task {
            task.abort();
            // The task was aborted, so it has no result.
            drop(task.await);
        }
        self.connections.cut_all(Cut::Close);
    }

    /// Listens again, on the same port.
    pub(crate) async fn restart(&self) -> anyhow::Result<()> {
        self.stop_listening().await;
        self.serve(bind(self.address.port()).await?);
        Ok(())
    }

    /// The base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts every open connection; returns how many there were.
    pub(crate) fn cut(&self, how: Cut) -> usize {
        self.connections.cut_all(how)
    }
}

/// The number of calls per route since the start.
#[derive(Default)]
pub(crate) struct Calls(Mutex<BTreeMap<String, u64>>);

impl Calls {
    /// Counts a call.
    pub(crate) fn count(&self, route: &str) {
        *self.counts().entry(route.to_owned()).or_insert(0) += 1;
    }

    /// All counts.
    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        self.counts().clone()
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
