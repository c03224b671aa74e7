//! Debts: what must still be delivered, in which order, and how far each has got.

use rusqlite::params;

use crate::{
    Copy, DeliveryId, EntryId, Error, LaneId, Millis, Payload, Place, RemoteId, Store, columns,
    database::{Desk, Fault},
    head::{self, plan_cell},
    journal, links,
    portals::Graph,
    settle::{self, Debt, End},
};

/// The network of what the bridge itself has to say. No portal leads to it.
const BRIDGE: &str = "bridge";

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
    /// What stands first in the lane. A delivery that has begun comes first, then the oldest.
    pub async fn head(&self, lane: LaneId, now: Millis) -> Result<Head, Error> {
        self.read("read the head of a lane", move |desk| {
            head::head(desk, lane, now)
        })
        .await
    }

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
        let (made, gone) = (made.cloned(), gone.cloned());
        // A settled delivery leaves no row that could have a time.
        let _ = now;
        self.transaction("settle a step", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                note(0, delivery);
                return Ok(());
            };
            if let Some(made) = &made {
                links::link(desk.sql, debt.entry, &debt.to, made)?;
            }
            if let Some(gone) = &gone {
                links::unlink(desk.sql, &debt.to, gone)?;
            }
            step_on(desk, &debt, last)
        })
        .await
    }

    /// The present step is done and `made` a message that belongs to another one: a new text of the message that
    /// `original` names. It is linked as the next part of that one, so that whoever takes the original back takes
    /// both. Otherwise as [`Store::step_done`].
    pub async fn step_made_for(
        &self,
        delivery: DeliveryId,
        made: &Copy,
        original: (&Place, &RemoteId),
        last: bool,
    ) -> Result<(), Error> {
        let (made, place, remote) = (made.clone(), original.0.clone(), original.1.clone());
        self.transaction("settle a step", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                note(0, delivery);
                return Ok(());
            };
            let entry = links::entry(desk.sql, &place, &remote)?.unwrap_or(debt.entry);
            links::link(desk.sql, entry, &debt.to, &made)?;
            step_on(desk, &debt, last)
        })
        .await
    }

    /// The present step failed for now: one more attempt, not again before `due`. `sure` says that it
    /// certainly did not happen, which clears the doubt.
    pub async fn postponed(
        &self,
        delivery: DeliveryId,
        due: Millis,
        sure: bool,
    ) -> Result<(), Error> {
        self.transaction("postpone a step", move |desk| {
            let rows = desk
                .sql
                .prepare_cached(
                    "UPDATE outbox SET attempts = attempts + 1, due = ?2,
                     unsure_since = iif(?3, NULL, unsure_since) WHERE id = ?1",
                )?
                .execute(params![delivery, due, sure])?;
            note(rows, delivery);
            Ok(())
        })
        .await
    }

    /// The delivery ends without being delivered. Answers the lane to ring when a notice was queued. A notice
    /// about a notice is not sent.
    pub async fn undelivered(
        &self,
        delivery: DeliveryId,
        how: Undelivered,
        now: Millis,
    ) -> Result<Option<LaneId>, Error> {
        self.transaction("give up a delivery", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                note(0, delivery);
                return Ok(None);
            };
            match how {
                Undelivered::Skipped(rule) => {
                    settle::settle(desk, &debt, End::Skipped(&rule))?;
                    Ok(None)
                }
                Undelivered::Failed { notice, .. } => {
                    settle::settle(desk, &debt, End::Failed)?;
                    notice.map_or(Ok(None), |letter| give_notice(desk, &debt, letter, now))
                }
            }
        })
        .await
    }

    /// Whether some step toward this place is in doubt or under way.
    pub async fn in_doubt(&self, place: &Place) -> Result<bool, Error> {
        let place = place.clone();
        self.read("look for steps in doubt", move |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT 1 FROM outbox WHERE to_place = ?1 AND unsure_since IS NOT NULL LIMIT 1",
                )?
                .exists([place])?)
        })
        .await
    }

    /// The conservation counters, one row per lane.
    pub async fn tallies(&self) -> Result<Vec<Tally>, Error> {
        self.read("read the tallies", |desk| settle::tallies(desk.sql))
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

/// The line moves on by one step, or with the last one to the next delivery.
fn step_on(desk: &Desk<'_>, debt: &settle::Debt, last: bool) -> Result<(), Fault> {
    if last {
        return settle::settle(desk, debt, End::Delivered);
    }
    desk.sql
        .prepare_cached(
            "UPDATE outbox SET steps_done = steps_done + 1, attempts = 0, due = 0,
             unsure_since = NULL WHERE id = ?1",
        )?
        .execute([debt.id])?;
    Ok(())
}

/// A delivery may have been settled from another side, its portal being removed. Nothing is owed then.
fn note(rows: usize, delivery: DeliveryId) {
    if rows == 0 {
        tracing::debug!(delivery.id = %delivery, "The delivery is settled already");
    }
}

fn write_plan(desk: &Desk<'_>, delivery: DeliveryId, plan: &[u8]) -> Result<usize, Fault> {
    let sealed = desk.seal.seal(plan_cell(delivery), plan)?;
    Ok(desk
        .sql
        .prepare_cached("UPDATE outbox SET plan = ?2 WHERE id = ?1")?
        .execute(params![delivery, sealed])?)
}

/// Owes a notice to the place where the entry happened, by the lane that leads there.
fn give_notice(
    desk: &Desk<'_>,
    failed: &Debt,
    letter: Vec<u8>,
    now: Millis,
) -> Result<Option<LaneId>, Fault> {
    let origin: Place = desk
        .sql
        .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
        .query_row([failed.entry], |row| row.get(0))?;
    let back = Graph::load(desk.sql)?
        .reach(&failed.to)
        .into_iter()
        .find(|(_, place)| *place == origin);
    let Some((lane, to)) = back else {
        return Ok(None);
    };
    let place = Place::new(BRIDGE, "notice");
    let fact = RemoteId(format!("delivery-{}", failed.id));
    let entry = journal::write_fact(desk, &place, &fact, now)?;
    journal::write_letter(desk, entry, &Payload::Ready(letter))?;
    settle::owe(desk, entry, (&place, &fact), (lane, &to), now)?;
    Ok(Some(lane))
}
