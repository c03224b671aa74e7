//! A channel of a simulated silo, behind a proxy.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use footbridge_simulators::channel::{SimulatedChannel, UserAction};
use tokio::task::AbortHandle;

use crate::bridge::SiloSetup;
use crate::proxy::Proxy;

/// How often a channel is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A channel, and the proxy between it and the bridge.
pub struct SiloChannel {
    /// The silo's name in the configuration.
    pub silo: String,
    /// The proxy between the bridge and the silo.
    pub proxy: Proxy,
    simulated: Arc<dyn SimulatedChannel>,
    times: Arc<Mutex<Vec<Instant>>>,
    watch: AbortHandle,
}

impl Deref for SiloChannel {
    type Target = dyn SimulatedChannel;

    fn deref(&self) -> &Self::Target {
        &*self.simulated
    }
}

impl SiloChannel {
    pub(super) async fn open(
        number: usize,
        simulated: Arc<dyn SimulatedChannel>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let seed = seed.wrapping_add(u64::try_from(number).unwrap_or_default() + 1);
        let proxy = Proxy::start(&simulated.url(), seed).await?;
        let times = Arc::new(Mutex::new(Vec::new()));
        let (seen, watched) = (times.clone(), simulated.clone());
        let watch = tokio::spawn(async move {
            loop {
                let count = watched.bridge_texts_ever().len();
                stamp(&seen, count);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        Ok(Self {
            silo: format!("{}{number}", simulated.kind().name),
            proxy,
            simulated,
            times,
            watch: watch.abort_handle(),
        })
    }

    pub(super) fn setup(&self) -> SiloSetup {
        self.setup_of(self.token())
    }

    /// The setup of a second bridge's account.
    pub(super) fn second_bridge_setup(&self) -> anyhow::Result<SiloSetup> {
        let token = self.add_account().context("this silo has one account")?;
        Ok(self.setup_of(token))
    }

    fn setup_of(&self, token: String) -> SiloSetup {
        let through_proxy = |url: &str| self.proxy.url_for(url);
        let section = self.section(&through_proxy, &str::to_owned);
        SiloSetup {
            name: self.silo.clone(),
            kind: self.kind().name,
            token,
            lines: format!("{section}\naudit = \"10s\""),
        }
    }

    /// Bob posts a message; returns its id, if the network has ids.
    pub fn say(&self, text: &str) -> Option<String> {
        self.act(UserAction::Say(text))
    }

    /// Bob edits his message, if the network supports edits.
    pub fn edit(&self, id: &str, text: &str) {
        self.act(UserAction::Edit(id, text));
    }

    /// Bob deletes his message, if the network supports deletions.
    pub fn delete(&self, id: &str) {
        self.act(UserAction::Delete(id));
    }

    /// The text of every message that the bridge ever posted, and when it became visible.
    pub fn seen(&self) -> Vec<(String, Option<Instant>)> {
        let texts = self.bridge_texts_ever();
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = texts.into_iter().enumerate();
        seen.map(|(number, text)| (text, times.get(number).copied()))
            .collect()
    }
}

/// Records the current time for every new message.
fn stamp(seen: &Mutex<Vec<Instant>>, count: usize) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    while seen.len() < count {
        seen.push(Instant::now());
    }
}

impl Drop for SiloChannel {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
