//! Edits whose order or whose message is not what they expect: one that comes after a later one, one of a message that
//! failed.

use rusqlite::{OptionalExtension, params};

use crate::{
    DeliveryId, EntryId, Error, Place, RemoteId, Store, crossed,
    database::{Desk, Fault},
    revisions, rewritten,
    settle::Debt,
};

impl Store {
    /// The edit `entry` of the message that `from` calls `target` is about to go to `to`. Answers whether no later one
    /// was there before it. Asked again for the same edit, it answers the same.
    pub async fn is_latest_edit(
        &self,
        from: &Place,
        target: &RemoteId,
        to: &Place,
        entry: EntryId,
    ) -> Result<bool, Error> {
        let (from, target, to) = (from.clone(), target.clone(), to.clone());
        self.transaction("put an edit in its order", move |desk| {
            Ok(latest(desk, (&from, &target), &to, entry)? == entry)
        })
        .await
    }

    /// Whether an edit has gone to `to`, or was to, after part of this message had: by itself, not in the message.
    pub async fn is_overtaken(&self, message: EntryId, to: &Place) -> Result<bool, Error> {
        let to = to.clone();
        self.read("look for an edit of a message in parts", move |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT 1 FROM journal j
                     JOIN link l ON l.entry_id = j.id AND l.place = j.place
                     JOIN edited e ON e.place = l.place AND e.remote = l.remote AND e.to_place = ?2
                     WHERE j.id = ?1 AND (e.restored_by IS NOT NULL OR NOT EXISTS (
                         SELECT 1 FROM skipped s WHERE s.entry_id = e.entry_id AND s.to_place = ?2))",
                )?
                .exists(params![message, to])?)
        })
        .await
    }

    /// Puts another letter, which says what this edit says, in the place of one whose delivery failed and is kept. Answers
    /// whether it was, and the edit was not redacted.
    pub async fn rewrite_failed(
        &self,
        delivery: DeliveryId,
        letter: Vec<u8>,
        edit: EntryId,
    ) -> Result<bool, Error> {
        self.transaction("rewrite a failed message", move |desk| {
            if revisions::is_gone(desk, edit)? {
                return Ok(false);
            }
            let failed: Option<(EntryId, Place)> = desk
                .sql
                .prepare_cached(
                    "SELECT entry_id, to_place FROM parked
                     WHERE id = ?1 AND kept = 1 AND steps_done = 0",
                )?
                .query_row([delivery], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((entry, to)) = &failed {
                rewritten::keep(desk, (*entry, to), edit, &letter)?;
            }
            Ok(failed.is_some())
        })
        .await
    }
}

/// An edit is in a message that goes: no older one goes after it.
pub(crate) fn is_there(desk: &Desk<'_>, edit: &Debt) -> Result<(), Fault> {
    let (from, target): (Place, Option<RemoteId>) = desk
        .sql
        .prepare_cached("SELECT place, about FROM journal WHERE id = ?1")?
        .query_row([edit.entry], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if let Some(target) = target
        && !revisions::is_gone(desk, edit.entry)?
    {
        latest(desk, (&from, &target), &edit.to, edit.entry)?;
    }
    Ok(())
}

/// This edit was redacted. Where it certainly is not, the newest edit that has been there is the latest again.
pub(crate) fn is_gone(desk: &Desk<'_>, edit: EntryId) -> Result<(), Fault> {
    let latest = desk
        .sql
        .prepare_cached(
            "SELECT place, remote, to_place FROM edited WHERE entry_id = ?1 AND restored_by IS NULL",
        )?
        .query_map([edit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<Vec<(Place, RemoteId, Place)>, _>>()?;
    for (from, target, to) in latest {
        if crossed::has_or_may(desk, edit, &to)? {
            continue;
        }
        let before: Option<EntryId> = desk
            .sql
            .prepare_cached(
                "SELECT max(j.id) FROM revision r
                 JOIN journal j ON j.place = r.place AND j.fact = r.fact
                 JOIN crossed c ON c.entry_id = j.id AND c.to_place = ?3
                 WHERE r.place = ?1 AND r.target = ?2 AND j.id <> ?4",
            )?
            .query_row(params![from, target, to, edit], |row| row.get(0))?;
        let row = params![from, target, to, before];
        if before.is_some() {
            desk.sql
                .prepare_cached(
                    "UPDATE edited SET entry_id = ?4
                     WHERE place = ?1 AND remote = ?2 AND to_place = ?3",
                )?
                .execute(row)?;
        } else {
            desk.sql
                .prepare_cached(
                    "DELETE FROM edited WHERE place = ?1 AND remote = ?2 AND to_place = ?3",
                )?
                .execute(params![from, target, to])?;
        }
    }
    Ok(())
}

/// The latest edit of a message that went to a place, with this one. A redaction that restores what an edit had changed
/// is the latest itself, as long as nothing has come after it.
fn latest(
    desk: &Desk<'_>,
    (from, target): (&Place, &RemoteId),
    to: &Place,
    edit: EntryId,
) -> Result<EntryId, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "INSERT INTO edited (place, remote, to_place, entry_id) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (place, remote, to_place)
             DO UPDATE SET
                 entry_id = iif(restored_by IS excluded.entry_id, entry_id, max(entry_id, excluded.entry_id)),
                 restored_by = iif(excluded.entry_id > entry_id AND restored_by IS NOT excluded.entry_id,
                                   NULL, restored_by)
             RETURNING iif(restored_by IS ?4, ?4, entry_id)",
        )?
        .query_row(params![from, target, to, edit], |row| row.get(0))?)
}
