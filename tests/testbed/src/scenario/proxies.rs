//! Everything the bridge talks to, each behind a proxy of its own.

use crate::gitter::GitterSim;
use crate::proxy::Proxy;
use crate::synapse::Synapse;

/// One proxy per address in the bridge's configuration.
pub struct Proxies {
    /// Before the homeserver.
    pub homeserver: Proxy,
    /// Before Gitter's REST API.
    pub api: Proxy,
    /// Before its HTTP stream.
    pub stream: Proxy,
    /// Before its Bayeux.
    pub realtime: Proxy,
}

impl Proxies {
    /// Opens them, without any rule.
    pub(super) async fn start(
        synapse: &Synapse,
        sim: &GitterSim,
        seed: u64,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            homeserver: Proxy::start(&synapse.url(), seed).await?,
            api: Proxy::start(&sim.api_url(), seed.wrapping_add(1)).await?,
            stream: Proxy::start(&sim.stream_url(), seed.wrapping_add(2)).await?,
            realtime: Proxy::start(&sim.realtime_url(), seed.wrapping_add(3)).await?,
        })
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> [&Proxy; 4] {
        [&self.homeserver, &self.api, &self.stream, &self.realtime]
    }

    /// How many requests were struck in all.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.all().into_iter().map(Proxy::fault_count).sum()
    }

    /// Forgets all rules.
    pub fn clear(&self) {
        for proxy in self.all() {
            proxy.clear();
        }
    }
}
