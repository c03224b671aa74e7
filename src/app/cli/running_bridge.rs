//! Who answers on the admin address of this configuration: the bridge that runs with this store, another one, or nobody.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use footbridge_core::{bounded, http_client};

use crate::{
    admin::{self, HealthReport},
    config::Config,
};

/// The longest answer of an admin address.
const MAX_HEALTH: usize = 1 << 20;

/// What answers on the admin address.
pub enum RunningBridge {
    /// The bridge that runs with this store.
    Ours(Box<HealthReport>),
    /// A bridge that runs with another one.
    Another,
    /// No bridge.
    Nobody,
}

impl RunningBridge {
    /// The health of ours.
    pub fn ours(self) -> Option<HealthReport> {
        match self {
            Self::Ours(health) => Some(*health),
            Self::Another | Self::Nobody => None,
        }
    }
}

/// Who answers there, in a sentence.
pub fn another(config: &Config) -> String {
    format!(
        "another Footbridge, with another store, answers on {}",
        config.admin.listen
    )
}

/// Looks for a bridge that runs with this configuration's admin address.
pub async fn live(config: &Config) -> RunningBridge {
    let Some(health) = ask(config.admin.listen).await else {
        return RunningBridge::Nobody;
    };
    // One of an earlier version does not say.
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
    let answer = request.send().await.ok()?;
    bounded::json(answer, MAX_HEALTH).await.ok()
}
