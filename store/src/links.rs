//! Links: the original of each entry and its copies in other places.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    Copies, Copy, DeliveryId, EntryId, Error, Millis, Place, RemoteId, Store, cascades, counters,
    database::TxError, outbox, reactions,
};

/// The slot of a link whose message carries the entry alone.
pub(crate) const WHOLE: i64 = -1;

/// Why a copy has no text any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emptied {
    /// Its message was deleted.
    Deleted,
    /// Its message was edited, and other copies have the text.
    Replaced,
    /// The same, but part of the copy could not be deleted: it is deleted with the message.
    Leftover,
}

impl Store {
    /// The copies in `to` of the message that `from` calls `remote`.
    pub async fn copies(
        &self,
        from: &Place,
        remote: &RemoteId,
        to: &Place,
    ) -> Result<Copies, Error> {
        let (from, remote, to) = (from.clone(), remote.clone(), to.clone());
        self.read("find the copies of a message", move |tx| {
            let Some(entry) = entry_of(tx.sql, &from, &remote)? else {
                return Ok(Copies::default());
            };
            Ok(Copies {
                entry: Some(entry),
                home: tx
                    .sql
                    .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
                    .query_row([entry], |row| row.get(0))
                    .optional()?,
                copies: copies_of(tx.sql, entry, &to)?,
                removed_by_others: removed_by_others(tx.sql, entry, &to)?,
                edits: edits_of(tx.sql, entry, &to)?,
                slot: slot_of(tx.sql, entry, &to)?,
                shared: is_shared(tx.sql, entry, &to)?,
                leftovers: leftovers_of(tx.sql, entry, &to)?,
                pending: tx
                    .sql
                    .prepare_cached("SELECT id FROM outbox WHERE entry_id = ?1 AND to_place = ?2")?
                    .query_row(params![entry, to], |row| row.get(0))
                    .optional()?,
            })
        })
        .await
    }

    /// The copies of an entry in a place, in part order.
    pub async fn copies_of(&self, entry: EntryId, place: &Place) -> Result<Vec<Copy>, Error> {
        let place = place.clone();
        self.read("find the copies of an entry", move |tx| {
            copies_of(tx.sql, entry, &place)
        })
        .await
    }

    /// The copies of an entry in a place that are empty and have replies: new replies belong there too.
    pub async fn emptied_copies(&self, entry: EntryId, place: &Place) -> Result<Vec<Copy>, Error> {
        let place = place.clone();
        self.read("find the emptied copies of an entry", move |tx| {
            copies_where(tx.sql, entry, &place, true)
        })
        .await
    }

    /// The present step is done: a copy is empty, and stays because of its replies. The reactions to a deleted message are
    /// forgotten. Otherwise as [`Store::complete_step`].
    pub async fn complete_emptied_step(
        &self,
        delivery: DeliveryId,
        copy: &RemoteId,
        emptied: Emptied,
        last: bool,
    ) -> Result<(), Error> {
        let copy = copy.clone();
        self.transaction("settle a step", move |tx| {
            let Some(pending) = counters::pending(tx.sql, delivery)? else {
                outbox::log_if_settled(0, delivery);
                return Ok(());
            };
            mark_emptied(tx.sql, &pending.to, &copy, emptied == Emptied::Leftover)?;
            cascades::forget(tx.sql, delivery)?;
            if emptied == Emptied::Deleted {
                reactions::forget(tx, &pending.to, &copy)?;
            }
            outbox::advance_plan(tx, &pending, last)
        })
        .await
    }

    /// Whether the message is known: an accepted original or a copy, even one that was deleted since.
    pub async fn is_linked(&self, place: &Place, remote: &RemoteId) -> Result<bool, Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.read("look for a link", move |tx| {
            Ok(entry_of(tx.sql, &place, &remote)?.is_some())
        })
        .await
    }

    /// The entry `deletion` deletes a message that never arrived: if the message arrives later, it is ignored.
    pub async fn note_deleted_before_arrival(
        &self,
        place: &Place,
        remote: &RemoteId,
        deletion: EntryId,
        now: Millis,
    ) -> Result<(), Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.transaction("note a deletion", move |tx| {
            if entry_of(tx.sql, &place, &remote)?.is_none() {
                let gone = Copy {
                    remote: remote.clone(),
                    thread: None,
                    sent_at: now,
                    file: None,
                };
                link(tx.sql, deletion, &place, &gone)?;
                mark_deleted(tx.sql, &place, &remote)?;
            }
            Ok(())
        })
        .await
    }

    /// Somebody else deleted this copy: nothing is done to it any more, and no edit posts its part again. Its id stays known.
    pub async fn mark_copy_deleted(&self, place: &Place, remote: &RemoteId) -> Result<(), Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.transaction("note that a copy was deleted", move |tx| {
            tx.sql
                .prepare_cached(
                    "UPDATE link SET removed_by_others = iif(deleted = 0, 1, removed_by_others),
                     deleted = 1, emptied = 0, leftover = 0 WHERE place = ?1 AND remote_id = ?2",
                )?
                .execute(params![place, remote])?;
            Ok(())
        })
        .await
    }
}

/// The entry that this message is the original or a copy of. Of several entries in a bundled message, the last: who replies to
/// such a message most likely replies to its end.
pub(crate) fn entry_of(
    sql: &Connection,
    place: &Place,
    remote: &RemoteId,
) -> Result<Option<EntryId>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT entry_id FROM link WHERE place = ?1 AND remote_id = ?2
             ORDER BY deleted, bundle_slot DESC LIMIT 1",
        )?
        .query_row(params![place, remote], |row| row.get(0))
        .optional()?)
}

/// Whether this message is a copy of the entry, or an event that replaces the text of one.
pub(crate) fn is_copy_of(
    sql: &Connection,
    entry: EntryId,
    place: &Place,
    remote: &RemoteId,
) -> Result<bool, TxError> {
    Ok(sql
        .prepare_cached("SELECT 1 FROM link WHERE place = ?1 AND remote_id = ?2 AND entry_id = ?3")?
        .exists(params![place, remote, entry])?)
}

fn slot_of(sql: &Connection, entry: EntryId, place: &Place) -> Result<Option<u32>, TxError> {
    let slot: Option<i64> = sql
        .prepare_cached(
            "SELECT bundle_slot FROM link WHERE entry_id = ?1 AND place = ?2 AND deleted = 0 AND replaces IS NULL
             ORDER BY part LIMIT 1",
        )?
        .query_row(params![entry, place], |row| row.get(0))
        .optional()?;
    Ok(slot.and_then(|slot| u32::try_from(slot).ok()))
}

/// Whether a copy of the entry also carries other entries, or did before its part was removed.
fn is_shared(sql: &Connection, entry: EntryId, place: &Place) -> Result<bool, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT 1 FROM link own JOIN link other ON other.place = own.place AND other.remote_id = own.remote_id
             WHERE own.entry_id = ?1 AND own.place = ?2 AND own.bundle_slot >= 0
             AND other.entry_id <> ?1 AND other.deleted = 0",
        )?
        .exists(params![entry, place])?)
}

fn copies_of(sql: &Connection, entry: EntryId, place: &Place) -> Result<Vec<Copy>, TxError> {
    copies_where(sql, entry, place, false)
}

/// The emptied copies, or those with text.
fn copies_where(
    sql: &Connection,
    entry: EntryId,
    place: &Place,
    were_emptied: bool,
) -> Result<Vec<Copy>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT remote_id, thread, sent_at, file_digest FROM link
             WHERE entry_id = ?1 AND place = ?2 AND deleted = ?3 AND emptied = ?3 AND replaces IS NULL
             ORDER BY part",
        )?
        .query_map(params![entry, place, were_emptied], copy_from_row)?
        .collect::<Result<_, _>>()?)
}

fn removed_by_others(
    sql: &Connection,
    entry: EntryId,
    place: &Place,
) -> Result<Vec<(usize, Copy)>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT remote_id, thread, sent_at, file_digest, (
                 SELECT count(*) FROM link b WHERE b.entry_id = ?1 AND b.place = ?2 AND b.deleted = 0
                 AND b.replaces IS NULL AND b.part < link.part)
             FROM link WHERE entry_id = ?1 AND place = ?2 AND removed_by_others = 1 AND replaces IS NULL
             ORDER BY part",
        )?
        .query_map(params![entry, place], |row| {
            Ok((row.get(4)?, copy_from_row(row)?))
        })?
        .collect::<Result<_, _>>()?)
}

fn copy_from_row(row: &Row<'_>) -> rusqlite::Result<Copy> {
    Ok(Copy {
        remote: row.get(0)?,
        thread: row.get(1)?,
        sent_at: row.get(2)?,
        file: row.get(3)?,
    })
}

fn edits_of(
    sql: &Connection,
    entry: EntryId,
    place: &Place,
) -> Result<Vec<(RemoteId, RemoteId)>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT replaces, remote_id FROM link WHERE place = ?2 AND deleted = 0
             AND replaces IN (SELECT remote_id FROM link WHERE entry_id = ?1 AND place = ?2)
             ORDER BY sent_at, part",
        )?
        .query_map(params![entry, place], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?)
}

/// Links a copy as the next part of the entry in its place. Linked to this entry already is success; linked to another one is
/// refused by the database.
pub(crate) fn link(
    sql: &Connection,
    entry: EntryId,
    place: &Place,
    copy: &Copy,
) -> Result<(), TxError> {
    link_part(sql, entry, place, copy, None)
}

/// The same; `slot` is the entry's part of a bundled copy.
pub(crate) fn link_part(
    sql: &Connection,
    entry: EntryId,
    place: &Place,
    copy: &Copy,
    slot: Option<i64>,
) -> Result<(), TxError> {
    if is_copy_of(sql, entry, place, &copy.remote)? {
        return Ok(());
    }
    sql.prepare_cached(
        "INSERT INTO link (place, remote_id, bundle_slot, entry_id, part, thread, sent_at, file_digest)
         SELECT ?1, ?2, ?6, ?3, coalesce(max(part) + 1, 0), ?4, ?5, ?7 FROM link
         WHERE entry_id = ?3 AND place = ?1",
    )?
    .execute(params![
        place,
        copy.remote,
        entry,
        copy.thread,
        copy.sent_at,
        slot.unwrap_or(WHOLE),
        copy.file
    ])?;
    Ok(())
}

/// Links what was created for the message `home`, unless it is known: a copy, or the event that replaces the text of the copy
/// `replaces`. It contains the text of the edit `text_of`, or the message's own.
pub(crate) fn link_created(
    sql: &Connection,
    home: EntryId,
    text_of: Option<EntryId>,
    to: &Place,
    created: &Copy,
    replaces: Option<&RemoteId>,
) -> Result<(), TxError> {
    if entry_of(sql, to, &created.remote)?.is_none() {
        link(sql, home, to, created)?;
        sql.prepare_cached("UPDATE link SET replaces = ?3 WHERE place = ?1 AND remote_id = ?2")?
            .execute(params![to, created.remote, replaces])?;
        set_text_of(sql, home, to, &created.remote, text_of)?;
    }
    Ok(())
}

/// This copy or event of a message contains the text of an edit, or the message's own.
pub(crate) fn set_text_of(
    sql: &Connection,
    home: EntryId,
    to: &Place,
    remote: &RemoteId,
    text_of: Option<EntryId>,
) -> Result<(), TxError> {
    sql.prepare_cached(
        "UPDATE link SET text_of = ?4 WHERE place = ?1 AND remote_id = ?2 AND entry_id = ?3",
    )?
    .execute(params![to, remote, home, text_of])?;
    Ok(())
}

fn leftovers_of(sql: &Connection, entry: EntryId, place: &Place) -> Result<Vec<RemoteId>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT remote_id FROM link WHERE entry_id = ?1 AND place = ?2 AND leftover = 1 ORDER BY part",
        )?
        .query_map(params![entry, place], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

/// The copy is empty, and stays because of its replies.
pub(crate) fn mark_emptied(
    sql: &Connection,
    place: &Place,
    remote: &RemoteId,
    leftovers: bool,
) -> Result<(), TxError> {
    sql.prepare_cached(
        "UPDATE link SET deleted = 1, emptied = 1, leftover = ?3, removed_by_others = 0
         WHERE place = ?1 AND remote_id = ?2",
    )?
    .execute(params![place, remote, leftovers])?;
    Ok(())
}

/// The bridge deleted the copy. Its id stays known, so that a late echo of it is no new message.
pub(crate) fn mark_deleted(
    sql: &Connection,
    place: &Place,
    remote: &RemoteId,
) -> Result<(), TxError> {
    sql.prepare_cached(
        "UPDATE link SET deleted = 1, emptied = 0, leftover = 0, removed_by_others = 0
         WHERE place = ?1 AND remote_id = ?2",
    )?
    .execute(params![place, remote])?;
    Ok(())
}
