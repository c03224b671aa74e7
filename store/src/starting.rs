//! A lane starts: what may have been on its way when the process ended is in doubt.

use rusqlite::params;

use crate::{
    DeliveryId, EntryId, Error, LaneId, Millis, Place, PortalId, Store,
    database::{Desk, Fault},
    holds,
    paths::Net,
};

// Where the messages of one place were held up, those of another may have stood first.
const IN_FLIGHT: &str = "
    SELECT id, entry_id, from_place, accepted_at, urgent FROM outbox
    WHERE portal_id = ?1 AND toward = ?2 AND unanswered_since IS NULL AND (
        late = 1 OR urgent = 1 OR steps_done > 0 OR id IN (
            SELECT min(o.id) FROM outbox o JOIN journal j ON j.id = o.entry_id
            WHERE o.portal_id = ?1 AND o.toward = ?2 AND o.late = 0 AND o.urgent = 0
              AND j.session IS NULL
            GROUP BY o.from_place))";

impl Store {
    /// A lane starts. Nothing of it waits longer than until `latest`: the moments written down are those of the
    /// clock as it was then, and the clock may have been put back since. With `in_flight`, whatever may have been
    /// on its way when we were stopped counts as unanswered since it was accepted: what stands first, and what a
    /// late key may have put before it in the meantime. What no path has led to its lane since it was accepted, because
    /// portals were held up, was never tried.
    pub async fn start_lane(
        &self,
        lane: LaneId,
        (now, latest): (Millis, Millis),
        in_flight: bool,
    ) -> Result<(), Error> {
        self.transaction("start a lane", move |desk| {
            desk.sql
                .prepare_cached(
                    "UPDATE outbox SET due = ?3 WHERE portal_id = ?1 AND toward = ?2 AND due > ?3",
                )?
                .execute(params![lane.portal, lane.toward, latest])?;
            if in_flight {
                doubt_first(desk, lane, now)?;
            }
            Ok(())
        })
        .await
    }
}

/// Counts what may have been on its way as unanswered.
fn doubt_first(desk: &Desk<'_>, lane: LaneId, now: Millis) -> Result<(), Fault> {
    let net = Net::load(desk.sql, now)?;
    let held = holds::since(desk.sql, now)?;
    let first: Vec<(DeliveryId, EntryId, Place, Millis, bool)> = desk
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
        if urgent || net.passing(lane, was_open).lead(&from, entry) {
            desk.sql
                .prepare_cached("UPDATE outbox SET unanswered_since = accepted_at WHERE id = ?1")?
                .execute([id])?;
        }
    }
    Ok(())
}
