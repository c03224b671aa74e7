//! What the house says about itself to the admin address.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use footbridge_core::budget::Pace;
use footbridge_silo::FeedState;
use footbridge_store::{Millis, Portal, PortalId, Side, Tally};

use super::{
    House,
    lanes::MATRIX,
    readiness::{self, Known},
};
use crate::admin::{self, Backlog, Health, Limited, Vitals};

/// A sync older than this means that the homeserver does not answer.
pub(super) const SYNC_STALE: Duration = Duration::from_secs(90);
/// A debt older than this means that something is wrong.
pub(super) const DEBT_STALE: Duration = Duration::from_mins(10);

#[async_trait]
impl Vitals for House {
    async fn state(&self) -> Health {
        self.weigh().await.0
    }

    async fn tallies(&self) -> Option<Vec<Tally>> {
        self.store.tallies_at(self.now()).await.ok()
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }
}

impl House {
    /// The state now, and why it is not ready, if it is not.
    pub(super) async fn weigh(&self) -> (Health, Vec<String>) {
        let now = self.now();
        let tallies = self.store.tallies_at(now).await.ok();
        // What is held up on purpose is nothing wrong.
        let held = self.store.holds(now).await.unwrap_or_default();
        let is_held = |tally: &&Tally| held.iter().any(|(id, _)| *id == tally.lane.portal);
        let unheld: Option<Vec<Tally>> = tallies.as_ref().map(|tallies| {
            let unheld = tallies.iter().filter(|tally| !is_held(tally));
            unheld.cloned().collect()
        });
        let oldest = unheld
            .iter()
            .flatten()
            .filter_map(|tally| tally.oldest_free)
            .min()
            .map(|since| now.since(since));
        let sync_age = self.matrix.last_sync().map(|at| now.since(at));
        let known = self.store.portals().await.unwrap_or_default();
        let free = unheld.as_deref().unwrap_or_default();
        let channels_closed: BTreeMap<String, usize> = self
            .silos
            .iter()
            .map(|(name, silo)| {
                // What is read without trouble may be closed to what is written.
                let closed = silo.closed().max(unwritable(name, free, &known));
                (name.clone(), closed)
            })
            .collect();
        let store_state = match self.store.hindrance() {
            Some(hindrance) => hindrance.as_str(),
            None if super::space::is_short(&self.config.store) => "low",
            None => "well",
        };
        let outside = self.outside(&known);
        let rooms_closed = free
            .iter()
            .filter(|tally| tally.lane.toward == Side::Matrix && is_closed(tally, &outside));
        let portals = self.portals_named.load(Ordering::Relaxed);
        let portals_running = self.portals_running.load(Ordering::Relaxed);
        let paces = self.budgets.limited();
        let backlogs = backlogs(tallies.as_deref().unwrap_or_default(), &known, &paces);
        let limited = paces.into_iter().map(|(account, pace)| Limited {
            account,
            seconds_per_event: pace.interval.map(|interval| interval.as_secs_f64()),
            messages_per_event: pace.carried,
        });
        let mut health = Health {
            security: self.matrix.alarms(),
            missed_events: self.matrix.missed(),
            answers_withheld: self.answers.withheld(),
            notices_withheld: self.inbox.withheld(),
            limited: limited.collect(),
            backlogs,
            ready: false,
            store_place: admin::place_of(&self.config.store.path),
            store: tallies.is_some(),
            store_state: store_state.to_owned(),
            store_free_bytes: super::space::free(&self.config.store.path),
            sync_age_seconds: sync_age.map(|age| age.as_secs()),
            silos: self.feeds(),
            channels_closed,
            rooms_closed: rooms_closed.count(),
            portals,
            portals_running,
            oldest_pending_seconds: oldest.map(|age| age.as_secs()),
        };
        let waiting = self.silos.iter();
        let waiting = waiting.map(|(name, silo)| (name.clone(), silo.waiting()));
        let reasons = readiness::reasons(
            &health,
            &Known {
                portals: &known,
                tallies: unheld.as_deref(),
                waiting: waiting.collect(),
                outside,
                unopened: self.unopened(),
                now,
            },
        );
        health.ready = reasons.is_empty();
        (health, reasons)
    }

    /// Which portals are not open yet, by the reason.
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
    fn outside(&self, portals: &[Portal]) -> HashSet<PortalId> {
        let here = portals.iter();
        let outside = here.filter(|portal| portal.active && self.matrix.is_outside(&portal.room));
        outside.map(|portal| portal.id).collect()
    }

    /// How each silo's feed is.
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

/// Whether a lane's place is closed to us and somebody should know: something waits for it, or it is a room that we are not
/// in, and do not hear either.
pub(super) fn is_closed(tally: &Tally, outside: &HashSet<PortalId>) -> bool {
    let is_outside = tally.lane.toward == Side::Matrix && outside.contains(&tally.lane.portal);
    tally.closed_since.is_some() && (tally.pending > 0 || is_outside)
}

/// How many channels of a silo are closed to what waits for them.
fn unwritable(silo: &str, tallies: &[Tally], portals: &[Portal]) -> usize {
    let closed = tallies.iter().filter(|tally| {
        let mut portals = portals.iter();
        let here = portals.find(|portal| portal.id == tally.lane.portal);
        tally.lane.toward == Side::Silo
            && tally.closed_since.is_some()
            && tally.pending > 0
            && here.is_some_and(|portal| portal.spec.silo == silo)
    });
    closed.count()
}

/// When lanes of limited accounts will be empty, as far as that can be told. Messages whose key is missing, or that are
/// held up, wait for something else.
fn backlogs(tallies: &[Tally], portals: &[Portal], paces: &[(String, Pace)]) -> Vec<Backlog> {
    let account_of = |tally: &Tally| match tally.lane.toward {
        Side::Matrix => Some(MATRIX),
        Side::Silo => portals
            .iter()
            .find(|portal| portal.id == tally.lane.portal)
            .map(|portal| portal.spec.silo.as_str()),
    };
    let owed = |tally: &Tally| tally.pending.saturating_sub(tally.waiting + tally.held);
    let mut backlogs = Vec::new();
    for (account, pace) in paces {
        let lanes: Vec<&Tally> = tallies
            .iter()
            .filter(|tally| account_of(tally) == Some(account) && owed(tally) > 0)
            .collect();
        let all: Vec<u64> = lanes.iter().map(|tally| owed(tally)).collect();
        for tally in lanes {
            if let Some(after) = pace.empty_after(owed(tally), &all) {
                backlogs.push(Backlog {
                    portal: tally.lane.portal.0,
                    toward: tally.lane.toward.as_str().to_owned(),
                    empty_after_seconds: after.as_secs(),
                });
            }
        }
    }
    backlogs
}

#[cfg(test)]
mod tests {
    use footbridge_matrix::LONGEST_SYNC;
    use footbridge_store::{LaneId, Place, PortalSpec};

    use super::*;

    /// Palpo answers a long poll 2 s late, Tuwunel a first sync after 5 s: other homeservers take longer under load.
    #[test]
    fn a_sync_that_is_answered_late_is_no_outage() {
        assert!(SYNC_STALE > LONGEST_SYNC + Duration::from_secs(15));
        assert!(LONGEST_SYNC > Duration::from_secs(30 + 2));
    }

    fn tally(portal: i64, toward: Side, pending: u64) -> Tally {
        Tally {
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
            held: 0,
            oldest_free: None,
            parked: 0,
            last_failure: None,
            closed_since: None,
            closed_why: None,
        }
    }

    #[test]
    fn only_lanes_of_a_limited_account_are_told_when_they_are_empty() {
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
            origin: footbridge_store::Origin::File,
        };
        let tallies = [
            tally(1, Side::Matrix, 12),
            tally(1, Side::Silo, 12),
            tally(2, Side::Matrix, 100),
            tally(3, Side::Matrix, 0),
        ];
        let portals = [portal(1, "gitter"), portal(2, "gitter"), portal(3, "other")];
        let pace = Pace {
            interval: Some(Duration::from_secs(5)),
            carried: 1.0,
        };
        let told = backlogs(&tallies, &portals, &[(MATRIX.to_owned(), pace)]);
        let told: Vec<_> = told
            .iter()
            .map(|backlog| {
                (
                    backlog.portal,
                    backlog.toward.as_str(),
                    backlog.empty_after_seconds,
                )
            })
            .collect();
        assert_eq!(told, [(1, "matrix", 120), (2, "matrix", 560)]);
        assert!(backlogs(&tallies, &portals, &[("other".to_owned(), pace)]).is_empty());
    }
}
