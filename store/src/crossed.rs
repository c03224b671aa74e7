//! Which texts of a message have gone to a place: its own, and those of its edits. A message that takes an edit in before it
//! goes says that edit's text, and its own goes nowhere. Nothing else may be restored when a later edit is redacted.

use rusqlite::params;

use crate::{
    EntryId, Error, LaneId, Millis, Payload, Place, Store,
    database::{Desk, Fault},
    journal, rewritten,
    settle::Debt,
};

impl Store {
    /// The key of a message is missing, and an edit of it can be read: the message says what that says. Otherwise as
    /// [`Store::fill`].
    pub async fn fill_by_edit(
        &self,
        message: EntryId,
        letter: Vec<u8>,
        edit: EntryId,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        self.transaction("fill an entry by an edit", move |desk| {
            desk.sql
                .prepare_cached(
                    "UPDATE journal SET text_of = ?2 WHERE id = ?1 AND session IS NOT NULL",
                )?
                .execute(params![message, edit])?;
            let letter = Payload::Ready(letter.clone());
            journal::fill(desk, message, &letter, now)
        })
        .await
    }

    /// This edit may be in the place although it was looked for: a change of a message leaves nothing by which it is found.
    /// Its redaction restores what was there before.
    pub async fn may_have_crossed(&self, edit: EntryId, to: &Place) -> Result<(), Error> {
        let to = to.clone();
        self.transaction("note what may have crossed", move |desk| {
            desk.sql
                .prepare_cached(
                    "INSERT INTO crossed (entry_id, to_place) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                )?
                .execute(params![edit, to])?;
            Ok(())
        })
        .await
    }
}

/// A debt was paid: the text of the message or of the edit is there now, or, of a message that had taken an edit in, the text
/// of that.
pub(crate) fn note(desk: &Desk<'_>, debt: &Debt) -> Result<(), Fault> {
    let says = rewritten::says(desk, debt.entry, &debt.to)?;
    desk.sql
        .prepare_cached(
            "INSERT INTO crossed (entry_id, to_place)
             SELECT coalesce(?3, j.id), ?2 FROM journal j
             WHERE j.id = ?1 AND j.place LIKE 'matrix:%' AND (
                 EXISTS (SELECT 1 FROM link l WHERE l.entry_id = j.id AND l.place = j.place)
                 OR EXISTS (SELECT 1 FROM revision r
                     WHERE r.place = j.place AND r.fact = j.fact AND r.target IS NOT NULL))
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![debt.entry, debt.to, says])?;
    Ok(())
}

/// Whether a text, all of it, went to the place: that of an edit, or a message's own.
pub(crate) fn has(desk: &Desk<'_>, entry: EntryId, to: &Place) -> Result<bool, Fault> {
    Ok(desk
        .sql
        .prepare_cached("SELECT 1 FROM crossed WHERE entry_id = ?1 AND to_place = ?2")?
        .exists(params![entry, to])?)
}

/// Whether the text of this edit is in the place, or may be, all of it or the beginning: by itself, or in its message.
pub(crate) fn has_or_may(desk: &Desk<'_>, edit: EntryId, to: &Place) -> Result<bool, Fault> {
    Ok(has(desk, edit, to)?
        || desk
            .sql
            .prepare_cached(
                "WITH said (entry_id) AS (
                     SELECT ?1
                     UNION SELECT entry_id FROM rewritten WHERE edit_id = ?1 AND to_place = ?2
                     UNION SELECT id FROM journal WHERE text_of = ?1)
                 SELECT 1 FROM said JOIN outbox o ON o.entry_id = said.entry_id AND o.to_place = ?2
                 JOIN outbox l ON l.id = coalesce(o.leader, o.id)
                 WHERE l.steps_done > 0 OR l.unsure_since IS NOT NULL OR l.unanswered_since IS NOT NULL
                 UNION ALL
                 SELECT 1 FROM said JOIN parked p ON p.entry_id = said.entry_id AND p.to_place = ?2
                 WHERE p.state = 'failed' AND p.steps_done > 0",
            )?
            .exists(params![edit, to])?)
}

/// The same, or it is still owed to the place.
pub(crate) fn has_or_will(
    desk: &Desk<'_>,
    (edit, message): (EntryId, Option<EntryId>),
    to: &Place,
) -> Result<bool, Fault> {
    Ok(has_or_may(desk, edit, to)?
        || desk
            .sql
            .prepare_cached("SELECT 1 FROM outbox WHERE entry_id IN (?1, ?2) AND to_place = ?3")?
            .exists(params![edit, message, to])?)
}
