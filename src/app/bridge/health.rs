//! The health of the running bridge, for the admin address.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{PoisonError, atomic::Ordering},
};

use async_trait::async_trait;
use footbridge_core::budget::Pace;
use footbridge_silo::FeedState;
use footbridge_store::{LaneCounters, Millis, Portal, PortalId, Side};

use super::{
    App,
    lanes::MATRIX,
    readiness::{self, ReadinessInputs, is_closed},
};
use crate::admin::{self, Backlog, HealthReport, HealthSource, Limited};

#[async_trait]
impl HealthSource for App {
    async fn state(&self) -> HealthReport {
        self.assess().await.0
    }

    async fn all_counters(&self) -> Option<Vec<LaneCounters>> {
        self.store.lane_counters_at(self.now()).await.ok()
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }
}

impl App {
    /// The current health, and the reasons why the bridge is not ready, if it is not.
    pub(super) async fn assess(&self) -> (HealthReport, Vec<String>) {
        let now = self.now();
        let all_counters = self.store.lane_counters_at(now).await.ok();
        // A portal on hold is no fault.
        let held = self.store.portal_holds(now).await.unwrap_or_default();
        let is_held =
            |counters: &&LaneCounters| held.iter().any(|(id, _)| *id == counters.lane.portal);
        let unheld: Option<Vec<LaneCounters>> = all_counters.as_ref().map(|all_counters| {
            let unheld = all_counters.iter().filter(|counters| !is_held(counters));
            unheld.cloned().collect()
        });
        let oldest = unheld
            .iter()
            .flatten()
            .filter_map(|counters| counters.oldest_not_on_hold)
            .min()
            .map(|since| now.since(since));
        let sync_age = self.matrix.device().last_sync().map(|at| now.since(at));
        let known = self.store.portals().await.unwrap_or_default();
        let free = unheld.as_deref().unwrap_or_default();
        let closed: BTreeMap<String, BTreeSet<String>> = self
            .silos
            .iter()
            .map(|(name, silo)| {
                // What is read without trouble may be closed to what is written.
                let mut closed = unwritable(name, free, &known);
                closed.extend(silo.closed_channels());
                (name.clone(), closed)
            })
            .collect();
        let store_state = match self.store.transient_error() {
            Some(transient_error) => transient_error.as_str(),
            None if super::disk_space::is_low(&self.config.store) => "low",
            None => "well",
        };
        let unjoined = self.unjoined_portals(&known);
        let rooms_closed = free.iter().filter(|counters| {
            counters.lane.toward == Side::Matrix && is_closed(counters, &unjoined)
        });
        let paces = self.budgets.limited();
        let backlogs = backlogs(all_counters.as_deref().unwrap_or_default(), &known, &paces);
        let limited = paces.into_iter().map(|(account, pace)| Limited {
            account,
            seconds_per_event: pace.interval.map(|interval| interval.as_secs_f64()),
            messages_per_event: pace.carried,
        });
        let mut health = HealthReport {
            security: self.matrix.network().security_counts(),
            missed_events: self.matrix.device().missed(),
            answers_withheld: self.answers.withheld(),
            notices_withheld: self.inbox.withheld(),
            limited: limited.collect(),
            backlogs,
            ready: false,
            store_place: admin::place_of(&self.config.store.path),
            store: all_counters.is_some(),
            store_state: store_state.to_owned(),
            store_free_bytes: super::disk_space::free(&self.config.store.path),
            sync_age_seconds: sync_age.map(|age| age.as_secs()),
            silos: self.feeds(),
            channels_closed: closed
                .iter()
                .map(|(silo, closed)| (silo.clone(), closed.len()))
                .collect(),
            rooms_closed: rooms_closed.count(),
            portals: self.portals_named.load(Ordering::Relaxed),
            portals_running: self.portals_running.load(Ordering::Relaxed),
            oldest_pending_seconds: oldest.map(|age| age.as_secs()),
        };
        let waiting = self.silos.iter();
        let waiting = waiting.map(|(name, silo)| (name.clone(), silo.waiting()));
        let reasons = readiness::reasons(
            &health,
            &ReadinessInputs {
                portals: &known,
                all_counters: unheld.as_deref(),
                closed,
                waiting: waiting.collect(),
                unjoined_portals: unjoined,
                unopened: self.unopened(),
                now,
            },
        );
        health.ready = reasons.is_empty();
        (health, reasons)
    }

    /// The portals that are not open yet, by the reason.
    fn unopened(&self) -> BTreeMap<String, Vec<String>> {
        let by_silo = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unopened: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (why, names) in by_silo.values().flatten() {
            let of_that = unopened.entry(why.clone()).or_default();
            of_that.extend(names.iter().cloned());
        }
        unopened
    }

    /// Portals whose room the account is not in.
    fn unjoined_portals(&self, portals: &[Portal]) -> HashSet<PortalId> {
        let portals = portals.iter();
        let unjoined = portals
            .filter(|portal| portal.active && self.matrix.device().is_unjoined(&portal.room));
        unjoined.map(|portal| portal.id).collect()
    }

    /// The state of each silo's feed.
    fn feeds(&self) -> BTreeMap<String, String> {
        let silos = self.silos.iter();
        let state = silos.map(|(name, silo)| {
            let state = match silo.feed() {
                FeedState::Live => "live",
                FeedState::Connecting => "connecting",
                FeedState::Down => "down",
            };
            (name.clone(), state.to_owned())
        });
        state.collect()
    }
}

/// The addresses of a silo's channels that are closed to what waits for them.
fn unwritable(silo: &str, all_counters: &[LaneCounters], portals: &[Portal]) -> BTreeSet<String> {
    let closed = all_counters.iter().filter(|counters| {
        counters.lane.toward == Side::Silo
            && counters.closed_since.is_some()
            && counters.pending > 0
    });
    let here = closed.filter_map(|counters| {
        let mut portals = portals.iter();
        portals.find(|portal| portal.id == counters.lane.portal && portal.spec.silo == silo)
    });
    here.map(|portal| portal.channel.address().to_owned())
        .collect()
}

/// When lanes of rate-limited accounts will be empty, where that can be estimated. Messages whose key is missing, or
/// that are on hold, do not count: they wait for something else.
fn backlogs(
    all_counters: &[LaneCounters],
    portals: &[Portal],
    paces: &[(String, Pace)],
) -> Vec<Backlog> {
    let account_of = |counters: &LaneCounters| match counters.lane.toward {
        Side::Matrix => Some(MATRIX),
        Side::Silo => portals
            .iter()
            .find(|portal| portal.id == counters.lane.portal)
            .map(|portal| portal.spec.silo.as_str()),
    };
    let deliverable = |counters: &LaneCounters| {
        counters
            .pending
            .saturating_sub(counters.waiting + counters.on_hold)
    };
    let mut backlogs = Vec::new();
    for (account, pace) in paces {
        let lanes: Vec<&LaneCounters> = all_counters
            .iter()
            .filter(|counters| account_of(counters) == Some(account) && deliverable(counters) > 0)
            .collect();
        let all: Vec<u64> = lanes.iter().map(|counters| deliverable(counters)).collect();
        for counters in lanes {
            if let Some(after) = pace.empty_after(deliverable(counters), &all) {
                backlogs.push(Backlog {
                    portal: counters.lane.portal.0,
                    toward: counters.lane.toward.as_str().to_owned(),
                    empty_after_seconds: after.as_secs(),
                });
            }
        }
    }
    backlogs
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use footbridge_store::{LaneId, Place, PortalSpec};

    use super::*;

    fn counters(portal: i64, toward: Side, pending: u64) -> LaneCounters {
        LaneCounters {
            lane: LaneId {
                portal: PortalId(portal),
                toward,
            },
            accepted: pending,
            delivered: 0,
            skipped: Vec::new(),
            failed: 0,
            pending,
            waiting: 0,
            oldest_pending: None,
            on_hold: 0,
            oldest_not_on_hold: None,
            parked: 0,
            last_failure: None,
            closed_since: None,
            closed_reason: None,
        }
    }

    #[test]
    fn only_lanes_of_a_limited_account_have_an_estimate() {
        let portal = |id: i64, silo: &str| Portal {
            id: PortalId(id),
            spec: PortalSpec {
                room: format!("#r{id}:x"),
                silo: silo.to_owned(),
                channel: "c".to_owned(),
            },
            room: Place::room("!r"),
            channel: Place::new(silo, "c"),
            active: true,
            source: footbridge_store::PortalSource::Config,
        };
        let all_counters = [
            counters(1, Side::Matrix, 12),
            counters(1, Side::Silo, 12),
            counters(2, Side::Matrix, 100),
            counters(3, Side::Matrix, 0),
        ];
        let portals = [portal(1, "gitter"), portal(2, "gitter"), portal(3, "other")];
        let pace = Pace {
            interval: Some(Duration::from_secs(5)),
            carried: 1.0,
        };
        let found = backlogs(&all_counters, &portals, &[(MATRIX.to_owned(), pace)]);
        let found: Vec<_> = found
            .iter()
            .map(|backlog| {
                (
                    backlog.portal,
                    backlog.toward.as_str(),
                    backlog.empty_after_seconds,
                )
            })
            .collect();
        assert_eq!(found, [(1, "matrix", 120), (2, "matrix", 560)]);
        assert!(backlogs(&all_counters, &portals, &[("other".to_owned(), pace)]).is_empty());
    }
}
