//! Which debt of a lane comes first, and the letter it delivers, opened.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    Delivery, DeliveryId, Head, LaneId, Millis,
    database::{Desk, Fault},
    holds::{self, Held},
    journal,
    seal::Cell,
};

/// Where the plan of a delivery is sealed.
pub(crate) fn plan_cell(delivery: DeliveryId) -> Cell {
    Cell {
        table: "outbox",
        column: "plan",
        row: delivery.0,
    }
}

/// The rows of a lane, as [`owed_from_row`] reads them, that satisfy a condition and in its order.
macro_rules! debts_of_lane {
    ($condition:literal) => {
        concat!(
            "SELECT o.id, o.entry_id, o.key, j.place, o.to_place, j.payload, o.plan, o.steps_done, o.attempts,
                    o.unsure_since, o.accepted_at, o.late, o.due, j.hold_until, o.unanswered_since, o.tries,
                    o.rejections, o.blamed_ms, o.tried_at, EXISTS (SELECT 1 FROM parked p WHERE p.id = o.id)
             FROM outbox o JOIN journal j ON j.id = o.entry_id
             WHERE o.portal_id = ?1 AND o.toward = ?2 AND ",
            $condition
        )
    };
}

const FIRST_BEGUN: &str = debts_of_lane!(
    "(o.steps_done > 0 OR o.unsure_since IS NOT NULL)
      AND o.leader IS NULL
    ORDER BY o.id LIMIT 1"
);

// What the bridge itself has to say goes before the backlog.
const FIRST_URGENT: &str = debts_of_lane!(
    "o.urgent = 1
    ORDER BY o.id LIMIT 1"
);

// An entry whose key has been waited for long enough lets others pass. So does one from the future: the clock was
// put back, and nobody knows how long it has been waited for.
const FIRST_OWED: &str = debts_of_lane!(
    "(
        j.hold_until IS NULL OR j.hold_until > ?3 AND o.accepted_at <= ?3)
      AND o.leader IS NULL
    ORDER BY o.id LIMIT 1"
);

const LINE: &str = debts_of_lane!(
    "(
        j.hold_until IS NULL OR j.hold_until > ?3 AND o.accepted_at <= ?3)
      AND o.leader IS NULL AND o.id >= ?4
    ORDER BY o.id LIMIT ?5"
);

/// A row as it stands, sealed.
struct Owed {
    delivery: Delivery,
    sealed: Option<Vec<u8>>,
    due: Millis,
    hold_until: Option<Millis>,
}

/// What stands first in the lane.
pub(crate) fn head(desk: &Desk<'_>, lane: LaneId, now: Millis) -> Result<Head, Fault> {
    let read = |row: &Row<'_>| owed_from_row(row, lane);
    let held = holds::held(desk, lane.portal, now)?;
    if held != Held::No {
        // Nothing passes but what the bridge itself has to say.
        let ends = match held {
            Held::Until(until) => Head::NotBefore(until),
            _ => Head::Empty,
        };
        return match urgent(desk, lane)? {
            Some(owed) if owed.due <= now => {
                open_owed(desk, owed).map(|delivery| Head::Ready(Box::new(delivery)))
            }
            Some(owed) => Ok(Head::NotBefore(owed.due)),
            None => Ok(ends),
        };
    }
    let begun = desk
        .sql
        .prepare_cached(FIRST_BEGUN)?
        .query_row(params![lane.portal, lane.toward], read)
        .optional()?;
    let first = match begun {
        Some(begun) => Some(begun),
        None => match urgent(desk, lane)? {
            Some(urgent) => Some(urgent),
            None => desk
                .sql
                .prepare_cached(FIRST_OWED)?
                .query_row(params![lane.portal, lane.toward, now], read)
                .optional()?,
        },
    };
    let Some(owed) = first else {
        return Ok(Head::Empty);
    };
    if let Some(hold_until) = owed.hold_until {
        return Ok(Head::NotBefore(hold_until));
    }
    if owed.due > now {
        return Ok(Head::NotBefore(owed.due));
    }
    open_owed(desk, owed).map(|delivery| Head::Ready(Box::new(delivery)))
}

fn urgent(desk: &Desk<'_>, lane: LaneId) -> Result<Option<Owed>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(FIRST_URGENT)?
        .query_row(params![lane.portal, lane.toward], |row| {
            owed_from_row(row, lane)
        })
        .optional()?)
}

/// The debts of the lane from this one on, up to the first that it would hold at.
pub(crate) fn line(
    desk: &Desk<'_>,
    lane: LaneId,
    from: DeliveryId,
    limit: u32,
    now: Millis,
) -> Result<Vec<Delivery>, Fault> {
    let rows = desk
        .sql
        .prepare_cached(LINE)?
        .query_map(params![lane.portal, lane.toward, now, from, limit], |row| {
            owed_from_row(row, lane)
        })?
        .collect::<Result<Vec<_>, _>>()?;
    rows.into_iter()
        .take_while(|owed| owed.hold_until.is_none())
        .map(|owed| open_owed(desk, owed))
        .collect()
}

fn owed_from_row(row: &Row<'_>, lane: LaneId) -> rusqlite::Result<Owed> {
    Ok(Owed {
        delivery: Delivery {
            id: row.get(0)?,
            entry: row.get(1)?,
            lane,
            key: row.get(2)?,
            from: row.get(3)?,
            to: row.get(4)?,
            payload: Vec::new(),
            plan: row.get(6)?,
            steps_done: row.get(7)?,
            attempts: row.get(8)?,
            unsure_since: row.get(9)?,
            unanswered_since: row.get(14)?,
            accepted_at: row.get(10)?,
            late: row.get(11)?,
            tries: row.get(15)?,
            rejections: row.get(16)?,
            blamed: Duration::from_millis(row.get(17)?),
            tried_at: row.get(18)?,
            again: row.get(19)?,
        },
        sealed: row.get(5)?,
        due: row.get(12)?,
        hold_until: row.get(13)?,
    })
}

fn open_owed(desk: &Desk<'_>, owed: Owed) -> Result<Delivery, Fault> {
    let mut delivery = owed.delivery;
    let sealed = owed.sealed.ok_or(Fault::Corrupt {
        table: "journal",
        row: delivery.entry.0,
    })?;
    delivery.payload = desk
        .seal
        .open(journal::letter_cell(delivery.entry), &sealed)?;
    delivery.plan = delivery
        .plan
        .map(|plan| desk.seal.open(plan_cell(delivery.id), &plan))
        .transpose()?;
    Ok(delivery)
}
