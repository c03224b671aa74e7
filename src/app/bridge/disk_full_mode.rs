//! A bridge that cannot start because the disk is full: it reports that at the admin address, and waits for space.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use footbridge_core::clock::Clock;
use footbridge_store::{LaneCounters, Millis};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

use super::disk_space;
use crate::{
    admin::{self, HealthReport, HealthSource},
    config::Config,
    shutdown::Shutdown,
};

/// A blocking thread may still use the store; this is how long it gets to give up, after which the lock of the store is
/// free.
const STORE_RELEASE_WAIT: Duration = Duration::from_secs(5);

/// How long a request that is being answered may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

struct DiskFullMode {
    config: Config,
    clock: Clock,
}

#[async_trait]
impl HealthSource for DiskFullMode {
    async fn state(&self) -> HealthReport {
        HealthReport {
            store_state: "full".to_owned(),
            store_free_bytes: disk_space::free(&self.config.store.path),
            portals: self.config.portals.len(),
            ..HealthReport::default()
        }
    }

    async fn all_counters(&self) -> Option<Vec<LaneCounters>> {
        None
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }
}

/// Waits until there is space again. Returns whether there is; `false` when it was stopped.
pub(super) async fn wait(config: &Config) -> anyhow::Result<bool> {
    let shutdown = Shutdown::default();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(shutdown.clone().watch());
    if let Ok(listener) = TcpListener::bind(config.admin.listen).await {
        let (config, clock) = (config.clone(), Clock::start());
        let source = Arc::new(DiskFullMode { config, clock });
        tasks.spawn(admin::serve(listener, source, shutdown.soft.clone()));
    }
    let enough_space = async {
        sleep(STORE_RELEASE_WAIT).await;
        disk_space::wait_until_enough(&config.store).await;
    };
    let is_free = tokio::select! {
        () = shutdown.soft.cancelled() => false,
        () = enough_space => true,
    };
    // A soft stop: a connection that is kept alive must not keep reporting a full disk.
    shutdown.soft.cancel();
    shutdown.hard.cancel();
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout(CLOSE_TIMEOUT, ended).await.is_err() {
        tasks.shutdown().await;
    }
    Ok(is_free)
}
