//! Enqueues deliveries and settles them, with the counters that must add up: every row that enters or leaves the outbox does so
//! here, in the transaction that counts it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    DeliveryId, EntryId, LaneCounters, LaneId, Millis, Place, RemoteId, SkipRule, cascades,
    closed_lanes, columns,
    database::{Tx, TxError},
    delivered_texts, edits, parked, rewritten,
    routes::RoutingTable,
};

/// One row of the outbox, as far as settling it needs.
#[derive(Clone, Debug)]
pub(crate) struct PendingDelivery {
    pub id: DeliveryId,
    pub entry: EntryId,
    pub lane: LaneId,
    pub to: Place,
    /// Where its route begins.
    pub from: Place,
}

/// A row that is to be added to the outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewDelivery<'a> {
    pub entry: EntryId,
    /// Where its event happened, and the event's id there: its transaction key is made of these.
    pub place: &'a Place,
    pub event_id: &'a RemoteId,
    pub lane: LaneId,
    pub to: &'a Place,
    /// Where its route begins: it is on hold and ends like a message from there.
    pub from: &'a Place,
}

/// How a delivery ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DeliveryEnd {
    Delivered,
    Skipped(SkipRule),
    Failed,
}

const SELECT_PENDING: &str =
    "SELECT id, entry_id, portal_id, toward, to_place, from_place FROM outbox";

pub(crate) fn pending_from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<PendingDelivery> {
    Ok(PendingDelivery {
        id: row.get("id")?,
        entry: row.get("entry_id")?,
        lane: columns::lane(row)?,
        to: row.get("to_place")?,
        from: row.get("from_place")?,
    })
}

/// The pending delivery, unless it is settled already.
pub(crate) fn pending(
    sql: &Connection,
    id: DeliveryId,
) -> Result<Option<PendingDelivery>, TxError> {
    Ok(sql
        .prepare_cached(&format!("{SELECT_PENDING} WHERE id = ?1"))?
        .query_row([id], pending_from_row)
        .optional()?)
}

/// The pending deliveries of an entry.
pub(crate) fn pending_of_entry(
    sql: &Connection,
    entry: EntryId,
) -> Result<Vec<PendingDelivery>, TxError> {
    Ok(sql
        .prepare_cached(&format!("{SELECT_PENDING} WHERE entry_id = ?1 ORDER BY id"))?
        .query_map([entry], pending_from_row)?
        .collect::<Result<_, _>>()?)
}

/// The deliveries that this bundle leader carries, each with its position in the message.
pub(crate) fn members_of(
    sql: &Connection,
    bundle_leader: DeliveryId,
) -> Result<Vec<(PendingDelivery, i64)>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT id, entry_id, portal_id, toward, to_place, from_place, bundle_slot FROM outbox
             WHERE bundle_leader_id = ?1 ORDER BY bundle_slot",
        )?
        .query_map([bundle_leader], |row| {
            Ok((pending_from_row(row)?, row.get("bundle_slot")?))
        })?
        .collect::<Result<_, _>>()?)
}

/// The pending deliveries of which no route of linked portals leads from their place through their lane.
pub(crate) fn pending_without_route(sql: &Connection) -> Result<Vec<PendingDelivery>, TxError> {
    // Holds of portals do not matter here, so neither does the time.
    let routing = RoutingTable::load(sql, Millis::default())?;
    let sources = sql
        .prepare("SELECT DISTINCT portal_id, toward, from_place FROM outbox")?
        .query_map([], |row| Ok((columns::lane(row)?, row.get(2)?)))?
        .collect::<Result<Vec<(LaneId, Place)>, _>>()?;
    // Where an active lane has a step with unknown outcome, the bridge looks for the copy before the delivery ends: else a copy
    // that did arrive would count as somebody's message.
    let mut deliveries = sql.prepare(&format!(
        "{SELECT_PENDING} WHERE portal_id = ?1 AND toward = ?2 AND from_place = ?3 AND entry_id <= ?4
         AND NOT (outcome_unknown_since IS NOT NULL
                  AND EXISTS (SELECT 1 FROM portal p WHERE p.id = ?1 AND p.active = 1))"
    ))?;
    let mut found = Vec::new();
    let mut known = HashMap::new();
    for (lane, from) in sources {
        let linked = known.entry(lane).or_insert_with(|| routing.linked(lane));
        let until = linked.linked_after(&from);
        let ended = deliveries.query_map(
            params![lane.portal, lane.toward, from, until],
            pending_from_row,
        )?;
        for pending in ended {
            found.push(pending?);
        }
    }
    found.sort_unstable_by_key(|pending| pending.id);
    Ok(found)
}

/// Enqueues a delivery.
pub(crate) fn enqueue(tx: &Tx<'_>, new: NewDelivery<'_>, now: Millis) -> Result<(), TxError> {
    let key = tx.seal.delivery_key(new.place, new.event_id, new.to);
    tx.sql
        .prepare_cached(
            "INSERT INTO outbox (entry_id, portal_id, toward, to_place, transaction_key, accepted_at, from_place)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            new.entry,
            new.lane.portal,
            new.lane.toward,
            new.to,
            key,
            now,
            new.from
        ])?;
    count_accepted(tx.sql, new.lane)
}

/// Marks the deliveries of an arrival as late: they do not wait in order, and their copies say that they are delayed.
pub(crate) fn mark_late(tx: &Tx<'_>, place: &Place, event_id: &RemoteId) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE outbox SET late = 1 WHERE entry_id = (
                 SELECT id FROM journal WHERE place = ?1 AND event_id = ?2)",
        )?
        .execute(params![place, event_id])?;
    Ok(())
}

/// Counts an arrival that is skipped at once: accepted and settled.
pub(crate) fn skip_on_arrival(
    tx: &Tx<'_>,
    entry: EntryId,
    lane: LaneId,
    to: &Place,
    rule: SkipRule,
) -> Result<(), TxError> {
    count_accepted(tx.sql, lane)?;
    note_skipped(tx.sql, entry, to, rule)?;
    count_skipped(tx.sql, lane, rule)
}

/// A delivery continues in another lane: in its own it counts as skipped by this rule.
pub(crate) fn move_to_lane(
    tx: &Tx<'_>,
    pending: &PendingDelivery,
    to: LaneId,
    rule: SkipRule,
) -> Result<(), TxError> {
    tx.sql
        .prepare_cached("UPDATE outbox SET portal_id = ?2, toward = ?3 WHERE id = ?1")?
        .execute(params![pending.id, to.portal, to.toward])?;
    count_skipped(tx.sql, pending.lane, rule)?;
    count_accepted(tx.sql, to)
}

/// Ends a delivery: deletes its row, counts it, and erases the payload when nothing needs it any more.
pub(crate) fn settle(
    tx: &Tx<'_>,
    pending: &PendingDelivery,
    end: DeliveryEnd,
) -> Result<(), TxError> {
    tx.sql
        .prepare_cached("DELETE FROM outbox WHERE id = ?1")?
        .execute([pending.id])?;
    // A delivery that was bundled with this one and did not end with it is pending by itself.
    tx.sql
        .prepare_cached("UPDATE outbox SET bundle_leader_id = NULL, bundle_slot = NULL WHERE bundle_leader_id = ?1")?
        .execute([pending.id])?;
    parked::record_end(tx, pending, end)?;
    if !matches!(end, DeliveryEnd::Delivered) {
        cascades::forget(tx.sql, pending.id)?;
    }
    match end {
        DeliveryEnd::Delivered => {
            delivered_texts::note_delivered(tx, pending)?;
            count(
                tx.sql,
                pending.lane,
                "UPDATE lane_counter SET delivered = delivered + 1 WHERE portal_id = ?1 AND toward = ?2",
            )?;
        }
        DeliveryEnd::Failed => {
            edits::note_undelivered(tx, pending.entry)?;
            count(
                tx.sql,
                pending.lane,
                "UPDATE lane_counter SET failed = failed + 1 WHERE portal_id = ?1 AND toward = ?2",
            )?;
        }
        DeliveryEnd::Skipped(rule) => {
            edits::note_undelivered(tx, pending.entry)?;
            note_skipped(tx.sql, pending.entry, &pending.to, rule)?;
            count_skipped(tx.sql, pending.lane, rule)?;
        }
    }
    // The plan was deleted with the row, so there is something to erase in any case.
    erase_payload_if_unneeded(tx, pending.entry)
}

/// Erases the payload of an entry that has no pending delivery, cannot be retried, and is no command without an answer.
pub(crate) fn erase_payload_if_unneeded(tx: &Tx<'_>, entry: EntryId) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE journal SET payload = NULL, missing_session = NULL, key_wait_until = NULL, target = NULL
             WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM outbox WHERE entry_id = ?1)
             AND NOT EXISTS (SELECT 1 FROM parked_delivery WHERE entry_id = ?1 AND retryable = 1)
             AND NOT EXISTS (SELECT 1 FROM command WHERE entry_id = ?1)",
        )?
        .execute([entry])?;
    rewritten::erase_unneeded(tx, entry)?;
    tx.mark_erased();
    Ok(())
}

fn count_accepted(sql: &Connection, lane: LaneId) -> Result<(), TxError> {
    count(
        sql,
        lane,
        "UPDATE lane_counter SET accepted = accepted + 1 WHERE portal_id = ?1 AND toward = ?2",
    )
}

pub(crate) fn count(sql: &Connection, lane: LaneId, update: &str) -> Result<(), TxError> {
    let rows = sql
        .prepare_cached(update)?
        .execute(params![lane.portal, lane.toward])?;
    if rows == 1 {
        return Ok(());
    }
    Err(TxError::CorruptRow {
        table: "lane_counter",
        row: lane.portal.0,
    })
}

fn note_skipped(
    sql: &Connection,
    entry: EntryId,
    to: &Place,
    rule: SkipRule,
) -> Result<(), TxError> {
    sql.prepare_cached(
        "INSERT INTO skipped_delivery (entry_id, to_place, rule) VALUES (?1, ?2, ?3)
         ON CONFLICT (entry_id, to_place) DO UPDATE SET rule = excluded.rule",
    )?
    .execute(params![entry, to, rule])?;
    Ok(())
}

fn count_skipped(sql: &Connection, lane: LaneId, rule: SkipRule) -> Result<(), TxError> {
    sql.prepare_cached(
        "INSERT INTO lane_skip_counter (portal_id, toward, rule, count) VALUES (?1, ?2, ?3, 1)
         ON CONFLICT (portal_id, toward, rule) DO UPDATE SET count = count + 1",
    )?
    .execute(params![lane.portal, lane.toward, rule])?;
    Ok(())
}

/// The counters of every lane, by portal, the lane toward Matrix first.
pub(crate) fn lane_counters(sql: &Connection, now: Millis) -> Result<Vec<LaneCounters>, TxError> {
    let mut lane_counters = sql
        .prepare_cached(
            "SELECT t.portal_id, t.toward, t.accepted, t.delivered, t.failed, count(o.id),
                    count(j.missing_session), min(o.accepted_at)
             FROM lane_counter t
             LEFT JOIN outbox o ON o.portal_id = t.portal_id AND o.toward = t.toward
             LEFT JOIN journal j ON j.id = o.entry_id
             GROUP BY t.portal_id, t.toward ORDER BY t.portal_id, t.toward",
        )?
        .query_map([], |row| {
            Ok(LaneCounters {
                lane: columns::lane(row)?,
                accepted: row.get(2)?,
                delivered: row.get(3)?,
                skipped: Vec::new(),
                failed: row.get(4)?,
                pending: row.get(5)?,
                waiting: row.get(6)?,
                oldest_pending: row.get(7)?,
                on_hold: 0,
                oldest_not_on_hold: None,
                parked: 0,
                last_failure: None,
                closed_since: None,
                closed_reason: None,
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let routing = RoutingTable::load(sql, now)?;
    let mut sources = sql.prepare_cached(
        "SELECT from_place, count(*), min(accepted_at), min(entry_id) FROM outbox
         WHERE portal_id = ?1 AND toward = ?2 GROUP BY from_place",
    )?;
    let mut rules = sql.prepare_cached(
        "SELECT rule, count FROM lane_skip_counter WHERE portal_id = ?1 AND toward = ?2 ORDER BY rule",
    )?;
    for counters in &mut lane_counters {
        let closed = closed_lanes::of(sql, counters.lane)?;
        (counters.closed_since, counters.closed_reason) =
            closed.map(|closed| (closed.since, closed.reason)).unzip();
        (counters.parked, counters.last_failure) = parked::count(sql, counters.lane)?;
        let open = routing.open(counters.lane);
        let mut sources = sources.query(params![counters.lane.portal, counters.lane.toward])?;
        while let Some(row) = sources.next()? {
            let (from, count, oldest): (Place, u64, Millis) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            // What one route would carry waits behind what was sent before it.
            if open.allows(&from, row.get(3)?) {
                counters.oldest_not_on_hold = Some(
                    counters
                        .oldest_not_on_hold
                        .map_or(oldest, |known| known.min(oldest)),
                );
            } else {
                counters.on_hold += count;
            }
        }
        counters.skipped = rules
            .query_map(params![counters.lane.portal, counters.lane.toward], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
    }
    Ok(lane_counters)
}
