//! Which texts of a message have gone to a place: its own, and those of its edits. A message that takes an edit in before it
//! goes says that edit's text, and its own goes nowhere. Nothing else may be restored when a later edit is redacted.

use rusqlite::params;

use crate::{
    EntryId, Error, LaneId, Millis, Payload, Place, Store,
    database::{Desk, Fault},
    journal,
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
}

/// The letter of this message says the text of that edit from now on.
pub(crate) fn says(desk: &Desk<'_>, message: EntryId, edit: EntryId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached("UPDATE journal SET text_of = ?2 WHERE id = ?1")?
        .execute(params![message, edit])?;
    Ok(())
}

/// A debt was paid. If it was an edit in a room, its text is there now; if it was a message that had taken one in, the text of
/// that. A letter is the same for every place: where it may have been rewritten for another one after this message went, nobody
/// knows which text went, and nothing is noted.
pub(crate) fn note(desk: &Desk<'_>, debt: &Debt) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "INSERT INTO crossed (entry_id, to_place)
             SELECT j.id, ?2 FROM journal j
             JOIN revision r ON r.place = j.place AND r.fact = j.fact AND r.target IS NOT NULL
             WHERE j.id = ?1
             UNION
             SELECT j.text_of, ?2 FROM journal j
             JOIN link l ON l.entry_id = j.id AND l.place = j.place
             JOIN edited e ON e.place = l.place AND e.remote = l.remote AND e.to_place = ?2
             WHERE j.id = ?1 AND e.entry_id = j.text_of
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![debt.entry, debt.to])?;
    Ok(())
}

/// Whether the message's own text, all of it, went to the place.
pub(crate) fn has_own(desk: &Desk<'_>, message: EntryId, to: &Place) -> Result<bool, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT 1 FROM journal j WHERE j.id = ?1 AND j.text_of IS NULL
             AND EXISTS (SELECT 1 FROM link
                 WHERE entry_id = j.id AND place = ?2 AND made_by IS NULL)
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE entry_id = j.id AND to_place = ?2)
             AND NOT EXISTS (SELECT 1 FROM skipped WHERE entry_id = j.id AND to_place = ?2)
             AND NOT EXISTS (SELECT 1 FROM parked
                 WHERE entry_id = j.id AND to_place = ?2 AND state <> 'delivered')",
        )?
        .exists(params![message, to])?)
}

/// Whether the text of this edit went to the place, or is still owed to it: by itself, or in its message.
pub(crate) fn has_or_will(
    desk: &Desk<'_>,
    (edit, message): (EntryId, Option<EntryId>),
    to: &Place,
) -> Result<bool, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM crossed WHERE entry_id = ?1 AND to_place = ?3)
             OR EXISTS (SELECT 1 FROM outbox WHERE entry_id IN (?1, ?2) AND to_place = ?3)",
        )?
        .exists(params![edit, message, to])?)
}
