//! What the lanes toward one outlet know of each other: whether it is this message that is not taken, or
//! whether the whole side is out of order (D23).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_store::{LaneId, Millis};

/// A failure says something of the side for this long: twice the longest back-off.
const FRESH: Duration = Duration::from_mins(10);

/// How the last step of a lane went, and when.
#[derive(Clone, Copy, Debug)]
struct Last {
    worked: bool,
    at: Millis,
}

/// What the other lanes of the side say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A step of theirs worked.
    Works,
    /// Theirs fail as well, all of them.
    Fails,
    /// None of them tried.
    Silence,
}

/// One per outlet, shared by its lanes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    last: HashMap<LaneId, Last>,
    closed: HashSet<LaneId>,
}

impl Peers {
    /// A step of this lane worked. Answers whether its place was closed before.
    pub(super) fn worked(&self, lane: LaneId, at: Millis) -> bool {
        let mut shared = self.shared();
        shared.last.insert(lane, Last { worked: true, at });
        shared.closed.remove(&lane)
    }

    /// A step of this lane failed for a reason that may be the side's.
    pub(super) fn failed(&self, lane: LaneId, at: Millis) {
        self.shared().last.insert(lane, Last { worked: false, at });
    }

    /// This lane's place does not let us in. Answers whether that is news.
    pub(super) fn closed(&self, lane: LaneId) -> bool {
        self.shared().closed.insert(lane)
    }

    /// Whether this lane's place does not let us in, as far as is known.
    pub(super) fn is_closed(&self, lane: LaneId) -> bool {
        self.shared().closed.contains(&lane)
    }

    /// This lane's place lets us in again.
    pub(super) fn opened(&self, lane: LaneId) {
        self.shared().closed.remove(&lane);
    }

    /// What the others have seen of the side: one that worked counts since `since`, those that failed count
    /// for as long as they may be waiting for their next try.
    pub(super) fn word(&self, lane: LaneId, since: Millis, now: Millis) -> Word {
        let shared = self.shared();
        let mut word = Word::Silence;
        for (other, last) in &shared.last {
            if *other == lane {
                continue;
            }
            if last.worked && last.at >= since {
                return Word::Works;
            }
            if !last.worked && now.since(last.at) < FRESH {
                word = Word::Fails;
            }
        }
        word
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
