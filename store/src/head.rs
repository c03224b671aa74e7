//! Which debt of a lane comes first, and the letter it delivers, opened.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    Delivery, DeliveryId, EntryId, Error, Head, LaneId, Millis, Place, Store,
    database::{Desk, Fault},
    journal,
    paths::{Net, Paths},
    rewritten,
    seal::Cell,
    settle,
};

/// Whose turn it is in a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// What is urgent goes first.
    #[default]
    Any,
    /// A message that can be sent now goes before what is urgent.
    Ordinary,
}

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
                    o.rejections, o.blamed_ms, o.tried_at, EXISTS (SELECT 1 FROM parked p WHERE p.id = o.id), o.from_place,
                    o.urgent
             FROM outbox o JOIN journal j ON j.id = o.entry_id
             WHERE o.portal_id = ?1 AND o.toward = ?2 AND ",
            $condition
        )
    };
}

const BEGUN: &str = debts_of_lane!(
    "(o.steps_done > 0 OR o.unsure_since IS NOT NULL)
      AND o.leader IS NULL
    ORDER BY o.id"
);

// What the bridge itself has to say goes before the backlog.
const FIRST_URGENT: &str = debts_of_lane!(
    "o.urgent = 1
    ORDER BY o.id LIMIT 1"
);

// An entry whose key has been waited for long enough lets others pass. So does one from the future: the clock was
// put back, and nobody knows how long it has been waited for. Each place is asked for by itself, through the index, so
// that what is held up in one costs nothing.
const FIRST_OWED: &str = debts_of_lane!(
    "o.from_place = ?4 AND o.entry_id > ?5 AND (
        j.hold_until IS NULL OR j.hold_until > ?3 AND o.accepted_at <= ?3)
      AND o.leader IS NULL
    ORDER BY o.id LIMIT 1"
);

// The same without what goes before the backlog.
const FIRST_ORDINARY: &str = debts_of_lane!(
    "o.from_place = ?4 AND o.entry_id > ?5 AND (
        j.hold_until IS NULL OR j.hold_until > ?3 AND o.accepted_at <= ?3)
      AND o.leader IS NULL AND o.urgent = 0
    ORDER BY o.id LIMIT 1"
);

const LINE: &str = debts_of_lane!(
    "o.from_place = ?4 AND o.entry_id > ?5 AND (
        j.hold_until IS NULL OR j.hold_until > ?3 AND o.accepted_at <= ?3)
      AND o.leader IS NULL AND o.id >= ?6
    ORDER BY o.id LIMIT ?7"
);

const ONE: &str = debts_of_lane!("o.id = ?3");

/// What a look at the head of a lane came to.
enum Look {
    /// This stands first.
    Head(Head),
    /// Several were bound together, one of them is held up now, and none was tried yet: first they must be taken apart.
    Unbind(DeliveryId),
}

impl Store {
    /// What stands first in the lane. A delivery that has begun comes first, then what the bridge itself has to say,
    /// then the oldest.
    pub async fn head(&self, lane: LaneId, now: Millis) -> Result<Head, Error> {
        self.next(lane, Turn::Any, now).await
    }

    /// The same by turns: a lane that has just sent something urgent asks with [`Turn::Ordinary`], so that no flood of
    /// notices keeps messages back.
    pub async fn next(&self, lane: LaneId, turn: Turn, now: Millis) -> Result<Head, Error> {
        loop {
            let look = self.read("read the head of a lane", move |desk| {
                head(desk, lane, turn, now)
            });
            match look.await? {
                Look::Head(head) => return Ok(head),
                Look::Unbind(leader) => self.unbind(leader).await?,
            }
        }
    }
}

/// A row as it stands, sealed.
struct Owed {
    delivery: Delivery,
    /// Where its path begins.
    from: Place,
    sealed: Option<Vec<u8>>,
    due: Millis,
    hold_until: Option<Millis>,
}

/// What stands first in the lane. What is held up is passed over by what is not, and order is kept between messages that
/// were said in one place.
fn head(desk: &Desk<'_>, lane: LaneId, turn: Turn, now: Millis) -> Result<Look, Fault> {
    let net = Net::load(desk.sql, now)?;
    let open = net.open(lane);
    let bound = bound(desk, lane, &open)?;
    if let Bound::Apart(leader) = bound {
        return Ok(Look::Unbind(leader));
    }
    let linked = net.linked(lane);
    let paths = (&linked, &open);
    let stuck = match bound {
        Bound::Stuck(leader) => Some(leader),
        _ => None,
    };
    let begun = begun(desk, lane, &open)?;
    let ordinary = if begun.is_none() && turn == Turn::Ordinary && stuck.is_none() {
        // One that cannot be sent yet keeps no notice back.
        let first = first_owed(desk, lane, paths, (FIRST_ORDINARY, now))?;
        first.filter(|owed| owed.hold_until.is_none() && owed.due <= now)
    } else {
        None
    };
    let first = match begun.or(ordinary) {
        Some(first) => Some(first),
        None => match (urgent(desk, lane)?, stuck) {
            (Some(urgent), _) => Some(urgent),
            (None, Some(leader)) => one(desk, lane, leader)?,
            (None, None) => first_owed(desk, lane, paths, (FIRST_OWED, now))?,
        },
    };
    let opens_at = net.opens_at();
    let not_before = |due: Millis| Head::NotBefore(opens_at.map_or(due, |opens| opens.min(due)));
    let Some(mut owed) = first else {
        return Ok(Look::Head(opens_at.map_or(Head::Empty, Head::NotBefore)));
    };
    if let Some(hold_until) = owed.hold_until {
        return Ok(Look::Head(not_before(hold_until)));
    }
    if owed.due > now {
        return Ok(Look::Head(not_before(owed.due)));
    }
    if let Some(path) = open.of(&owed.from, owed.delivery.entry) {
        owed.delivery.path.clone_from(&path.hops);
    }
    open_owed(desk, owed).map(|delivery| Look::Head(Head::Ready(Box::new(delivery))))
}

/// What is the matter with the messages of a lane that carry several.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Nothing.
    Well,
    /// Part of this one is held up, and it was not tried yet.
    Apart(DeliveryId),
    /// Part of this one is held up, and nobody knows whether all of it arrived. That is found out first: until then none
    /// of it can go by itself, and what comes after it stays behind it.
    Stuck(DeliveryId),
}

fn bound(desk: &Desk<'_>, lane: LaneId, open: &Paths) -> Result<Bound, Fault> {
    let leaders = desk
        .sql
        .prepare_cached(
            "SELECT DISTINCT r.leader, l.from_place, l.entry_id,
                    l.steps_done = 0 AND l.unsure_since IS NULL AND l.unanswered_since IS NULL
             FROM outbox r INDEXED BY outbox_led CROSS JOIN outbox l ON l.id = r.leader
             WHERE r.leader IS NOT NULL AND l.portal_id = ?1 AND l.toward = ?2",
        )?
        .query_map(params![lane.portal, lane.toward], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<Vec<(DeliveryId, Place, EntryId, bool)>, _>>()?;
    let mut bound = Bound::Well;
    for (leader, from, entry, untried) in leaders {
        let goes = open.lead(&from, entry);
        let riders = settle::led_by(desk.sql, leader)?;
        let together = riders
            .iter()
            .all(|(rider, _)| open.lead(&rider.from, rider.entry) == goes);
        if !together {
            if untried {
                return Ok(Bound::Apart(leader));
            }
            bound = Bound::Stuck(leader);
        }
    }
    Ok(bound)
}

/// The first that has begun. One of which nobody knows whether it happened is looked for even while it is held up: that
/// tells nobody anything, and whoever listens on the other side waits for it.
fn begun(desk: &Desk<'_>, lane: LaneId, open: &Paths) -> Result<Option<Owed>, Fault> {
    let mut rows = desk.sql.prepare_cached(BEGUN)?;
    let rows = rows.query_map(params![lane.portal, lane.toward], |row| {
        owed_from_row(row, lane)
    })?;
    for owed in rows {
        let owed = owed?;
        let in_doubt = owed.delivery.unsure_since.is_some();
        if in_doubt || open.lead(&owed.from, owed.delivery.entry) {
            return Ok(Some(owed));
        }
    }
    Ok(None)
}

/// The oldest that nothing holds up.
fn first_owed(
    desk: &Desk<'_>,
    lane: LaneId,
    paths: (&Paths, &Paths),
    (which, now): (&str, Millis),
) -> Result<Option<Owed>, Fault> {
    let firsts = firsts(desk, lane, paths, (which, now))?.into_iter();
    Ok(firsts.min_by_key(|owed| owed.delivery.id))
}

/// Of each place what was said there first, unless it is held up: then all that was said there later waits behind it, also
/// what another path would carry on.
fn firsts(
    desk: &Desk<'_>,
    lane: LaneId,
    (linked, open): (&Paths, &Paths),
    (which, now): (&str, Millis),
) -> Result<Vec<Owed>, Fault> {
    let mut query = desk.sql.prepare_cached(which)?;
    let mut firsts = Vec::new();
    for (from, _) in open.all() {
        let oldest = query
            .query_row(
                params![lane.portal, lane.toward, now, from, linked.since(from)],
                |row| owed_from_row(row, lane),
            )
            .optional()?;
        firsts.extend(oldest.filter(|owed| open.lead(from, owed.delivery.entry)));
    }
    Ok(firsts)
}

fn one(desk: &Desk<'_>, lane: LaneId, id: DeliveryId) -> Result<Option<Owed>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(ONE)?
        .query_row(params![lane.portal, lane.toward, id], |row| {
            owed_from_row(row, lane)
        })
        .optional()?)
}

/// One debt of a lane, if it can be read.
pub(crate) fn open_one(
    desk: &Desk<'_>,
    lane: LaneId,
    id: DeliveryId,
) -> Result<Option<Delivery>, Fault> {
    let found = one(desk, lane, id)?.filter(|owed| owed.hold_until.is_none());
    found.map(|owed| open_owed(desk, owed)).transpose()
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

/// The debts of the lane from this one on, up to the first that it would hold at, without those that are held up.
pub(crate) fn line(
    desk: &Desk<'_>,
    lane: LaneId,
    from: DeliveryId,
    limit: usize,
    now: Millis,
) -> Result<Vec<Delivery>, Fault> {
    let net = Net::load(desk.sql, now)?;
    let (linked, open) = (net.linked(lane), net.open(lane));
    let mut query = desk.sql.prepare_cached(LINE)?;
    let mut waiting = Vec::new();
    for first in firsts(desk, lane, (&linked, &open), (FIRST_OWED, now))? {
        let (place, after) = (&first.from, linked.since(&first.from));
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = query.query_map(
            params![lane.portal, lane.toward, now, place, after, from, most],
            |row| owed_from_row(row, lane),
        )?;
        for owed in rows {
            waiting.push(owed?);
        }
    }
    waiting.sort_unstable_by_key(|owed| owed.delivery.id);
    let mut line = Vec::new();
    for mut owed in waiting.into_iter().take(limit) {
        if owed.hold_until.is_some() {
            break;
        }
        if let Some(path) = open.of(&owed.from, owed.delivery.entry) {
            owed.delivery.path.clone_from(&path.hops);
            line.push(open_owed(desk, owed)?);
        }
    }
    Ok(line)
}

fn owed_from_row(row: &Row<'_>, lane: LaneId) -> rusqlite::Result<Owed> {
    Ok(Owed {
        delivery: Delivery {
            id: row.get(0)?,
            entry: row.get(1)?,
            lane,
            path: vec![lane],
            key: row.get(2)?,
            from: row.get(3)?,
            to: row.get(4)?,
            payload: Vec::new(),
            text_of: None,
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
            urgent: row.get(21)?,
        },
        from: row.get(20)?,
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
    delivery.text_of = rewritten::says(desk, delivery.entry, &delivery.to)?;
    delivery.payload = match rewritten::open(desk, delivery.entry, &delivery.to)? {
        Some(letter) => letter,
        None => desk
            .seal
            .open(journal::letter_cell(delivery.entry), &sealed)?,
    };
    delivery.plan = delivery
        .plan
        .map(|plan| desk.seal.open(plan_cell(delivery.id), &plan))
        .transpose()?;
    Ok(delivery)
}
