//! Summary lines: which reactions a line of text shows. It names many people, and one row has its id: the others are marked.

use rusqlite::{Connection, params};

use crate::{
    DeliveryId, EntryId, Error, Place, Store, counters,
    database::TxError,
    outbox::{self, advance_plan},
    reactions::delete_removed_reactions,
};

impl Store {
    /// The present step is done: the existing summary line shows this reaction as well, or no longer. Otherwise as
    /// [`Store::complete_step`].
    pub async fn complete_summary_step(
        &self,
        delivery: DeliveryId,
        last: bool,
    ) -> Result<(), Error> {
        self.transaction("settle a step", move |tx| {
            let Some(pending) = counters::pending(tx.sql, delivery)? else {
                outbox::log_if_settled(0, delivery);
                return Ok(());
            };
            let targets = tx
                .sql
                .prepare_cached(
                    "UPDATE reaction SET in_summary = 1 WHERE changed_by = ?1 AND to_place = ?2
                     RETURNING target_id",
                )?
                .query_map(params![pending.entry, pending.to], |row| row.get(0))?
                .collect::<Result<Vec<EntryId>, _>>()?;
            for target in targets {
                delete_removed_reactions(tx, target, &pending.to)?;
            }
            advance_plan(tx, &pending, last)
        })
        .await
    }
}

/// Without its summary line no reaction to a message is shown by one.
pub(crate) fn end_summary(sql: &Connection, target: EntryId, place: &Place) -> Result<(), TxError> {
    sql.prepare_cached(
        "UPDATE reaction SET in_summary = 0 WHERE target_id = ?1 AND to_place = ?2 AND NOT EXISTS (
             SELECT 1 FROM reaction r WHERE r.target_id = ?1 AND r.to_place = ?2
             AND r.in_summary = 1 AND r.shown_hash IS NOT NULL)",
    )?
    .execute(params![target, place])?;
    Ok(())
}
