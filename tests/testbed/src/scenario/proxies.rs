//! The proxies between the bridge and everything that it talks to, one for each.

use crate::proxy::Proxy;
use crate::synapse::Synapse;
use footbridge_simulators::gitter::GitterSim;

/// One proxy per address in the bridge's configuration.
pub struct Proxies {
    /// The proxy of the homeserver.
    pub homeserver: Proxy,
    /// The proxy of Gitter's REST API.
    pub api: Proxy,
    /// The proxy of its HTTP stream.
    pub stream: Proxy,
    /// The proxy of its Bayeux endpoint.
    pub realtime: Proxy,
}

impl Proxies {
    /// Opens all proxies, without any rule.
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

    /// All proxies.
    #[must_use]
    pub fn all(&self) -> [&Proxy; 4] {
        [&self.homeserver, &self.api, &self.stream, &self.realtime]
    }

    /// How many faults were injected in total.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.all().into_iter().map(Proxy::fault_count).sum()
    }

    /// Removes all rules.
    pub fn clear(&self) {
        for proxy in self.all() {
            proxy.clear();
        }
    }
}
