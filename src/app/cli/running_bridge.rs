//! Finds out what answers on the admin address of this configuration: the bridge that runs with this store, another
//! bridge, or nothing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use footbridge_core::{bounded, http_client};

use crate::{
    admin::{self, HealthReport},
    config::Config,
};

/// The longest response of an admin address, in bytes.
const MAX_HEALTH: usize = 1 << 20;

/// What answers on the admin address.
pub enum RunningBridge {
    /// The bridge that runs with this store.
    Ours(Box<HealthReport>),
    /// A bridge that runs with another store.
    Another,
    /// No bridge.
    Nobody,
}

impl RunningBridge {
    /// The health of the bridge that runs with this store.
    pub fn ours(self) -> Option<HealthReport> {
        match self {
            Self::Ours(health) => Some(*health),
            Self::Another | Self::Nobody => None,
        }
    }
}

/// Says that another bridge answers there.
pub fn another(config: &Config) -> String {
    format!(
        "another Footbridge, with another store, answers on {}",
        config.admin.listen
    )
}

/// Asks the admin address of this configuration for its health.
pub async fn live(config: &Config) -> RunningBridge {
    let Some(health) = ask(config.admin.listen).await else {
        return RunningBridge::Nobody;
    };
    // A bridge of an earlier version does not report its store.
    let is_ours =
        health.store_place.is_none() || health.store_place == admin::place_of(&config.store.path);
    if is_ours {
        RunningBridge::Ours(Box::new(health))
    } else {
        RunningBridge::Another
    }
}

async fn ask(listen: SocketAddr) -> Option<HealthReport> {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let url = format!(
        "http://{}/health/ready",
        SocketAddr::new(host, listen.port())
    );
    let request = http_client::client()
        .ok()?
        .get(url)
        .timeout(Duration::from_secs(2));
    let response = request.send().await.ok()?;
    bounded::json(response, MAX_HEALTH).await.ok()
}
