//! Debts: what must still be delivered, in which order, and how far each has got.

use std::time::Duration;

use rusqlite::params;

use crate::{
    Copy, DeliveryId, EntryId, Error, LaneId, Millis, Place, RemoteId, Store, bundle, columns,
    database::{Desk, Fault},
    head::plan_cell,
    links, parked, removal,
    settle::{self, Debt, End},
};

/// A debt at the head of its lane.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its row.
    pub id: DeliveryId,
    /// What it delivers.
    pub entry: EntryId,
    /// Its lane.
    pub lane: LaneId,
    /// The portals that it passes from the place where it was said, in order; the last is its lane's.
    pub path: Vec<LaneId>,
    /// 32 hex digits: a keyed hash of place, fact and destination. The same after every restart.
    pub key: String,
    /// Where the entry happened.
    pub from: Place,
    /// Where the delivery goes.
    pub to: Place,
    /// The neutral message, opened.
    pub payload: Vec<u8>,
    /// The edit whose text it is, where the message took one in before it went.
    pub text_of: Option<EntryId>,
    /// The plan, once one was made.
    pub plan: Option<Vec<u8>>,
    /// Steps of the plan that are done.
    pub steps_done: u32,
    /// Tries of the present step that failed.
    pub attempts: u32,
    /// Since when nobody knows whether the present step happened.
    pub unsure_since: Option<Millis>,
    /// Since when a try of the present step may have happened whose answer nobody saw. Said of places that dedupe.
    pub unanswered_since: Option<Millis>,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// Whether others may have overtaken it while its key was missing, or since it failed.
    pub late: bool,
    /// Tries of all its steps that failed, also before it failed for good and was tried again.
    pub tries: u32,
    /// Answers to the present step that looked like never and spoke against this message.
    pub rejections: u32,
    /// How long the present step has failed while the other side was well.
    pub blamed: Duration,
    /// When the present step last failed.
    pub tried_at: Option<Millis>,
    /// Whether it had failed before and is tried again.
    pub again: bool,
    /// Whether it goes before the backlog: something that the bridge itself has to say.
    pub urgent: bool,
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
    /// It could not be. It is kept to be tried again, and what people are told of it is written by
    /// [`Store::refresh_notices`].
    Failed {
        /// The kind of the last error: a short fixed word.
        kind: &'static str,
        /// One sentence, without message text.
        reason: String,
        /// The message it would have changed, in the place where it happened.
        about: Option<RemoteId>,
        /// Whether anybody is told.
        tell: Tell,
    },
}

/// Whether people are told of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Where the entry happened.
    Sender,
    /// It is a message of the bridge itself: a notice about a notice is not sent.
    Nobody,
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
    /// Of the pending ones, those that are held up: with this portal, or with another that they have to pass.
    pub held: u64,
    /// When the oldest of the others was accepted.
    pub oldest_free: Option<Millis>,
    /// Of the failed ones, those that are kept to be tried again.
    pub parked: u64,
    /// The kind of error by which the last one failed; a short fixed word.
    pub last_failure: Option<String>,
    /// Since when the place does not let us in, if so.
    pub closed_since: Option<Millis>,
    /// Why; one sentence.
    pub closed_why: Option<String>,
}

/// A step of which nobody knows yet whether it happened: of which delivery, and which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt(i64, i64);

impl Store {
    /// Keeps the plan before its first step.
    pub async fn planned(&self, delivery: DeliveryId, plan: &[u8]) -> Result<(), Error> {
        let plan = plan.to_owned();
        self.transaction("keep a plan", move |desk| {
            write_plan(desk, delivery, &plan).map(|rows| note(rows, delivery))
        })
        .await
    }

    /// The present step is about to be tried and nobody can tell afterwards whether it happened. Keeps the
    /// earliest such moment. With `plan` it also keeps the plan, in the same transaction.
    pub async fn unsure(
        &self,
        delivery: DeliveryId,
        plan: Option<&[u8]>,
        now: Millis,
    ) -> Result<(), Error> {
        let plan = plan.map(<[u8]>::to_owned);
        self.transaction("mark a step as unsure", move |desk| {
            if let Some(plan) = &plan {
                write_plan(desk, delivery, plan)?;
            }
            let rows = desk
                .sql
                .prepare_cached(
                    "UPDATE outbox SET unsure_since = coalesce(unsure_since, ?2) WHERE id = ?1",
                )?
                .execute(params![delivery, now])?;
            note(rows, delivery);
            Ok(())
        })
        .await
    }

    /// The present step is done: `made` is linked to the entry (and to those of debts bound to this one, which are
    /// settled with it), `gone` is unlinked, attempts and doubt are cleared. With `last` the delivery is settled as
    /// delivered in the same transaction, its payload erased if no other debt needs it. Answers whether it was still owed;
    /// if not, nothing is written.
    pub async fn step_done(
        &self,
        delivery: DeliveryId,
        made: Option<&Copy>,
        gone: Option<&RemoteId>,
        last: bool,
        now: Millis,
    ) -> Result<bool, Error> {
        let (made, gone) = (made.cloned(), gone.cloned());
        // A settled delivery leaves no row that could have a time.
        let _ = now;
        self.transaction("settle a step", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                note(0, delivery);
                return Ok(false);
            };
            if let Some(made) = &made {
                bundle::link_made(desk, &debt, made)?;
            }
            if let Some(gone) = &gone {
                links::unlink(desk.sql, &debt.to, gone)?;
            }
            advance(desk, &debt, last)?;
            Ok(true)
        })
        .await
    }

    /// The present step was turned away before anything happened, for a reason that is not its own: no attempt
    /// is counted, and there is no doubt. If it waited only for that to be known, the delivery ends.
    pub async fn held_back(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("hold a step back", move |desk| {
            let rows = desk
                .sql
                .prepare_cached("UPDATE outbox SET unsure_since = NULL WHERE id = ?1")?
                .execute([delivery])?;
            note(rows, delivery);
            removal::end_without_path(desk, delivery)
        })
        .await
    }

    /// The delivery ends without being delivered, and so do those bound to it. Settled already, nothing happens.
    pub async fn undelivered(
        &self,
        delivery: DeliveryId,
        how: Undelivered,
        now: Millis,
    ) -> Result<(), Error> {
        self.transaction("give up a delivery", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                note(0, delivery);
                return Ok(());
            };
            // What one message would have paid ends together: nobody knows of one part alone that it arrived.
            let bound = settle::led_by(desk.sql, delivery)?;
            for debt in bound.into_iter().map(|(rider, _)| rider).chain([debt]) {
                match &how {
                    Undelivered::Skipped(rule) => settle::settle(desk, &debt, End::Skipped(rule))?,
                    Undelivered::Failed {
                        kind,
                        reason,
                        about,
                        tell,
                    } => {
                        let why = parked::Why {
                            kind,
                            reason,
                            about: about.as_ref(),
                        };
                        parked::park(desk, &debt, &why, *tell, now)?;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Whether some step toward this place is in doubt or under way.
    pub async fn in_doubt(&self, place: &Place) -> Result<bool, Error> {
        Ok(!self.doubts(place).await?.is_empty())
    }

    /// The steps toward this place that are in doubt or under way.
    pub async fn doubts(&self, place: &Place) -> Result<Vec<Doubt>, Error> {
        let place = place.clone();
        self.read("look for steps in doubt", move |desk| {
            let mut query = desk.sql.prepare_cached(
                "SELECT id, steps_done FROM outbox WHERE to_place = ?1 AND unsure_since IS NOT NULL",
            )?;
            let rows = query.query_map([&place], |row| Ok(Doubt(row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The conservation counters, one row per lane. What the delay of a consent holds up counts as free.
    pub async fn tallies(&self) -> Result<Vec<Tally>, Error> {
        self.tallies_at(Millis(i64::MAX)).await
    }

    /// The same with what is held up at this moment.
    pub async fn tallies_at(&self, now: Millis) -> Result<Vec<Tally>, Error> {
        self.read("read the tallies", move |desk| {
            settle::tallies(desk.sql, now)
        })
        .await
    }

    /// Lanes that owe something.
    pub async fn lanes_with_debts(&self) -> Result<Vec<LaneId>, Error> {
        self.read("read the lanes with debts", |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT DISTINCT portal_id, toward FROM outbox ORDER BY portal_id, toward",
                )?
                .query_map([], columns::lane)?
                .collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// A delivery may have been settled from another side, its portal being removed. Nothing is owed then.
pub(crate) fn note(rows: usize, delivery: DeliveryId) {
    if rows == 0 {
        tracing::debug!(delivery.id = %delivery, "The delivery is settled already");
    }
}

/// The present step of a debt is done, the last one or not.
pub(crate) fn advance(desk: &Desk<'_>, debt: &Debt, last: bool) -> Result<(), Fault> {
    if last {
        return settle::settle(desk, debt, End::Delivered);
    }
    desk.sql
        .prepare_cached(
            "UPDATE outbox SET steps_done = steps_done + 1, attempts = 0, due = 0,
             unsure_since = NULL, unanswered_since = NULL, rejections = 0, blamed_ms = 0,
             tried_at = NULL WHERE id = ?1",
        )?
        .execute([debt.id])?;
    // If only its doubt kept it, the rest of it does not go.
    removal::end_without_path(desk, debt.id)
}

pub(crate) fn write_plan(
    desk: &Desk<'_>,
    delivery: DeliveryId,
    plan: &[u8],
) -> Result<usize, Fault> {
    let sealed = desk.seal.seal(plan_cell(delivery), plan)?;
    Ok(desk
        .sql
        .prepare_cached("UPDATE outbox SET plan = ?2 WHERE id = ?1")?
        .execute(params![delivery, sealed])?)
}
