//! Deliveries that failed and are kept to be tried again. They count as failed; tried again they are pending,
//! so that every message is still counted once.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    DeliveryId, EntryId, Error, LaneId, Millis, Place, RemoteId, Store, Tell, bulletins, changes,
    columns,
    database::{Desk, Fault},
    links, notices, rewritten,
    settle::{self, Debt, End},
};

/// How many failed messages of one lane are kept to be tried again; of older ones only the reason stays.
const KEPT: i64 = 1_000;
/// How long they are kept.
const KEPT_FOR: Duration = Duration::from_hours(30 * 24);

/// A delivery that failed, and what came of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its number, now and when it is tried again.
    pub id: DeliveryId,
    /// What was to be delivered.
    pub entry: EntryId,
    /// The lane it failed in.
    pub lane: LaneId,
    /// Where it was to go.
    pub to: Place,
    /// Its state now.
    pub state: ParkedState,
    /// Whether its letter is still there, so that it can be tried again.
    pub kept: bool,
    /// The neutral message, opened; while it is kept.
    pub letter: Option<Vec<u8>>,
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked")
            .field("id", &self.id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What came of a delivery that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedState {
    /// It is as it was.
    Failed,
    /// It is tried again.
    Again,
    /// It was delivered after all.
    Delivered,
    /// Tried again it was skipped by a rule.
    Skipped,
}

impl ParkedState {
    pub(crate) fn read(word: &str) -> Self {
        match word {
            "again" => Self::Again,
            "delivered" => Self::Delivered,
            "skipped" => Self::Skipped,
            _ => Self::Failed,
        }
    }
}

/// Why a delivery failed.
pub(crate) struct Why<'a> {
    pub kind: &'a str,
    pub reason: &'a str,
    pub about: Option<&'a RemoteId>,
}

impl Store {
    /// The failed deliveries that a message of `place` speaks of: its own, those of the notice it is, or, for
    /// the first message of a thread, those of the thread.
    pub async fn parked_about(
        &self,
        place: &Place,
        remote: &RemoteId,
    ) -> Result<Vec<Parked>, Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.read("read the failures of a message", move |desk| {
            let entry = links::entry(desk.sql, &place, &remote)?;
            let bulletin = bulletins::of(desk, entry)?;
            let mut found: Vec<Parked> = desk
                .sql
                .prepare_cached(
                    "SELECT id, portal_id, toward, to_place, state, kept, entry_id FROM parked
                     WHERE entry_id = ?1 OR bulletin = ?4 OR about = ?2
                     OR entry_id IN (SELECT entry_id FROM link WHERE place = ?3 AND thread = ?2)
                     ORDER BY id",
                )?
                .query_map(params![entry, remote, place, bulletin], parked_from_row)?
                .collect::<Result<_, _>>()?;
            for parked in &mut found {
                if parked.kept {
                    parked.letter = rewritten::letter(desk, parked.entry, &parked.to)?;
                }
            }
            Ok(found)
        })
        .await
    }

    /// Owes these again that have failed and are kept, with the keys and plans they had: failed becomes
    /// pending. Others are left as they are, so that it does no harm twice. Answers the lanes to ring.
    pub async fn try_again(&self, deliveries: &[DeliveryId]) -> Result<Vec<LaneId>, Error> {
        let deliveries = deliveries.to_vec();
        self.transaction("try failed deliveries again", move |desk| {
            let mut lanes = Vec::new();
            for id in &deliveries {
                lanes.extend(unpark(desk, *id)?);
            }
            Ok(lanes)
        })
        .await
    }

    /// The message that `from` calls `target` no longer says what it said, for this reason. If its delivery to `to` failed and
    /// is kept, or that of an edit of it, nothing is kept any more. Answers whether that was so.
    pub async fn take_back(
        &self,
        from: &Place,
        target: &RemoteId,
        to: &Place,
        why: &'static str,
    ) -> Result<bool, Error> {
        let (from, target, to) = (from.clone(), target.clone(), to.clone());
        self.transaction("take back a failed message", move |desk| {
            let Some(entry) = links::entry(desk.sql, &from, &target)? else {
                return Ok(false);
            };
            let message = (entry, Some((&from, &target)));
            changes::take_back_failed(desk, message, &to, why)
        })
        .await
    }

    /// Erases the letters of failures that are too old to be tried again.
    pub async fn forget_failures(&self, now: Millis) -> Result<(), Error> {
        self.transaction("forget old failures", move |desk| {
            let old = kept(desk, "failed_at < ?1", [earliest(now)])?;
            erase(desk, &old)
        })
        .await
    }

    /// Ends as failed whatever a lane owes since `before` or longer, whose place does not let us in. What may
    /// have happened, or waits for a key, stays. Answers how many.
    pub async fn park_older(
        &self,
        lane: LaneId,
        before: Millis,
        reason: &str,
        now: Millis,
    ) -> Result<usize, Error> {
        let reason = reason.to_owned();
        self.transaction("give up what a closed place is owed", move |desk| {
            let debts: Vec<Debt> = desk
                .sql
                .prepare_cached(
                    "SELECT o.id, o.entry_id, o.portal_id, o.toward, o.to_place, o.from_place
                     FROM outbox o JOIN journal j ON j.id = o.entry_id
                     WHERE o.portal_id = ?1 AND o.toward = ?2 AND o.accepted_at <= ?3
                     AND o.unsure_since IS NULL AND j.session IS NULL
                     AND NOT EXISTS (
                         -- Messages that went together, perhaps: tried again each would go by itself.
                         SELECT 1 FROM outbox l WHERE l.id = coalesce(o.leader, o.id)
                         AND l.slot IS NOT NULL AND l.unanswered_since IS NOT NULL
                     ) ORDER BY o.id",
                )?
                .query_map(
                    params![lane.portal, lane.toward, before],
                    settle::debt_from_row,
                )?
                .collect::<Result<_, _>>()?;
            for debt in &debts {
                let why = Why {
                    kind: "closed",
                    reason: &reason,
                    about: None,
                };
                let tell = if is_of_bridge(desk, debt.entry)? {
                    Tell::Nobody
                } else {
                    Tell::Sender
                };
                park(desk, debt, &why, tell, now)?;
            }
            Ok(debts.len())
        })
        .await
    }
}

fn is_of_bridge(desk: &Desk<'_>, entry: EntryId) -> Result<bool, Fault> {
    let place: Place = desk
        .sql
        .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
        .query_row([entry], |row| row.get(0))?;
    Ok(place == notices::home())
}

fn parked_from_row(row: &Row<'_>) -> rusqlite::Result<Parked> {
    Ok(Parked {
        id: row.get("id")?,
        entry: row.get("entry_id")?,
        lane: columns::lane(row)?,
        to: row.get("to_place")?,
        state: ParkedState::read(&row.get::<_, String>("state")?),
        kept: row.get("kept")?,
        letter: None,
    })
}

/// Ends a debt as failed and keeps what it takes to try it again.
pub(crate) fn park(
    desk: &Desk<'_>,
    debt: &Debt,
    why: &Why<'_>,
    tell: Tell,
    now: Millis,
) -> Result<(), Fault> {
    let keep = tell == Tell::Sender;
    write(desk, debt, why, keep, now)?;
    settle::settle(desk, debt, End::Failed)?;
    prune(desk, debt.lane, now)
}

/// Writes down why a debt fails of which nothing is kept.
pub(crate) fn note(desk: &Desk<'_>, debt: &Debt, reason: &str, now: Millis) -> Result<(), Fault> {
    let why = Why {
        kind: "given-up",
        reason,
        about: None,
    };
    write(desk, debt, &why, false, now)
}

// A row that is there already was tried again and failed again: its notice changes, no new one is made.
fn write(
    desk: &Desk<'_>,
    debt: &Debt,
    why: &Why<'_>,
    keep: bool,
    now: Millis,
) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "INSERT INTO parked (id, entry_id, portal_id, toward, to_place, key, plan, steps_done,
                 accepted_at, from_place, tries, failed_at, kind, reason, about, state, kept, untold)
             SELECT id, entry_id, portal_id, toward, to_place, key, iif(?6 AND steps_done > 0, plan, NULL), steps_done,
                 accepted_at, from_place, tries + 1, ?2, ?3, ?4, ?5, 'failed', ?6, ?6
             FROM outbox WHERE id = ?1
             ON CONFLICT (id) DO UPDATE SET from_place = excluded.from_place, plan = excluded.plan, steps_done = excluded.steps_done,
                 tries = excluded.tries, failed_at = excluded.failed_at, kind = excluded.kind,
                 reason = excluded.reason, state = 'failed', kept = excluded.kept,
                 untold = iif(parked.bulletin IS NULL, excluded.untold, 0)",
        )?
        .execute(params![debt.id, now, why.kind, columns::sentence(why.reason), why.about, keep])?;
    bulletins::spoil(desk, debt.id)
}

/// A debt ends: if it had failed before, that is what came of it.
pub(crate) fn ended(desk: &Desk<'_>, debt: &Debt, end: End<'_>) -> Result<(), Fault> {
    let state = match end {
        End::Failed => return Ok(()),
        End::Delivered => "delivered",
        End::Skipped(_) => "skipped",
    };
    let rows = desk
        .sql
        .prepare_cached("UPDATE parked SET state = ?2 WHERE id = ?1")?
        .execute(params![debt.id, state])?;
    if rows > 0 {
        bulletins::spoil(desk, debt.id)?;
    }
    Ok(())
}

fn unpark(desk: &Desk<'_>, id: DeliveryId) -> Result<Option<LaneId>, Fault> {
    let lane = desk
        .sql
        .prepare_cached(
            "SELECT p.portal_id, p.toward FROM parked p JOIN portal o ON o.id = p.portal_id
             WHERE p.id = ?1 AND p.kept = 1 AND o.active = 1",
        )?
        .query_row([id], columns::lane)
        .optional()?;
    let Some(lane) = lane else {
        return Ok(None);
    };
    // Later ones have passed it, so it is late, and comes first now: it has its old number.
    desk.sql
        .prepare_cached(
            "INSERT INTO outbox (id, entry_id, portal_id, toward, to_place, key, plan, steps_done,
                 accepted_at, from_place, late, tries)
             SELECT id, entry_id, portal_id, toward, to_place, key, plan, steps_done, accepted_at, from_place, 1, tries
             FROM parked WHERE id = ?1",
        )?
        .execute([id])?;
    desk.sql
        .prepare_cached("UPDATE parked SET state = 'again', kept = 0, plan = NULL WHERE id = ?1")?
        .execute([id])?;
    settle::count(
        desk.sql,
        lane,
        "UPDATE tally SET failed = failed - 1 WHERE portal_id = ?1 AND toward = ?2",
    )?;
    bulletins::spoil(desk, id)?;
    Ok(Some(lane))
}

fn earliest(now: Millis) -> Millis {
    let kept_for = i64::try_from(KEPT_FOR.as_millis()).unwrap_or(i64::MAX);
    Millis(now.0.saturating_sub(kept_for))
}

/// Erases the letters of the oldest failures of a lane where there are too many, and of all that are too old.
fn prune(desk: &Desk<'_>, lane: LaneId, now: Millis) -> Result<(), Fault> {
    let old = kept(desk, "failed_at < ?1", [earliest(now)])?;
    erase(desk, &old)?;
    let surplus = kept(
        desk,
        "portal_id = ?1 AND toward = ?2 ORDER BY failed_at DESC, id DESC LIMIT -1 OFFSET ?3",
        params![lane.portal, lane.toward, KEPT],
    )?;
    erase(desk, &surplus)
}

/// Nothing is kept of what a lane owed from a place up to an entry: portal, direction, place, entry.
pub(crate) fn erase_until(desk: &Desk<'_>, theirs: impl rusqlite::Params) -> Result<(), Fault> {
    const THEIRS: &str = "portal_id = ?1 AND toward = ?2 AND from_place = ?3 AND entry_id <= ?4";
    erase(desk, &kept(desk, THEIRS, theirs)?)
}

/// The failures that are kept and of which this is true.
fn kept(
    desk: &Desk<'_>,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<(DeliveryId, EntryId)>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(&format!(
            "SELECT id, entry_id FROM parked WHERE kept = 1 AND {condition}"
        ))?
        .query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?)
}

fn erase(desk: &Desk<'_>, ids: &[(DeliveryId, EntryId)]) -> Result<(), Fault> {
    for (id, entry) in ids {
        desk.sql
            .prepare_cached("UPDATE parked SET kept = 0, plan = NULL WHERE id = ?1")?
            .execute([id])?;
        settle::erase_unneeded(desk, *entry)?;
    }
    Ok(())
}

/// How many failures of a lane are kept, and the kind of its last one.
pub(crate) fn count(
    sql: &rusqlite::Connection,
    lane: LaneId,
) -> Result<(u64, Option<String>), Fault> {
    let kept = sql
        .prepare_cached(
            "SELECT count(*) FROM parked WHERE portal_id = ?1 AND toward = ?2 AND kept = 1",
        )?
        .query_row(params![lane.portal, lane.toward], |row| row.get(0))?;
    let kind = sql
        .prepare_cached(
            "SELECT kind FROM parked WHERE portal_id = ?1 AND toward = ?2 AND state = 'failed'
             ORDER BY failed_at DESC, id DESC LIMIT 1",
        )?
        .query_row(params![lane.portal, lane.toward], |row| row.get(0))
        .optional()?;
    Ok((kept, kind))
}
