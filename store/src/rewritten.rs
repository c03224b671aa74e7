//! What a message says in one place where edits of it were taken in before it went there: the letter of each of them. The
//! journal keeps the message's own letter, which other places may still need, and which counts again where the edits are
//! redacted.

use rusqlite::{OptionalExtension, params};

use crate::{
    DeliveryId, EntryId, Error, Millis, Place, Store, bundle,
    database::{Desk, Fault},
    journal, paths,
    seal::Cell,
    setback,
    settle::{self, Debt, End},
};

/// The rule for an edit that was redacted before it got anywhere, for its redaction, and for a message that had nothing else
/// to say.
pub const EDIT_REDACTED: &str = "edit-redacted";

impl Store {
    /// Whether a delivery that says the text of this edit may still go. If so it counts as tried from now on, so that what it
    /// says no longer changes: the edit may be redacted before the step is done.
    pub async fn sets_off_saying(
        &self,
        delivery: DeliveryId,
        edit: EntryId,
        now: Millis,
    ) -> Result<bool, Error> {
        self.transaction("let a rewritten message go", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                return Ok(false);
            };
            let says = says(desk, debt.entry, &debt.to)?;
            if says != Some(edit) || !paths::may_go(desk, delivery, 1, now)? {
                return Ok(false);
            }
            setback::mark_unanswered(desk, delivery, now)?;
            Ok(true)
        })
        .await
    }
}

/// The message says this from now on in the place, which is what the edit says.
pub(crate) fn keep(
    desk: &Desk<'_>,
    (message, to): (EntryId, &Place),
    edit: EntryId,
    letter: &[u8],
) -> Result<(), Fault> {
    let row: i64 = desk
        .sql
        .prepare_cached(
            "INSERT INTO rewritten (entry_id, to_place, edit_id) VALUES (?1, ?2, ?3)
             ON CONFLICT (entry_id, to_place, edit_id) DO UPDATE SET edit_id = excluded.edit_id
             RETURNING id",
        )?
        .query_row(params![message, to, edit], |row| row.get(0))?;
    let sealed = desk.seal.seal(cell(row), letter)?;
    desk.sql
        .prepare_cached("UPDATE rewritten SET payload = ?2 WHERE id = ?1")?
        .execute(params![row, sealed])?;
    Ok(())
}

/// The edit whose text the message says in the place, if any.
pub(crate) fn says(
    desk: &Desk<'_>,
    message: EntryId,
    to: &Place,
) -> Result<Option<EntryId>, Fault> {
    if let Some((_, edit, _)) = newest(desk, message, to)? {
        return Ok(Some(edit));
    }
    Ok(desk
        .sql
        .prepare_cached("SELECT text_of FROM journal WHERE id = ?1")?
        .query_row([message], |row| row.get(0))?)
}

/// What the message says in the place where that is not its own letter.
pub(crate) fn open(
    desk: &Desk<'_>,
    message: EntryId,
    to: &Place,
) -> Result<Option<Vec<u8>>, Fault> {
    let Some((row, _, Some(sealed))) = newest(desk, message, to)? else {
        return Ok(None);
    };
    desk.seal.open(cell(row), &sealed).map(Some)
}

/// This edit was redacted. A message that took it in, and was not tried since, says again what it said before; where that
/// cannot be read, it ends as skipped. One that failed is kept to be tried again as it was before, too.
pub(crate) fn forget(desk: &Desk<'_>, edit: EntryId) -> Result<(), Fault> {
    let owed = desk
        .sql
        .prepare_cached(
            "SELECT o.id, coalesce(o.leader, o.id) FROM outbox o
             WHERE EXISTS (SELECT 1 FROM rewritten r
                 WHERE r.edit_id = ?1 AND r.entry_id = o.entry_id AND r.to_place = o.to_place)
             OR o.entry_id IN (SELECT id FROM journal WHERE text_of = ?1)",
        )?
        .query_map([edit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(DeliveryId, DeliveryId)>, _>>()?;
    for (id, leader) in owed {
        if bundle::was_tried(desk, leader)? {
            continue;
        }
        let Some(debt) = settle::debt(desk.sql, id)? else {
            continue;
        };
        if leader != id || !settle::led_by(desk.sql, id)?.is_empty() {
            bundle::unbind(desk, leader)?;
        }
        desk.sql
            .prepare_cached("UPDATE outbox SET plan = NULL WHERE id = ?1")?
            .execute([id])?;
        unsay(desk, &debt, edit)?;
    }
    desk.sql
        .prepare_cached(
            "DELETE FROM rewritten WHERE edit_id = ?1 AND EXISTS (
                 SELECT 1 FROM parked p WHERE p.entry_id = rewritten.entry_id
                 AND p.to_place = rewritten.to_place AND p.kept = 1 AND p.steps_done = 0)",
        )?
        .execute([edit])?;
    desk.erased();
    Ok(())
}

fn unsay(desk: &Desk<'_>, debt: &Debt, edit: EntryId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "DELETE FROM rewritten WHERE entry_id = ?1 AND to_place = ?2 AND edit_id = ?3",
        )?
        .execute(params![debt.entry, debt.to, edit])?;
    if says(desk, debt.entry, &debt.to)? == Some(edit) {
        // Its own key never came.
        settle::settle(desk, debt, End::Skipped(EDIT_REDACTED))?;
    }
    Ok(())
}

/// The letters of a message go when its own is erased.
pub(crate) fn erase_with(desk: &Desk<'_>, message: EntryId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "UPDATE rewritten SET payload = NULL WHERE entry_id = ?1
             AND EXISTS (SELECT 1 FROM journal WHERE id = ?1 AND payload IS NULL)",
        )?
        .execute([message])?;
    Ok(())
}

/// The letter of a message as the place gets it, opened, if it is still there.
pub(crate) fn letter(
    desk: &Desk<'_>,
    message: EntryId,
    to: &Place,
) -> Result<Option<Vec<u8>>, Fault> {
    match open(desk, message, to)? {
        Some(letter) => Ok(Some(letter)),
        None => journal::open_letter(desk, message),
    }
}

/// Row, edit and sealed letter.
fn newest(
    desk: &Desk<'_>,
    message: EntryId,
    to: &Place,
) -> Result<Option<(i64, EntryId, Option<Vec<u8>>)>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT id, edit_id, payload FROM rewritten WHERE entry_id = ?1 AND to_place = ?2
             ORDER BY edit_id DESC LIMIT 1",
        )?
        .query_row(params![message, to], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?)
}

fn cell(row: i64) -> Cell {
    Cell {
        table: "rewritten",
        column: "payload",
        row,
    }
}
