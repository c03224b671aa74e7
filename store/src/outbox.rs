//! The outbox: pending deliveries, their order, and the progress of each.

use std::time::Duration;

use rusqlite::params;

use crate::{
    ChosenSender, Copy, DeliveryId, EntryId, Error, LaneId, Millis, Place, RemoteId, SkipRule,
    Store, bundles,
    counters::{self, DeliveryEnd, PendingDelivery},
    database::{Tx, TxError},
    links, parked,
    queue::plan_cell,
    removal,
};

/// A delivery at the head of its lane.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its row.
    pub id: DeliveryId,
    /// What it delivers.
    pub entry: EntryId,
    /// Its lane.
    pub lane: LaneId,
    /// The portals on its route from the place of its event, in order; the last is its lane's.
    pub path: Vec<LaneId>,
    /// 32 hex digits: a keyed hash of place, event id and destination. The same after every restart.
    pub key: String,
    /// Where the entry happened.
    pub from: Place,
    /// Where the delivery goes.
    pub to: Place,
    /// The neutral message, decrypted.
    pub payload: Vec<u8>,
    /// The edit whose text it has, where the message includes one.
    pub text_of: Option<EntryId>,
    /// The plan, once one was made.
    pub plan: Option<Vec<u8>>,
    /// Steps of the plan that are done.
    pub steps_done: u32,
    /// Failed attempts of the present step.
    pub attempts: u32,
    /// Since when it is unknown whether the present step happened.
    pub outcome_unknown_since: Option<Millis>,
    /// Since when the result of an attempt of the present step is unknown, in places that deduplicate.
    pub unanswered_since: Option<Millis>,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// Whether others may have passed it while its room key was missing, or since it failed.
    pub late: bool,
    /// Failed attempts of all its steps, also from before it failed for good and was retried.
    pub tries: u32,
    /// Permanent errors of the present step that concern this message alone.
    pub rejections: u32,
    /// How long the present step has failed while the other side worked.
    pub blame: Duration,
    /// When the present step last failed.
    pub tried_at: Option<Millis>,
    /// Whether it had failed before and is retried.
    pub is_retry: bool,
    /// Whether it precedes the backlog: a notice of the bridge.
    pub urgent: bool,
    /// Which account attempts its present step.
    pub sender: ChosenSender,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("lane", &self.lane)
            .finish_non_exhaustive()
    }
}

/// The head of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueHead {
    /// Nothing is pending, or only entries whose room keys are missing and that others may pass.
    Empty,
    /// No attempt before this moment (back-off, or an entry whose room key is waited for).
    NotBefore(Millis),
    /// This delivery.
    Ready(Box<Delivery>),
}

/// How a delivery ends without being delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// By a documented rule; counted.
    Skipped(SkipRule),
    /// It could not be delivered. It can be retried, and [`Store::refresh_notices`] writes the notice about it.
    Failed {
        /// The kind of the last error: a short fixed word.
        kind: &'static str,
        /// One sentence, without message text.
        reason: String,
        /// The message that it would have edited or deleted, in its own place.
        about: Option<RemoteId>,
        /// Whether a notice reports it.
        notice: FailureNotice,
    },
}

/// Whether a failure is reported to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureNotice {
    /// In the place of the entry.
    ToSender,
    /// Not at all: it is a notice of the bridge, and there are no notices about notices.
    None,
}

/// The conservation counters of one lane: `accepted = delivered + skipped + failed + pending`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneCounters {
    /// The lane.
    pub lane: LaneId,
    /// Deliveries ever enqueued.
    pub accepted: u64,
    /// Delivered.
    pub delivered: u64,
    /// Ended by a rule: rule, count.
    pub skipped: Vec<(SkipRule, u64)>,
    /// Ended without success.
    pub failed: u64,
    /// Still pending.
    pub pending: u64,
    /// Of the pending ones, those whose room key is missing.
    pub waiting: u64,
    /// When the oldest pending one was accepted.
    pub oldest_pending: Option<Millis>,
    /// Of the pending ones, those on hold: because of this portal, or of another one on their route.
    pub on_hold: u64,
    /// When the oldest of the others was accepted.
    pub oldest_not_on_hold: Option<Millis>,
    /// Of the failed ones, those that can be retried.
    pub parked: u64,
    /// The kind of error of the last failure; a short fixed word.
    pub last_failure: Option<String>,
    /// Since when the lane is closed, if it is.
    pub closed_since: Option<Millis>,
    /// Why; one sentence.
    pub closed_reason: Option<String>,
}

/// A step with unknown outcome: of which delivery, and which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownOutcome(i64, i64);

impl Store {
    /// Saves the plan before its first step.
    pub async fn save_plan(&self, delivery: DeliveryId, plan: &[u8]) -> Result<(), Error> {
        let plan = plan.to_owned();
        self.transaction("save a plan", move |tx| {
            write_plan(tx, delivery, &plan).map(|rows| log_if_settled(rows, delivery))
        })
        .await
    }

    /// The present step is about to be attempted, and nobody can tell afterwards whether it happened. Keeps the earliest such
    /// moment. With `plan` it also saves the plan, in the same transaction.
    pub async fn mark_outcome_unknown(
        &self,
        delivery: DeliveryId,
        plan: Option<&[u8]>,
        now: Millis,
    ) -> Result<(), Error> {
        let plan = plan.map(<[u8]>::to_owned);
        self.transaction("mark an outcome as unknown", move |tx| {
            if let Some(plan) = &plan {
                write_plan(tx, delivery, plan)?;
            }
            let rows = tx
                .sql
                .prepare_cached(
                    "UPDATE outbox SET outcome_unknown_since = coalesce(outcome_unknown_since, ?2) WHERE id = ?1",
                )?
                .execute(params![delivery, now])?;
            log_if_settled(rows, delivery);
            Ok(())
        })
        .await
    }

    /// The present step is done: `created` is linked to the entry (and to those of the bundled deliveries, which are settled with
    /// it), `gone` is marked as deleted, and attempts and unknown outcome are cleared. With `last` the delivery is settled as
    /// delivered in the same transaction, and its payload erased if no other delivery needs it. Returns whether it was still
    /// pending; if not, nothing is written.
    pub async fn complete_step(
        &self,
        delivery: DeliveryId,
        created: Option<&Copy>,
        gone: Option<&RemoteId>,
        last: bool,
        now: Millis,
    ) -> Result<bool, Error> {
        let (created, gone) = (created.cloned(), gone.cloned());
        // A settled delivery leaves no row that could have a time.
        let _ = now;
        self.transaction("settle a step", move |tx| {
            let Some(pending) = counters::pending(tx.sql, delivery)? else {
                log_if_settled(0, delivery);
                return Ok(false);
            };
            if let Some(created) = &created {
                bundles::link_created(tx, &pending, created)?;
            }
            if let Some(gone) = &gone {
                links::mark_deleted(tx.sql, &pending.to, gone)?;
            }
            advance_plan(tx, &pending, last)?;
            Ok(true)
        })
        .await
    }

    /// The present step was refused before anything happened, for a reason that is not its own: no attempt is counted, and its
    /// outcome is known. If the delivery stayed only until that was known, it ends.
    pub async fn mark_not_attempted(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("note that a step was not attempted", move |tx| {
            let rows = tx
                .sql
                .prepare_cached("UPDATE outbox SET outcome_unknown_since = NULL WHERE id = ?1")?
                .execute([delivery])?;
            log_if_settled(rows, delivery);
            removal::end_if_no_route(tx, delivery)
        })
        .await
    }

    /// The delivery ends without being delivered, and so do those bundled with it. Settled already, nothing happens.
    pub async fn end_undelivered(
        &self,
        delivery: DeliveryId,
        how: Undelivered,
        now: Millis,
    ) -> Result<(), Error> {
        self.transaction("give up a delivery", move |tx| {
            let Some(pending) = counters::pending(tx.sql, delivery)? else {
                log_if_settled(0, delivery);
                return Ok(());
            };
            // Bundled deliveries end together: of one part alone nobody can know that it arrived.
            let bound = counters::members_of(tx.sql, delivery)?;
            let may_be_there = match &how {
                Undelivered::Failed { kind, .. } => {
                    matches!(*kind, "unknown" | "unlinked") || bundles::was_tried(tx, delivery)?
                }
                Undelivered::Skipped(_) => false,
            };
            let mut bundles = Vec::new();
            for (member, _) in &bound {
                bundles.push(bundles::bundle_of(tx, member.id)?);
            }
            bundles.push(bundles::bundle_of(tx, delivery)?);
            let mut bundles = bundles.into_iter();
            for pending in bound.into_iter().map(|(member, _)| member).chain([pending]) {
                let bundle = bundles.next().flatten();
                match &how {
                    Undelivered::Skipped(rule) => {
                        counters::settle(tx, &pending, DeliveryEnd::Skipped(*rule))?;
                    }
                    Undelivered::Failed {
                        kind,
                        reason,
                        about,
                        notice,
                    } => {
                        let why = parked::FailureReason {
                            kind,
                            reason,
                            about: about.as_ref(),
                            bundle: bundle.as_ref().filter(|_| may_be_there),
                        };
                        parked::park(tx, &pending, &why, *notice, now)?;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// The plan of a delivery no longer applies, and none of its steps is under way: it is planned again. The transaction keys of
    /// the new steps are new, because the other side may know the old ones with another text.
    pub async fn discard_plan(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("discard a plan", move |tx| {
            let rows = tx
                .sql
                .prepare_cached(
                    "UPDATE outbox SET plan = NULL, steps_done = 0, transaction_key = transaction_key || '.again',
                     outcome_unknown_since = NULL, unanswered_since = NULL WHERE id = ?1",
                )?
                .execute([delivery])?;
            log_if_settled(rows, delivery);
            tx.mark_erased();
            removal::end_if_no_route(tx, delivery)
        })
        .await
    }

    /// The steps toward this place whose outcome is unknown, and those that are being attempted.
    pub async fn unknown_outcomes(&self, place: &Place) -> Result<Vec<UnknownOutcome>, Error> {
        let place = place.clone();
        self.read("look for unknown outcomes", move |tx| {
            let mut query = tx.sql.prepare_cached(
                "SELECT id, steps_done FROM outbox WHERE to_place = ?1 AND outcome_unknown_since IS NOT NULL",
            )?;
            let rows = query.query_map([&place], |row| Ok(UnknownOutcome(row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The conservation counters, one row per lane. Deliveries that only the delay of a consent holds do not count as on hold.
    pub async fn lane_counters(&self) -> Result<Vec<LaneCounters>, Error> {
        self.lane_counters_at(Millis(i64::MAX)).await
    }

    /// The same with the holds of this moment.
    pub async fn lane_counters_at(&self, now: Millis) -> Result<Vec<LaneCounters>, Error> {
        self.read("read the counters", move |tx| {
            counters::lane_counters(tx.sql, now)
        })
        .await
    }
}

/// Another operation may have settled the delivery, for example the removal of its portal. Nothing is pending then.
pub(crate) fn log_if_settled(rows: usize, delivery: DeliveryId) {
    if rows == 0 {
        tracing::debug!(delivery.id = %delivery, "The delivery was already settled");
    }
}

/// The present step of a delivery is done, the last one or not.
pub(crate) fn advance_plan(
    tx: &Tx<'_>,
    pending: &PendingDelivery,
    last: bool,
) -> Result<(), TxError> {
    if last {
        return counters::settle(tx, pending, DeliveryEnd::Delivered);
    }
    tx.sql
        .prepare_cached(
            "UPDATE outbox SET steps_done = steps_done + 1, attempts = 0, retry_at = 0,
             outcome_unknown_since = NULL, unanswered_since = NULL, rejections = 0, blame_ms = 0,
             last_attempt_at = NULL WHERE id = ?1",
        )?
        .execute([pending.id])?;
    // If the delivery stayed only because its outcome was unknown, its other steps are not done.
    removal::end_if_no_route(tx, pending.id)
}

pub(crate) fn write_plan(tx: &Tx<'_>, delivery: DeliveryId, plan: &[u8]) -> Result<usize, TxError> {
    let sealed = tx.seal.seal(plan_cell(delivery), plan)?;
    Ok(tx
        .sql
        .prepare_cached("UPDATE outbox SET plan = ?2 WHERE id = ?1")?
        .execute(params![delivery, sealed])?)
}
