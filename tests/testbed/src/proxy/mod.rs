//! A proxy that understands HTTP and does harm by rule: it stands between the bridge and a homeserver or silo, and the
//! rules can change while it runs. Bodies stream through and upgraded connections (WebSocket) pass.

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

use crate::gitter::connections::{CuttableListener, OpenConnections, Switch};
use rewrites::Rewrites;
use to_device::ToDeviceQueue;

/// The most requests that are remembered, oldest forgotten first.
const MAX_RECORDED: usize = 200_000;

/// A request that came by.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// When.
    pub at: Instant,
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path: String,
}

struct State {
    rules: Vec<Rule>,
    struck: BTreeMap<&'static str, u64>,
    dice: StdRng,
    custody: ToDeviceQueue,
    lies: Rewrites,
    /// The most events of a room that `/sync` brings.
    timeline_limit: Option<u32>,
    passages: Vec<RecordedRequest>,
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

    /// The fault that strikes this request, if any.
    fn pick_fault(&self, method: &Method, path: &str) -> Option<Fault> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.passages.len() >= MAX_RECORDED {
            state.passages.drain(..MAX_RECORDED / 2);
        }
        state.passages.push(RecordedRequest {
            at: Instant::now(),
            method: method.clone(),
            path: path.to_owned(),
        });
        let rule = state
            .rules
            .iter_mut()
            .find_map(|rule| rule.applies(method, path, &mut state.dice).then_some(rule))?;
        *state.struck.entry(rule.name).or_default() += 1;
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
    /// Opens a port in front of this server, of which only scheme, host and port count. The seed decides which requests are
    /// struck.
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
            // A request on a connection of its own is sent once or not at all.
            .pool_max_idle_per_host(0)
            .build()?;
        let listener = listen(0).await?;
        let proxy = Self {
            inner: Arc::new(Inner {
                upstream,
                http,
                state: Mutex::new(State {
                    rules: Vec::new(),
                    struck: BTreeMap::new(),
                    dice: StdRng::seed_from_u64(seed),
                    custody: ToDeviceQueue::default(),
                    lies: Rewrites::default(),
                    timeline_limit: None,
                    passages: Vec::new(),
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
        let wires = self.inner.connections.clone();
        let server = tokio::spawn(async move {
            // It ends when it is aborted and in no other way.
            axum::serve(
                CuttableListener {
                    inner,
                    connections: wires,
                },
                service,
            )
            .await
            .ok();
        });
        *self.server() = Some(server);
    }

    fn server(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same URL as that of the server behind it, at this proxy.
    #[must_use]
    pub fn url_for(&self, url: &str) -> String {
        let Ok(mut url) = url.parse::<Url>() else {
            return url.to_owned();
        };
        // Neither can fail: the URL has a host, and this is an address.
        url.set_host(Some("127.0.0.1")).ok();
        url.set_port(Some(self.address.port())).ok();
        let text = url.to_string();
        text.trim_end_matches('/').to_owned()
    }

    /// Adds a rule behind those that are there; the first that strikes is the one.
    pub fn add(&self, rule: Rule) {
        self.inner.lock().rules.push(rule);
    }

    /// Changes answers from now on; told lies are counted as struck.
    pub fn tell(&self, lie: Rewrite) {
        self.inner.lock().lies.add(lie);
    }

    /// Forgets all rules and lies. What was struck stays counted.
    pub fn clear(&self) {
        let mut state = self.inner.lock();
        state.rules.clear();
        state.lies.clear();
    }

    /// How many requests each rule struck.
    #[must_use]
    pub fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.inner.lock().struck.clone()
    }

    /// How many requests were struck in all.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.inner.lock().struck.values().sum()
    }

    /// Requests that came by, struck or not, since this moment.
    #[must_use]
    pub fn recorded_requests(&self, since: Instant, wanted: &Matcher) -> Vec<RecordedRequest> {
        let state = self.inner.lock();
        let found = state.passages.iter().filter(|passage| {
            passage.at >= since && wanted.matches(&passage.method, &passage.path)
        });
        found.cloned().collect()
    }

    /// Lets `/sync` bring at most so many events of a room, as homeservers may: the rest are gaps.
    pub fn limit_timeline(&self, limit: Option<u32>) {
        self.inner.lock().timeline_limit = limit;
    }

    /// Decides what becomes of messages to the device.
    pub fn set_to_device(&self, mode: ToDevice) {
        self.inner.lock().custody.mode = mode;
    }

    /// How many messages to the device were held or dropped.
    #[must_use]
    pub fn to_device_taken(&self) -> u64 {
        self.inner.lock().custody.taken
    }

    /// Disturbs every open connection of the client's and returns how many there were.
    pub fn cut_all(&self, how: Cut) -> usize {
        self.inner.connections.cut_all(how)
    }

    /// Closes the port and everything open: nobody is there any more.
    pub async fn down(&self) {
        let server = self.server().take();
        if let Some(server) = server {
            server.abort();
            // Aborted: there is nothing to look at.
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
        .context("a proxy finds no port")
}
