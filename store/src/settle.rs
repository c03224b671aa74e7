//! Taking on debts and ending them, with the counters that must add up: every row that enters or leaves the
//! outbox does so here, in the transaction that counts it.

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    DeliveryId, EntryId, LaneId, Millis, Place, RemoteId, Tally, closed, columns,
    database::{Desk, Fault},
    parked,
};

/// One row of the outbox, as far as settling it needs.
#[derive(Clone, Debug)]
pub(crate) struct Debt {
    pub id: DeliveryId,
    pub entry: EntryId,
    pub lane: LaneId,
    pub to: Place,
}

/// How a debt ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    Delivered,
    Skipped(&'a str),
    Failed,
}

const DEBT: &str = "SELECT id, entry_id, portal_id, toward, to_place FROM outbox";

pub(crate) fn debt_from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Debt> {
    Ok(Debt {
        id: row.get("id")?,
        entry: row.get("entry_id")?,
        lane: columns::lane(row)?,
        to: row.get("to_place")?,
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
            "SELECT id, entry_id, portal_id, toward, to_place, slot FROM outbox
             WHERE leader = ?1 ORDER BY slot",
        )?
        .query_map([leader], |row| Ok((debt_from_row(row)?, row.get("slot")?)))?
        .collect::<Result<_, _>>()?)
}

/// What is still owed by the lanes of portals that are not active.
pub(crate) fn debts_of_the_inactive(sql: &Connection) -> Result<Vec<Debt>, Fault> {
    Ok(sql
        .prepare(&format!(
            "{DEBT} WHERE portal_id IN (SELECT id FROM portal WHERE active = 0) ORDER BY id"
        ))?
        .query_map([], debt_from_row)?
        .collect::<Result<_, _>>()?)
}

/// Takes on a debt.
pub(crate) fn owe(
    desk: &Desk<'_>,
    entry: EntryId,
    fact: (&Place, &RemoteId),
    debt: (LaneId, &Place),
    now: Millis,
) -> Result<(), Fault> {
    let (lane, to) = debt;
    let key = desk.seal.delivery_key(fact.0, fact.1, to);
    desk.sql
        .prepare_cached(
            "INSERT INTO outbox (entry_id, portal_id, toward, to_place, key, accepted_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![entry, lane.portal, lane.toward, to, key, now])?;
    count_accepted(desk.sql, lane)
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
    match end {
        End::Delivered => count(
            desk.sql,
            debt.lane,
            "UPDATE tally SET delivered = delivered + 1 WHERE portal_id = ?1 AND toward = ?2",
        )?,
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
            "UPDATE journal SET payload = NULL, session = NULL, hold_until = NULL
             WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM outbox WHERE entry_id = ?1)
             AND NOT EXISTS (SELECT 1 FROM parked WHERE entry_id = ?1 AND kept = 1)
             AND NOT EXISTS (SELECT 1 FROM command WHERE entry_id = ?1)",
        )?
        .execute([entry])?;
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
pub(crate) fn tallies(sql: &Connection) -> Result<Vec<Tally>, Fault> {
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
                parked: 0,
                last_failure: None,
                closed_since: None,
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let mut rules = sql.prepare_cached(
        "SELECT rule, count FROM tally_skipped WHERE portal_id = ?1 AND toward = ?2 ORDER BY rule",
    )?;
    for tally in &mut tallies {
        tally.closed_since = closed::of(sql, tally.lane)?.map(|closed| closed.since);
        (tally.parked, tally.last_failure) = parked::count(sql, tally.lane)?;
        tally.skipped = rules
            .query_map(params![tally.lane.portal, tally.lane.toward], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
    }
    Ok(tallies)
}
