//! Edits in unusual order or state: one that arrives after a later one, one of a message that failed.

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, Delivery, DeliveryId, EntryId, Error, MessageRef, Place, RemoteId, Store,
    counters::{self, PendingDelivery},
    database::{Tx, TxError},
    delivered_texts, links, outbox, redacted_edits, rewritten, senders,
};

/// What a step of an edit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditResult {
    /// It created this message.
    Created(Copy),
    /// It created the event `by`, which replaces the text of this message.
    Replaced {
        /// The message.
        target: RemoteId,
        /// The event.
        by: Copy,
    },
    /// It changed the text of this message.
    Changed(RemoteId),
}

impl Store {
    /// The present step of an edit of the message `target` is done. What it created is linked to that message, so that
    /// whoever deletes the original deletes both. Returns whether the delivery was still pending; the link is kept in any case.
    pub async fn complete_edit_step(
        &self,
        delivery: &Delivery,
        target: &RemoteId,
        result: EditResult,
        last: bool,
    ) -> Result<bool, Error> {
        let (from, target, to) = (delivery.from.clone(), target.clone(), delivery.to.clone());
        let (delivery, edit) = (delivery.id, delivery.entry);
        self.transaction("settle a step", move |tx| {
            let original = MessageRef {
                place: &from,
                id: &target,
            };
            link_result(tx, original, &to, edit, &result)?;
            let Some(pending) = counters::pending(tx.sql, delivery)? else {
                outbox::log_if_settled(0, delivery);
                return Ok(false);
            };
            outbox::advance_plan(tx, &pending, last)?;
            Ok(true)
        })
        .await
    }

    /// A step of the edit `edit` of a message turned out to have happened although its delivery had failed: what it created is
    /// linked to that message. Returns whether it is; it is not if it is known as another message.
    pub async fn link_late_edit(
        &self,
        message: MessageRef<'_>,
        to: &Place,
        edit: EntryId,
        result: EditResult,
    ) -> Result<bool, Error> {
        let (from, target, to) = (message.place.clone(), message.id.clone(), to.clone());
        self.transaction("link a late edit", move |tx| {
            let original = MessageRef {
                place: &from,
                id: &target,
            };
            let home = link_result(tx, original, &to, edit, &result)?;
            let remote = match &result {
                EditResult::Created(copy) | EditResult::Replaced { by: copy, .. } => &copy.remote,
                EditResult::Changed(remote) => remote,
            };
            links::is_copy_of(tx.sql, home, &to, remote)
        })
        .await
    }

    /// The edit `entry` of the message that `from` calls `target` is about to be sent to `to`. Returns whether no later one was
    /// sent there before it. The answer is the same when it is called again for the same edit.
    pub async fn advance_latest_edit(
        &self,
        from: &Place,
        target: &RemoteId,
        to: &Place,
        entry: EntryId,
    ) -> Result<bool, Error> {
        let (from, target, to) = (from.clone(), target.clone(), to.clone());
        self.transaction("put an edit in its order", move |tx| {
            let message = MessageRef {
                place: &from,
                id: &target,
            };
            Ok(upsert_latest(tx, message, &to, entry)? == entry)
        })
        .await
    }

    /// Whether an edit was sent, or was to be sent, to `to` after part of this message was: by itself, not in the message.
    pub async fn has_newer_edit(&self, message: EntryId, to: &Place) -> Result<bool, Error> {
        let to = to.clone();
        self.read("look for an edit of a message in parts", move |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT 1 FROM journal j
                     JOIN link l ON l.entry_id = j.id AND l.place = j.place
                     JOIN latest_edit e ON e.place = l.place AND e.target = l.remote_id AND e.to_place = ?2
                     WHERE j.id = ?1 AND (e.restored_by IS NOT NULL OR NOT EXISTS (
                         SELECT 1 FROM skipped_delivery s WHERE s.entry_id = e.entry_id AND s.to_place = ?2))",
                )?
                .exists(params![message, to])?)
        })
        .await
    }

    /// Replaces the payload of a failed delivery that can be retried by one with the text of this edit. Returns whether it did;
    /// it does not where the edit was redacted.
    pub async fn rewrite_failed(
        &self,
        delivery: DeliveryId,
        payload: Vec<u8>,
        edit: EntryId,
    ) -> Result<bool, Error> {
        self.transaction("rewrite a failed message", move |tx| {
            if redacted_edits::is_redacted(tx, edit)? {
                return Ok(false);
            }
            let failed: Option<(EntryId, Place)> = tx
                .sql
                .prepare_cached(
                    "SELECT entry_id, to_place FROM parked_delivery
                     WHERE id = ?1 AND retryable = 1 AND steps_done = 0",
                )?
                .query_row([delivery], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((entry, to)) = &failed {
                rewritten::save(tx, *entry, to, edit, &payload)?;
            }
            Ok(failed.is_some())
        })
        .await
    }
}

/// Links what a step of the entry `edit` did to its message. Returns the entry of the message.
fn link_result(
    tx: &Tx<'_>,
    original: MessageRef<'_>,
    to: &Place,
    edit: EntryId,
    result: &EditResult,
) -> Result<EntryId, TxError> {
    let home = links::entry_of(tx.sql, original.place, original.id)?.unwrap_or(edit);
    let text_of = text_brought_by(tx, original, home, to, edit)?;
    match result {
        EditResult::Created(copy) => {
            links::link_created(tx.sql, home, text_of, to, copy, None)?;
            senders::set_owner(tx, edit, to, &copy.remote)?;
        }
        EditResult::Replaced { target, by } => {
            links::link_created(tx.sql, home, text_of, to, by, Some(target))?;
            senders::set_owner(tx, edit, to, &by.remote)?;
        }
        EditResult::Changed(target) => {
            links::set_text_of(tx.sql, home, to, target, text_of)?;
        }
    }
    Ok(home)
}

/// The edit whose text the entry `edit` of this message brings to a place: the edit itself or, if it is a redaction, the edit that
/// it restores; `None` where it restores the text of the message itself, whose entry is `home`.
fn text_brought_by(
    tx: &Tx<'_>,
    message: MessageRef<'_>,
    home: EntryId,
    to: &Place,
    edit: EntryId,
) -> Result<Option<EntryId>, TxError> {
    let restored: Option<EntryId> = tx
        .sql
        .prepare_cached(
            "SELECT entry_id FROM latest_edit
             WHERE place = ?1 AND target = ?2 AND to_place = ?3 AND restored_by = ?4",
        )?
        .query_row(params![message.place, message.id, to, edit], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(match restored {
        Some(restored) => (restored != home).then_some(restored),
        None => Some(edit),
    })
}

/// A message that is sent includes an edit: no older one is sent after it.
pub(crate) fn note_included(tx: &Tx<'_>, edit: EntryId, to: &Place) -> Result<(), TxError> {
    let (from, target): (Place, Option<RemoteId>) = tx
        .sql
        .prepare_cached("SELECT place, target FROM journal WHERE id = ?1")?
        .query_row([edit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if let Some(target) = target
        && !redacted_edits::is_redacted(tx, edit)?
    {
        let message = MessageRef {
            place: &from,
            id: &target,
        };
        upsert_latest(tx, message, to, edit)?;
    }
    Ok(())
}

/// An entry ended without being delivered. If it is an edit that was redacted while an attempt was under way, that attempt is not
/// any more.
pub(crate) fn note_undelivered(tx: &Tx<'_>, entry: EntryId) -> Result<(), TxError> {
    if redacted_edits::is_redacted(tx, entry)? {
        note_redacted(tx, entry)?;
    }
    Ok(())
}

/// This edit was redacted. Where its text certainly is not, the newest edit whose text was there is the latest again.
pub(crate) fn note_redacted(tx: &Tx<'_>, edit: EntryId) -> Result<(), TxError> {
    let upsert_latest = tx
        .sql
        .prepare_cached(
            "SELECT place, target, to_place FROM latest_edit WHERE entry_id = ?1 AND restored_by IS NULL",
        )?
        .query_map([edit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<Vec<(Place, RemoteId, Place)>, _>>()?;
    for (from, target, to) in upsert_latest {
        if delivered_texts::has_or_may(tx, edit, &to)? {
            continue;
        }
        let before: Option<EntryId> = tx
            .sql
            .prepare_cached(
                "SELECT max(j.id) FROM edit_event r
                 JOIN journal j ON j.place = r.place AND j.event_id = r.event_id
                 JOIN delivered_text c ON c.entry_id = j.id AND c.to_place = ?3
                 WHERE r.place = ?1 AND r.target = ?2 AND j.id <> ?4",
            )?
            .query_row(params![from, target, to, edit], |row| row.get(0))?;
        let row = params![from, target, to, before];
        if before.is_some() {
            tx.sql
                .prepare_cached(
                    "UPDATE latest_edit SET entry_id = ?4
                     WHERE place = ?1 AND target = ?2 AND to_place = ?3",
                )?
                .execute(row)?;
        } else {
            tx.sql
                .prepare_cached(
                    "DELETE FROM latest_edit WHERE place = ?1 AND target = ?2 AND to_place = ?3",
                )?
                .execute(params![from, target, to])?;
        }
    }
    Ok(())
}

/// Makes this edit the latest of its message in a place, if it is newer. A redaction that restores the text of before is the
/// latest itself, as long as nothing comes after it.
fn upsert_latest(
    tx: &Tx<'_>,
    message: MessageRef<'_>,
    to: &Place,
    edit: EntryId,
) -> Result<EntryId, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "INSERT INTO latest_edit (place, target, to_place, entry_id) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (place, target, to_place)
             DO UPDATE SET
                 entry_id = iif(restored_by IS excluded.entry_id, entry_id, max(entry_id, excluded.entry_id)),
                 restored_by = iif(excluded.entry_id > entry_id AND restored_by IS NOT excluded.entry_id,
                                   NULL, restored_by)
             RETURNING iif(restored_by IS ?4, ?4, entry_id)",
        )?
        .query_row(params![message.place, message.id, to, edit], |row| row.get(0))?)
}

/// The message that a pending delivery edits, or whose edit it redacts. `edited` returns the message that a payload edits.
pub(crate) fn edited_message(
    tx: &Tx<'_>,
    pending: &PendingDelivery,
    edited: fn(&[u8]) -> Option<RemoteId>,
) -> Result<Option<RemoteId>, TxError> {
    let payload = rewritten::payload(tx, pending.entry, &pending.to)?;
    if let Some(target) = payload.as_deref().and_then(edited) {
        return Ok(Some(target));
    }
    let target = tx
        .sql
        .prepare_cached(
            "SELECT r.target FROM journal j JOIN edit_event r ON r.place = j.place AND r.event_id = j.target
             WHERE j.id = ?1",
        )?
        .query_row([pending.entry], |row| row.get(0))
        .optional()?;
    Ok(target.flatten())
}
