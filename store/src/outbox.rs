//! Debts: what must still be delivered, in which order, and how far each has got.

use crate::{Copy, DeliveryId, EntryId, Error, LaneId, Millis, Place, RemoteId, Store};

/// A debt at the head of its lane.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its row.
    pub id: DeliveryId,
    /// What it delivers.
    pub entry: EntryId,
    /// Its lane.
    pub lane: LaneId,
    /// 32 hex digits: a keyed hash of place, fact and destination. The same after every restart.
    pub key: String,
    /// Where the entry happened.
    pub from: Place,
    /// Where the delivery goes.
    pub to: Place,
    /// The neutral message, opened.
    pub payload: Vec<u8>,
    /// The plan, once one was made.
    pub plan: Option<Vec<u8>>,
    /// Steps of the plan that are done.
    pub steps_done: u32,
    /// Tries of the present step that failed.
    pub attempts: u32,
    /// Since when nobody knows whether the present step happened.
    pub unsure_since: Option<Millis>,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// Whether others may have overtaken it while its key was missing.
    pub late: bool,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("lane", &self.lane)
            .finish_non_exhaustive()
    }
}

/// What stands first in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// Nothing is owed, or only entries whose keys are missing and that others may pass.
    Empty,
    /// Nothing may be tried before this moment (back-off, or an entry whose key is waited for).
    NotBefore(Millis),
    /// This.
    Ready(Box<Delivery>),
}

/// How a delivery ends without being delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// By a documented rule; counted.
    Skipped(String),
    /// It could not be; somebody is told.
    Failed {
        /// One sentence, without message text.
        reason: String,
        /// A neutral message for the place the entry came from, to be delivered by the opposite lane.
        notice: Option<Vec<u8>>,
    },
}

/// The conservation counters of one lane: `accepted = delivered + skipped + failed + pending`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The lane.
    pub lane: LaneId,
    /// Debts ever taken on.
    pub accepted: u64,
    /// Paid.
    pub delivered: u64,
    /// Ended by a rule: rule, count.
    pub skipped: Vec<(String, u64)>,
    /// Ended without success.
    pub failed: u64,
    /// Still owed.
    pub pending: u64,
    /// Of the pending ones, those whose key is missing.
    pub waiting: u64,
    /// When the oldest pending one was accepted.
    pub oldest_pending: Option<Millis>,
}

impl Store {
    /// What stands first in the lane.
    pub async fn head(&self, lane: LaneId, now: Millis) -> Result<Head, Error> {
        let _ = (lane, now);
        unimplemented!()
    }

    /// Keeps the plan before its first step.
    pub async fn planned(&self, delivery: DeliveryId, plan: &[u8]) -> Result<(), Error> {
        let _ = (delivery, plan);
        unimplemented!()
    }

    /// The present step is about to be tried and nobody can tell afterwards whether it happened. Keeps the
    /// earliest such moment. With `plan` it also keeps the plan, in the same transaction.
    pub async fn unsure(
        &self,
        delivery: DeliveryId,
        plan: Option<&[u8]>,
        now: Millis,
    ) -> Result<(), Error> {
        let _ = (delivery, plan, now);
        unimplemented!()
    }

    /// The present step is done: `made` is linked to the entry, `gone` is unlinked, attempts and doubt are
    /// cleared. With `last` the delivery is settled as delivered in the same transaction, its payload erased
    /// if no other debt needs it.
    pub async fn step_done(
        &self,
        delivery: DeliveryId,
        made: Option<&Copy>,
        gone: Option<&RemoteId>,
        last: bool,
        now: Millis,
    ) -> Result<(), Error> {
        let _ = (delivery, made, gone, last, now);
        unimplemented!()
    }

    /// The present step failed for now: one more attempt, not again before `due`. `sure` says that it
    /// certainly did not happen, which clears the doubt.
    pub async fn postponed(
        &self,
        delivery: DeliveryId,
        due: Millis,
        sure: bool,
    ) -> Result<(), Error> {
        let _ = (delivery, due, sure);
        unimplemented!()
    }

    /// The delivery ends without being delivered. Answers the lane to ring when a notice was queued.
    pub async fn undelivered(
        &self,
        delivery: DeliveryId,
        how: Undelivered,
        now: Millis,
    ) -> Result<Option<LaneId>, Error> {
        let _ = (delivery, how, now);
        unimplemented!()
    }

    /// Whether some step toward this place is in doubt or under way.
    pub async fn in_doubt(&self, place: &Place) -> Result<bool, Error> {
        let _ = place;
        unimplemented!()
    }

    /// The conservation counters, one row per lane.
    pub async fn tallies(&self) -> Result<Vec<Tally>, Error> {
        unimplemented!()
    }

    /// Lanes that owe something.
    pub async fn lanes_with_debts(&self) -> Result<Vec<LaneId>, Error> {
        unimplemented!()
    }
}
