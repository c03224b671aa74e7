//! What the house says about itself to the admin address.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use footbridge_store::{Millis, Tally};

use super::House;
use crate::{
    admin::{Health, Vitals},
    silo::FeedState,
};

/// A sync older than this means that the homeserver does not answer.
const SYNC_STALE: Duration = Duration::from_secs(90);
/// A debt older than this means that something is wrong.
const DEBT_STALE: Duration = Duration::from_mins(10);

#[async_trait]
impl Vitals for House {
    async fn state(&self) -> Health {
        let now = self.now();
        let tallies = self.store.tallies().await.ok();
        let oldest = tallies
            .iter()
            .flatten()
            .filter_map(|tally| tally.oldest_pending)
            .min()
            .map(|since| now.since(since));
        let sync_age = self.matrix.last_sync().map(|at| now.since(at));
        let silos: BTreeMap<String, String> = self
            .silos
            .iter()
            .map(|(name, silo)| {
                let state = match silo.feed() {
                    FeedState::Live => "live",
                    FeedState::Connecting => "connecting",
                    FeedState::Down => "down",
                };
                (name.clone(), state.to_owned())
            })
            .collect();
        let channels_closed: BTreeMap<String, usize> = self
            .silos
            .iter()
            .map(|(name, silo)| (name.clone(), silo.closed()))
            .collect();
        let portals = self.config.portals.len();
        let portals_running = self.portals_running.load(Ordering::Relaxed);
        let ready = tallies.is_some()
            && sync_age.is_some_and(|age| age < SYNC_STALE)
            && silos.values().all(|state| state == "live")
            && channels_closed.values().all(|closed| *closed == 0)
            && portals == portals_running
            && oldest.is_none_or(|age| age < DEBT_STALE);
        Health {
            ready,
            store: tallies.is_some(),
            sync_age_seconds: sync_age.map(|age| age.as_secs()),
            silos,
            channels_closed,
            portals,
            portals_running,
            oldest_pending_seconds: oldest.map(|age| age.as_secs()),
        }
    }

    async fn tallies(&self) -> Option<Vec<Tally>> {
        self.store.tallies().await.ok()
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }
}
