//! Taking on debts and ending them, with the counters that must add up: every row that enters or leaves the
//! outbox does so here, in the transaction that counts it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    DeliveryId, EntryId, LaneId, Millis, Place, RemoteId, Tally, along, closed, columns, crossed,
    database::{Desk, Fault},
    parked,
    paths::Net,
    rewritten,
};

/// One row of the outbox, as far as settling it needs.
#[derive(Clone, Debug)]
pub(crate) struct Debt {
    pub id: DeliveryId,
    pub entry: EntryId,
    pub lane: LaneId,
    pub to: Place,
    /// Where its path begins.
    pub from: Place,
}

/// How a debt ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    Delivered,
    Skipped(&'a str),
    Failed,
}

const DEBT: &str = "SELECT id, entry_id, portal_id, toward, to_place, from_place FROM outbox";

pub(crate) fn debt_from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Debt> {
    Ok(Debt {
        id: row.get("id")?,
        entry: row.get("entry_id")?,
        lane: columns::lane(row)?,
        to: row.get("to_place")?,
        from: row.get("from_place")?,
    })
}

/// The debt, unless it is settled already.
pub(crate) fn debt(sql: &Connection, id: DeliveryId) -> Result<Option<Debt>, Fault> {
    Ok(sql
        .prepare_cached(&format!("{DEBT} WHERE id = ?1"))?
        .query_row([id], debt_from_row)
        .optional()?)
}

/// What is still owed of an entry.
pub(crate) fn debts_of_entry(sql: &Connection, entry: EntryId) -> Result<Vec<Debt>, Fault> {
    Ok(sql
        .prepare_cached(&format!("{DEBT} WHERE entry_id = ?1 ORDER BY id"))?
        .query_map([entry], debt_from_row)?
        .collect::<Result<_, _>>()?)
}

/// The debts that this one pays along, each with its place in the message.
pub(crate) fn led_by(sql: &Connection, leader: DeliveryId) -> Result<Vec<(Debt, i64)>, Fault> {
    Ok(sql
        .prepare_cached(
            "SELECT id, entry_id, portal_id, toward, to_place, from_place, slot FROM outbox
             WHERE leader = ?1 ORDER BY slot",
        )?
        .query_map([leader], |row| Ok((debt_from_row(row)?, row.get("slot")?)))?
        .collect::<Result<_, _>>()?)
}

/// What is still owed although no path of linked portals leads from where it was said through its lane.
pub(crate) fn debts_without_path(sql: &Connection) -> Result<Vec<Debt>, Fault> {
    // What holds portals up does not matter here, so neither does the time.
    let net = Net::load(sql, Millis::default())?;
    let sources = sql
        .prepare("SELECT DISTINCT portal_id, toward, from_place FROM outbox")?
        .query_map([], |row| Ok((columns::lane(row)?, row.get(2)?)))?
        .collect::<Result<Vec<(LaneId, Place)>, _>>()?;
    // What an active lane has in doubt is looked for before it ends: else a copy that did arrive would be taken for
    // somebody's message there.
    let mut debts = sql.prepare(&format!(
        "{DEBT} WHERE portal_id = ?1 AND toward = ?2 AND from_place = ?3 AND entry_id <= ?4
         AND NOT (unsure_since IS NOT NULL
                  AND EXISTS (SELECT 1 FROM portal p WHERE p.id = ?1 AND p.active = 1))"
    ))?;
    let mut found = Vec::new();
    let mut known = HashMap::new();
    for (lane, from) in sources {
        let linked = known.entry(lane).or_insert_with(|| net.linked(lane));
        let until = linked.since(&from);
        let ended = debts.query_map(
            params![lane.portal, lane.toward, from, until],
            debt_from_row,
        )?;
        for debt in ended {
            found.push(debt?);
        }
    }
    found.sort_unstable_by_key(|debt| debt.id);
    Ok(found)
}

/// Takes on a debt.
pub(crate) fn owe(
    desk: &Desk<'_>,
    entry: EntryId,
    fact: (&Place, &RemoteId),
    debt: (LaneId, &Place),
    now: Millis,
) -> Result<(), Fault> {
    owe_about(desk, entry, fact, (fact.0, debt), now)
}

/// The same of what the bridge itself says about `about`: it is held up and ends like what was said there.
pub(crate) fn owe_about(
    desk: &Desk<'_>,
    entry: EntryId,
    fact: (&Place, &RemoteId),
    (about, (lane, to)): (&Place, (LaneId, &Place)),
    now: Millis,
) -> Result<(), Fault> {
    let key = desk.seal.delivery_key(fact.0, fact.1, to);
    desk.sql
        .prepare_cached(
            "INSERT INTO outbox (entry_id, portal_id, toward, to_place, key, accepted_at, from_place)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![entry, lane.portal, lane.toward, to, key, now, about])?;
    count_accepted(desk.sql, lane)
}

/// What is owed of an arrival does not wait its turn, and says that it is late.
pub(crate) fn mark_late(desk: &Desk<'_>, place: &Place, fact: &RemoteId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "UPDATE outbox SET late = 1 WHERE entry_id = (
                 SELECT id FROM journal WHERE place = ?1 AND fact = ?2)",
        )?
        .execute(params![place, fact])?;
    Ok(())
}

/// Counts an arrival that is skipped at once: accepted and settled.
pub(crate) fn skip_at_once(
    desk: &Desk<'_>,
    entry: EntryId,
    (lane, to): (LaneId, &Place),
    rule: &str,
) -> Result<(), Fault> {
    count_accepted(desk.sql, lane)?;
    note_skipped(desk.sql, entry, to, rule)?;
    count_skipped(desk.sql, lane, rule)
}

/// A debt goes on in another lane: in its own it counts as skipped by this rule.
pub(crate) fn moved(desk: &Desk<'_>, debt: &Debt, to: LaneId, rule: &str) -> Result<(), Fault> {
    desk.sql
        .prepare_cached("UPDATE outbox SET portal_id = ?2, toward = ?3 WHERE id = ?1")?
        .execute(params![debt.id, to.portal, to.toward])?;
    count_skipped(desk.sql, debt.lane, rule)?;
    count_accepted(desk.sql, to)
}

/// Ends a debt: takes it out, counts it, and erases the letter when nobody needs it any more.
pub(crate) fn settle(desk: &Desk<'_>, debt: &Debt, end: End<'_>) -> Result<(), Fault> {
    desk.sql
        .prepare_cached("DELETE FROM outbox WHERE id = ?1")?
        .execute([debt.id])?;
    // Whoever was to be paid along, and was not, is owed by itself.
    desk.sql
        .prepare_cached("UPDATE outbox SET leader = NULL, slot = NULL WHERE leader = ?1")?
        .execute([debt.id])?;
    parked::ended(desk, debt, end)?;
    if !matches!(end, End::Delivered) {
        along::forget(desk.sql, debt.id)?;
    }
    match end {
        End::Delivered => {
            crossed::note(desk, debt)?;
            count(
                desk.sql,
                debt.lane,
                "UPDATE tally SET delivered = delivered + 1 WHERE portal_id = ?1 AND toward = ?2",
            )?;
        }
        End::Failed => count(
            desk.sql,
            debt.lane,
            "UPDATE tally SET failed = failed + 1 WHERE portal_id = ?1 AND toward = ?2",
        )?,
        End::Skipped(rule) => {
            note_skipped(desk.sql, debt.entry, &debt.to, rule)?;
            count_skipped(desk.sql, debt.lane, rule)?;
        }
    }
    // The plan went with the row, so there is something to erase in any case.
    erase_unneeded(desk, debt.entry)
}

/// Erases the letter of an entry that is not owed, not kept to be tried again, and no question to be answered.
pub(crate) fn erase_unneeded(desk: &Desk<'_>, entry: EntryId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "UPDATE journal SET payload = NULL, session = NULL, hold_until = NULL, about = NULL
             WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM outbox WHERE entry_id = ?1)
             AND NOT EXISTS (SELECT 1 FROM parked WHERE entry_id = ?1 AND kept = 1)
             AND NOT EXISTS (SELECT 1 FROM command WHERE entry_id = ?1)",
        )?
        .execute([entry])?;
    rewritten::erase_with(desk, entry)?;
    desk.erased();
    Ok(())
}

fn count_accepted(sql: &Connection, lane: LaneId) -> Result<(), Fault> {
    count(
        sql,
        lane,
        "UPDATE tally SET accepted = accepted + 1 WHERE portal_id = ?1 AND toward = ?2",
    )
}

pub(crate) fn count(sql: &Connection, lane: LaneId, update: &str) -> Result<(), Fault> {
    let rows = sql
        .prepare_cached(update)?
        .execute(params![lane.portal, lane.toward])?;
    if rows == 1 {
        return Ok(());
    }
    Err(Fault::Corrupt {
        table: "tally",
        row: lane.portal.0,
    })
}

fn note_skipped(sql: &Connection, entry: EntryId, to: &Place, rule: &str) -> Result<(), Fault> {
    sql.prepare_cached(
        "INSERT INTO skipped (entry_id, to_place, rule) VALUES (?1, ?2, ?3)
         ON CONFLICT (entry_id, to_place) DO UPDATE SET rule = excluded.rule",
    )?
    .execute(params![entry, to, rule])?;
    Ok(())
}

fn count_skipped(sql: &Connection, lane: LaneId, rule: &str) -> Result<(), Fault> {
    sql.prepare_cached(
        "INSERT INTO tally_skipped (portal_id, toward, rule, count) VALUES (?1, ?2, ?3, 1)
         ON CONFLICT (portal_id, toward, rule) DO UPDATE SET count = count + 1",
    )?
    .execute(params![lane.portal, lane.toward, rule])?;
    Ok(())
}

/// The counters of every lane, portals in order, each toward Matrix first.
pub(crate) fn tallies(sql: &Connection, now: Millis) -> Result<Vec<Tally>, Fault> {
    let mut tallies = sql
        .prepare_cached(
            "SELECT t.portal_id, t.toward, t.accepted, t.delivered, t.failed, count(o.id),
                    count(j.session), min(o.accepted_at)
             FROM tally t
             LEFT JOIN outbox o ON o.portal_id = t.portal_id AND o.toward = t.toward
             LEFT JOIN journal j ON j.id = o.entry_id
             GROUP BY t.portal_id, t.toward ORDER BY t.portal_id, t.toward",
        )?
        .query_map([], |row| {
            Ok(Tally {
                lane: columns::lane(row)?,
                accepted: row.get(2)?,
                delivered: row.get(3)?,
                skipped: Vec::new(),
                failed: row.get(4)?,
                pending: row.get(5)?,
                waiting: row.get(6)?,
                oldest_pending: row.get(7)?,
                held: 0,
                oldest_free: None,
                parked: 0,
                last_failure: None,
                closed_since: None,
                closed_why: None,
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let net = Net::load(sql, now)?;
    let mut sources = sql.prepare_cached(
        "SELECT from_place, count(*), min(accepted_at), min(entry_id) FROM outbox
         WHERE portal_id = ?1 AND toward = ?2 GROUP BY from_place",
    )?;
    let mut rules = sql.prepare_cached(
        "SELECT rule, count FROM tally_skipped WHERE portal_id = ?1 AND toward = ?2 ORDER BY rule",
    )?;
    for tally in &mut tallies {
        let closed = closed::of(sql, tally.lane)?;
        (tally.closed_since, tally.closed_why) =
            closed.map(|closed| (closed.since, closed.reason)).unzip();
        (tally.parked, tally.last_failure) = parked::count(sql, tally.lane)?;
        let open = net.open(tally.lane);
        let mut sources = sources.query(params![tally.lane.portal, tally.lane.toward])?;
        while let Some(row) = sources.next()? {
            let (from, count, oldest): (Place, u64, Millis) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            // What one path would carry on waits behind what was said before it.
            if open.lead(&from, row.get(3)?) {
                tally.oldest_free =
                    Some(tally.oldest_free.map_or(oldest, |known| known.min(oldest)));
            } else {
                tally.held += count;
            }
        }
        tally.skipped = rules
            .query_map(params![tally.lane.portal, tally.lane.toward], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
    }
    Ok(tallies)
}
