//! What the lanes toward one outlet know of each other: whether only this message fails, or whether the whole side is out of
//! order (D23).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_store::{LaneId, Millis};

/// A failure counts as evidence about the side for this long: twice the longest back-off.
const EVIDENCE_VALID_FOR: Duration = Duration::from_mins(10);

/// Whether the last step of a lane succeeded, and when.
#[derive(Clone, Copy, Debug)]
struct LastAttempt {
    worked: bool,
    at: Millis,
}

/// What the other lanes of the side show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// A step of another lane succeeded.
    Works,
    /// All other lanes that tried fail as well.
    Fails,
    /// No other lane tried.
    None,
}

/// One per outlet, shared by its lanes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OutletHealth {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    last: HashMap<LaneId, LastAttempt>,
    closed: HashSet<LaneId>,
}

impl OutletHealth {
    /// A step of this lane succeeded. Returns whether its place was closed before.
    pub(super) fn record_success(&self, lane: LaneId, at: Millis) -> bool {
        let mut shared = self.shared();
        shared.last.insert(lane, LastAttempt { worked: true, at });
        shared.closed.remove(&lane)
    }

    /// A step of this lane failed, and the side may be the reason.
    pub(super) fn record_failure(&self, lane: LaneId, at: Millis) {
        self.shared()
            .last
            .insert(lane, LastAttempt { worked: false, at });
    }

    /// This lane's place is closed to the bridge. Returns whether that is new.
    pub(super) fn record_closed(&self, lane: LaneId) -> bool {
        self.shared().closed.insert(lane)
    }

    /// Whether this lane's place is closed to the bridge, as far as is known.
    pub(super) fn is_closed(&self, lane: LaneId) -> bool {
        self.shared().closed.contains(&lane)
    }

    /// This lane's place is open to the bridge again.
    pub(super) fn opened(&self, lane: LaneId) {
        self.shared().closed.remove(&lane);
    }

    /// What the other lanes show about the side: a success counts if it was after `since`, a failure counts for as long as its
    /// lane may wait for the next attempt.
    pub(super) fn evidence(&self, lane: LaneId, since: Millis, now: Millis) -> Evidence {
        let shared = self.shared();
        let mut evidence = Evidence::None;
        for (other, last) in &shared.last {
            if *other == lane {
                continue;
            }
            if last.worked && last.at >= since {
                return Evidence::Works;
            }
            if !last.worked && now.since(last.at) < EVIDENCE_VALID_FOR {
                evidence = Evidence::Fails;
            }
        }
        evidence
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
