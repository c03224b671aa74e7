//! Which reactions a line of text tells. It names many people, and one row keeps where it stands: the others are marked.

use rusqlite::{Connection, params};

use crate::{
    DeliveryId, EntryId, Error, Place, Store,
    database::Fault,
    outbox::{self, advance},
    reactions::tidy,
    settle,
};

impl Store {
    /// The present step is done: the line that there was tells of this reaction as well, or no longer. Otherwise as
    /// [`Store::step_done`].
    pub async fn step_told(&self, delivery: DeliveryId, last: bool) -> Result<(), Error> {
        self.transaction("settle a step", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                outbox::note(0, delivery);
                return Ok(());
            };
            let targets = desk
                .sql
                .prepare_cached(
                    "UPDATE reaction SET line = 1 WHERE touched = ?1 AND to_place = ?2
                     RETURNING target_id",
                )?
                .query_map(params![debt.entry, debt.to], |row| row.get(0))?
                .collect::<Result<Vec<EntryId>, _>>()?;
            for target in targets {
                tidy(desk, target, &debt.to)?;
            }
            advance(desk, &debt, last)
        })
        .await
    }
}

/// Without its line nothing is told of a message.
pub(crate) fn end(sql: &Connection, target: EntryId, place: &Place) -> Result<(), Fault> {
    sql.prepare_cached(
        "UPDATE reaction SET line = 0 WHERE target_id = ?1 AND to_place = ?2 AND NOT EXISTS (
             SELECT 1 FROM reaction r WHERE r.target_id = ?1 AND r.to_place = ?2
             AND r.line = 1 AND r.shown IS NOT NULL)",
    )?
    .execute(params![target, place])?;
    Ok(())
}
