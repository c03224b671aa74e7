//! Messages that include an edit from before they were sent to a place: one payload per message, place and edit. The journal
//! keeps the message's own payload, because other places may still need it, and because it applies again when the edits are
//! redacted.

use rusqlite::{OptionalExtension, params};

use crate::{
    DeliveryId, EntryId, Error, Millis, Place, SkipRule, Store, bundles,
    counters::{self, DeliveryEnd, PendingDelivery},
    database::{Tx, TxError},
    failed_sends, journal, redacted_edits, retry, routes,
    seal::Cell,
};

impl Store {
    /// Whether a delivery with the text of this edit may still be sent. If so it counts as attempted from now on, so that its
    /// text no longer changes: the edit may be redacted before the step is done.
    pub async fn begin_rewritten_attempt(
        &self,
        delivery: DeliveryId,
        edit: EntryId,
        now: Millis,
    ) -> Result<bool, Error> {
        self.transaction("start a rewritten message", move |tx| {
            let Some(pending) = counters::pending(tx.sql, delivery)? else {
                return Ok(false);
            };
            if forget_redacted(tx, delivery)? {
                return Ok(false);
            }
            let says = text_of(tx, pending.entry, &pending.to)?;
            if says != Some(edit) || !routes::may_send(tx, delivery, 1, now)? {
                return Ok(false);
            }
            retry::mark_unanswered(tx, delivery, now)?;
            Ok(true)
        })
        .await
    }

    /// Whether a delivery, or one that is bundled with it, has the text of an edit that was redacted since.
    pub async fn has_redacted_text(&self, delivery: DeliveryId) -> Result<bool, Error> {
        self.read("look whether a text was redacted", move |tx| {
            Ok(!redacted_in(tx, delivery)?.is_empty())
        })
        .await
    }
}

/// A delivery is about to be attempted. If it was not attempted before, and it or one that is bundled with it has the text of a
/// redacted edit, because an attempt was under way when the redaction was accepted and did not happen, that text goes. Returns
/// whether that was so.
pub(crate) fn forget_redacted(tx: &Tx<'_>, delivery: DeliveryId) -> Result<bool, TxError> {
    let redacted = redacted_in(tx, delivery)?;
    if redacted.is_empty() || bundles::was_tried(tx, delivery)? {
        return Ok(false);
    }
    for edit in redacted {
        forget_in(tx, edit, Some(delivery))?;
    }
    Ok(true)
}

fn redacted_in(tx: &Tx<'_>, delivery: DeliveryId) -> Result<Vec<EntryId>, TxError> {
    let bundled = counters::members_of(tx.sql, delivery)?.into_iter();
    let all = counters::pending(tx.sql, delivery)?.into_iter();
    let mut redacted = Vec::new();
    for one in all.chain(bundled.map(|(pending, _)| pending)) {
        if let Some(edit) = text_of(tx, one.entry, &one.to)?
            && redacted_edits::is_redacted(tx, edit)?
        {
            redacted.push(edit);
        }
    }
    Ok(redacted)
}

/// From now on the message has this payload for the place, with the edit's text.
pub(crate) fn save(
    tx: &Tx<'_>,
    message: EntryId,
    to: &Place,
    edit: EntryId,
    payload: &[u8],
) -> Result<(), TxError> {
    let row: i64 = tx
        .sql
        .prepare_cached(
            "INSERT INTO rewritten (entry_id, to_place, edit_id) VALUES (?1, ?2, ?3)
             ON CONFLICT (entry_id, to_place, edit_id) DO UPDATE SET edit_id = excluded.edit_id
             RETURNING id",
        )?
        .query_row(params![message, to, edit], |row| row.get(0))?;
    let sealed = tx.seal.seal(cell(row), payload)?;
    tx.sql
        .prepare_cached("UPDATE rewritten SET payload = ?2 WHERE id = ?1")?
        .execute(params![row, sealed])?;
    Ok(())
}

/// The edit whose text the message has for the place, if any.
pub(crate) fn text_of(
    tx: &Tx<'_>,
    message: EntryId,
    to: &Place,
) -> Result<Option<EntryId>, TxError> {
    if let Some((_, edit, _)) = newest(tx, message, to)? {
        return Ok(Some(edit));
    }
    Ok(tx
        .sql
        .prepare_cached("SELECT text_of_edit FROM journal WHERE id = ?1")?
        .query_row([message], |row| row.get(0))?)
}

/// The payload of the message for the place, where that is not its own.
pub(crate) fn open(tx: &Tx<'_>, message: EntryId, to: &Place) -> Result<Option<Vec<u8>>, TxError> {
    let Some((row, _, Some(sealed))) = newest(tx, message, to)? else {
        return Ok(None);
    };
    tx.seal.open(cell(row), &sealed).map(Some)
}

/// This edit was redacted. A message that includes it, and was not attempted since, gets its earlier text again; where that
/// cannot be decrypted, it ends as skipped. One that certainly failed before its first step is retried with the earlier text, too.
pub(crate) fn forget(tx: &Tx<'_>, edit: EntryId) -> Result<(), TxError> {
    forget_in(tx, edit, None)
}

/// The same; the delivery `looked_for` is about to be attempted. If nobody could tell whether it had arrived before, it gets
/// another transaction key.
fn forget_in(tx: &Tx<'_>, edit: EntryId, looked_for: Option<DeliveryId>) -> Result<(), TxError> {
    let deliveries = tx
        .sql
        .prepare_cached(
            "SELECT o.id, coalesce(o.bundle_leader_id, o.id) FROM outbox o
             WHERE EXISTS (SELECT 1 FROM rewritten r
                 WHERE r.edit_id = ?1 AND r.entry_id = o.entry_id AND r.to_place = o.to_place)
             OR o.entry_id IN (SELECT id FROM journal WHERE text_of_edit = ?1)",
        )?
        .query_map([edit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(DeliveryId, DeliveryId)>, _>>()?;
    for (id, bundle_leader) in deliveries {
        let may_have_arrived = failed_sends::of(tx, id)?.is_some();
        if (may_have_arrived && looked_for != Some(id)) || bundles::was_tried(tx, bundle_leader)? {
            continue;
        }
        if may_have_arrived {
            failed_sends::change_key(tx, id)?;
        }
        let Some(pending) = counters::pending(tx.sql, id)? else {
            continue;
        };
        if bundle_leader != id || !counters::members_of(tx.sql, id)?.is_empty() {
            bundles::split_bundle(tx, bundle_leader)?;
        }
        tx.sql
            .prepare_cached("UPDATE outbox SET plan = NULL WHERE id = ?1")?
            .execute([id])?;
        drop_redacted_texts(tx, &pending)?;
    }
    let failed = tx
        .sql
        .prepare_cached(
            "SELECT p.entry_id, p.to_place FROM parked_delivery p
             JOIN rewritten r ON r.entry_id = p.entry_id AND r.to_place = p.to_place
             WHERE r.edit_id = ?1 AND p.retryable = 1 AND p.steps_done = 0
             AND p.outcome_unknown = 0 AND p.bundle_key IS NULL",
        )?
        .query_map([edit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(EntryId, Place)>, _>>()?;
    for (message, to) in failed {
        delete_redacted(tx, message, &to)?;
    }
    // Where a newer edit was taken in, too, no attempt needs this text.
    tx.sql
        .prepare_cached(
            "UPDATE rewritten SET payload = NULL WHERE edit_id = ?1 AND EXISTS (
                 SELECT 1 FROM rewritten n WHERE n.entry_id = rewritten.entry_id
                 AND n.to_place = rewritten.to_place AND n.edit_id > ?1)",
        )?
        .execute([edit])?;
    tx.mark_erased();
    Ok(())
}

/// The message loses for the place the texts of all edits that were redacted, also of those that it kept so far because an
/// attempt was under way.
fn drop_redacted_texts(tx: &Tx<'_>, pending: &PendingDelivery) -> Result<(), TxError> {
    delete_redacted(tx, pending.entry, &pending.to)?;
    if has_redacted(tx, pending.entry, &pending.to)? {
        // The message's own room key never arrived, and it has the text of an edit that was redacted now or before.
        counters::settle(tx, pending, DeliveryEnd::Skipped(SkipRule::EditRedacted))?;
    }
    Ok(())
}

fn delete_redacted(tx: &Tx<'_>, message: EntryId, to: &Place) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "DELETE FROM rewritten WHERE entry_id = ?1 AND to_place = ?2 AND EXISTS (
                 SELECT 1 FROM journal j
                 JOIN edit_event r ON r.place = j.place AND r.event_id = j.event_id
                 WHERE j.id = rewritten.edit_id AND r.redacted = 1)",
        )?
        .execute(params![message, to])?;
    Ok(())
}

/// Whether the message has the text of a redacted edit for the place.
pub(crate) fn has_redacted(tx: &Tx<'_>, message: EntryId, to: &Place) -> Result<bool, TxError> {
    match text_of(tx, message, to)? {
        Some(edit) => redacted_edits::is_redacted(tx, edit),
        None => Ok(false),
    }
}

/// The payloads of a message are erased for each place to which it has no pending delivery, and none that can be retried.
/// Which edit it had there stays known.
pub(crate) fn erase_unneeded(tx: &Tx<'_>, message: EntryId) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE rewritten SET payload = NULL WHERE entry_id = ?1 AND payload IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM outbox o
                 WHERE o.entry_id = ?1 AND o.to_place = rewritten.to_place)
             AND NOT EXISTS (SELECT 1 FROM parked_delivery p
                 WHERE p.entry_id = ?1 AND p.to_place = rewritten.to_place AND p.retryable = 1)",
        )?
        .execute([message])?;
    Ok(())
}

/// The payload of a message for the place, decrypted, if it is still there.
pub(crate) fn payload(
    tx: &Tx<'_>,
    message: EntryId,
    to: &Place,
) -> Result<Option<Vec<u8>>, TxError> {
    match open(tx, message, to)? {
        Some(payload) => Ok(Some(payload)),
        None => journal::open_payload(tx, message),
    }
}

/// The newest edit that a message took in for a place: the row, the edit, and the sealed payload.
type Newest = (i64, EntryId, Option<Vec<u8>>);

fn newest(tx: &Tx<'_>, message: EntryId, to: &Place) -> Result<Option<Newest>, TxError> {
    Ok(tx
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
