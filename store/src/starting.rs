//! Start of a lane: the outcome of a step that may have been under way when the process ended is unknown.

use rusqlite::params;

use crate::{
    DeliveryId, EntryId, Error, LaneId, Millis, Place, PortalId, Store,
    database::{Tx, TxError},
    holds,
    routes::RoutingTable,
};

// While the messages of one place were on hold, those of another may have been first.
const IN_FLIGHT: &str = "
    SELECT id, entry_id, from_place, accepted_at, urgent FROM outbox
    WHERE portal_id = ?1 AND toward = ?2 AND unanswered_since IS NULL AND (
        late = 1 OR urgent = 1 OR steps_done > 0 OR id IN (
            SELECT min(o.id) FROM outbox o JOIN journal j ON j.id = o.entry_id
            WHERE o.portal_id = ?1 AND o.toward = ?2 AND o.late = 0 AND o.urgent = 0
              AND j.missing_session IS NULL
            GROUP BY o.from_place))";

impl Store {
    /// A lane starts. Nothing in it waits longer than until `latest`: the stored times are those of the clock as it was then, and
    /// the clock may have been put back since. With `in_flight`, every delivery that may have been under way when the process
    /// ended counts as unanswered since it was accepted: the first one, and those that a late room key may have put before it in
    /// the meantime. A delivery that no route has carried to its lane since it was accepted, because portals were on hold, was
    /// never attempted.
    pub async fn start_lane(
        &self,
        lane: LaneId,
        now: Millis,
        latest: Millis,
        in_flight: bool,
    ) -> Result<(), Error> {
        self.transaction("start a lane", move |tx| {
            tx.sql
                .prepare_cached(
                    "UPDATE outbox SET retry_at = ?3 WHERE portal_id = ?1 AND toward = ?2 AND retry_at > ?3",
                )?
                .execute(params![lane.portal, lane.toward, latest])?;
            if in_flight {
                mark_in_flight_unanswered(tx, lane, now)?;
            }
            Ok(())
        })
        .await
    }
}

/// Marks the deliveries that may have been under way as unanswered.
fn mark_in_flight_unanswered(tx: &Tx<'_>, lane: LaneId, now: Millis) -> Result<(), TxError> {
    let routing = RoutingTable::load(tx.sql, now)?;
    let held = holds::since(tx.sql, now)?;
    let first: Vec<(DeliveryId, EntryId, Place, Millis, bool)> = tx
        .sql
        .prepare_cached(IN_FLIGHT)?
        .query_map(params![lane.portal, lane.toward], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })?
        .collect::<Result<_, _>>()?;
    for (id, entry, from, accepted_at, urgent) in first {
        let was_open = |portal: PortalId| {
            let since = held.get(&portal);
            since.is_none_or(|since| *since > accepted_at)
        };
        if urgent || routing.routes_through(lane, was_open).allows(&from, entry) {
            tx.sql
                .prepare_cached("UPDATE outbox SET unanswered_since = accepted_at WHERE id = ?1")?
                .execute([id])?;
        }
    }
    Ok(())
}
