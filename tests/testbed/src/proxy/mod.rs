//! A proxy that understands HTTP and injects faults by rule. It is placed between the bridge and a homeserver or silo;
//! its rules can change while it runs. It streams bodies, and relays upgraded connections (WebSocket).

mod shaping;
mod rewrites;
mod rule;
mod serve;
mod key_view;
mod to_device;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use axum::Router;
use axum::http::Method;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

pub use key_view::KeyView;
pub use rewrites::Rewrite;
pub use rule::{Cut, Fault, Matcher, Page, Rule};
pub use to_device::ToDevice;

use footbridge_simulators::connections::{CuttableListener, OpenConnections, Switch};
use rewrites::Rewrites;
use to_device::ToDeviceQueue;

/// The largest number of requests that are recorded; the oldest are dropped first.
const MAX_RECORDED: usize = 200_000;

/// A request that the proxy received.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// When it was received.
    pub at: Instant,
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path: String,
}

struct State {
    rules: Vec<Rule>,
    injected: BTreeMap<&'static str, u64>,
    dice: StdRng,
    held_back: ToDeviceQueue,
    rewrites: Rewrites,
    /// The largest number of events of a room that a sync response contains.
    timeline_limit: Option<u32>,
    passed: Vec<RecordedRequest>,
}

struct Inner {
    upstream: Url,
    http: reqwest::Client,
    state: Mutex<State>,
    connections: OpenConnections,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault for this request, if a rule applies.
    fn pick_fault(&self, method: &Method, path: &str) -> Option<Fault> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.passed.len() >= MAX_RECORDED {
            state.passed.drain(..MAX_RECORDED / 2);
        }
        state.passed.push(RecordedRequest {
            at: Instant::now(),
            method: method.clone(),
            path: path.to_owned(),
        });
        let rule = state
            .rules
            .iter_mut()
            .find_map(|rule| rule.applies(method, path, &mut state.dice).then_some(rule))?;
        *state.injected.entry(rule.name).or_default() += 1;
        Some(rule.fault.clone())
    }
}

/// A proxy on a loopback port. Dropping it closes the port.
pub struct Proxy {
    inner: Arc<Inner>,
    address: SocketAddr,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Opens a port in front of this server; only scheme, host and port of `upstream` count. The seed decides which
    /// requests get a fault.
    pub async fn start(upstream: &str, seed: u64) -> anyhow::Result<Self> {
        let mut upstream: Url = upstream.parse().context("a proxy needs a URL")?;
        // A WebSocket begins as plain HTTP.
        if upstream.scheme() == "ws" {
            upstream = upstream.as_str().replacen("ws:", "http:", 1).parse()?;
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_gzip()
            .no_proxy()
            .http1_only()
            // A request on its own connection is sent once or not at all.
            .pool_max_idle_per_host(0)
            .build()?;
        let listener = listen(0).await?;
        let proxy = Self {
            inner: Arc::new(Inner {
                upstream,
                http,
                state: Mutex::new(State {
                    rules: Vec::new(),
                    injected: BTreeMap::new(),
                    dice: StdRng::seed_from_u64(seed),
                    held_back: ToDeviceQueue::default(),
                    rewrites: Rewrites::default(),
                    timeline_limit: None,
                    passed: Vec::new(),
                }),
                connections: OpenConnections::default(),
            }),
            address: listener.local_addr()?,
            server: Mutex::default(),
        };
        proxy.open(listener);
        Ok(proxy)
    }

    fn open(&self, inner: TcpListener) {
        let router = Router::new()
            .fallback(serve::serve)
            .with_state(Arc::clone(&self.inner));
        let service = router.into_make_service_with_connect_info::<Switch>();
        let connections = self.inner.connections.clone();
        let server = tokio::spawn(async move {
            // The server ends only by being aborted.
            axum::serve(CuttableListener { inner, connections }, service)
                .await
                .ok();
        });
        *self.server() = Some(server);
    }

    fn server(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same URL, with this proxy's host and port instead of the server's.
    #[must_use]
    pub fn url_for(&self, url: &str) -> String {
        let Ok(mut url) = url.parse::<Url>() else {
            return url.to_owned();
        };
        // Neither call can fail: the URL has a host, and this is an address.
        url.set_host(Some("127.0.0.1")).ok();
        url.set_port(Some(self.address.port())).ok();
        let text = url.to_string();
        text.trim_end_matches('/').to_owned()
    }

    /// Adds a rule after the present ones; the first rule that applies decides.
    pub fn add(&self, rule: Rule) {
        self.inner.lock().rules.push(rule);
    }

    /// Rewrites responses from now on; each rewritten response counts as an injected fault.
    pub fn set_rewrite(&self, rewrite: Rewrite) {
        self.inner.lock().rewrites.add(rewrite);
    }

    /// Removes all rules and rewrites. The counts of injected faults stay.
    pub fn clear(&self) {
        let mut state = self.inner.lock();
        state.rules.clear();
        state.rewrites.clear();
    }

    /// How many faults each rule injected.
    #[must_use]
    pub fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.inner.lock().injected.clone()
    }

    /// How many faults were injected in total.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.inner.lock().injected.values().sum()
    }

    /// The requests that match and were received since this moment, with or without a fault.
    #[must_use]
    pub fn recorded_requests(&self, since: Instant, wanted: &Matcher) -> Vec<RecordedRequest> {
        let state = self.inner.lock();
        let matching = state.passed.iter().filter(|request| {
            request.at >= since && wanted.matches(&request.method, &request.path)
        });
        matching.cloned().collect()
    }

    /// Limits how many events of a room a sync response contains, as homeservers may: the rest are gaps.
    pub fn limit_timeline(&self, limit: Option<u32>) {
        self.inner.lock().timeline_limit = limit;
    }

    /// Sets what happens to to-device messages.
    pub fn set_to_device(&self, mode: ToDevice) {
        self.inner.lock().held_back.mode = mode;
    }

    /// How many to-device messages were held or dropped.
    #[must_use]
    pub fn to_device_taken(&self) -> u64 {
        self.inner.lock().held_back.taken
    }

    /// Cuts every open connection of clients and returns how many there were.
    pub fn cut_all(&self, how: Cut) -> usize {
        self.inner.connections.cut_all(how)
    }

    /// Closes the port and every connection, as if the server were down.
    pub async fn down(&self) {
        let server = self.server().take();
        if let Some(server) = server {
            server.abort();
            // The task was aborted, so it has no result.
            drop(server.await);
        }
        self.cut_all(Cut::Reset);
    }

    /// Opens the port again.
    pub async fn up(&self) -> anyhow::Result<()> {
        self.down().await;
        self.open(listen(self.address.port()).await?);
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(server) = self.server().take() {
            server.abort();
        }
        self.cut_all(Cut::Close);
    }
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .context("cannot open a port for a proxy")
}
