//! Which texts of a message were sent to a place: its own, and those of its edits. A message that includes an edit before it is
//! sent has that edit's text, and its own is sent nowhere. When a later edit is redacted, no other text may be restored.

use rusqlite::params;

use crate::{
    EntryId, Error, LaneId, Millis, Payload, Place, RemoteId, Store,
    counters::{self, PendingDelivery},
    database::{Tx, TxError},
    edits, journal, redacted_edits, rewritten,
};

impl Store {
    /// The room key of a message is missing, and an edit of it was decrypted: the message gets the edit's text, and no older edit
    /// is sent after it. Otherwise as [`Store::fill`]. `None`, and nothing changes, where the edit was redacted.
    pub async fn fill_by_edit(
        &self,
        message: EntryId,
        payload: Vec<u8>,
        edit: EntryId,
        now: Millis,
    ) -> Result<Option<Vec<LaneId>>, Error> {
        self.transaction("fill an entry by an edit", move |tx| {
            if redacted_edits::is_redacted(tx, edit)? {
                return Ok(None);
            }
            let filled = tx
                .sql
                .prepare_cached(
                    "UPDATE journal SET text_of_edit = ?2 WHERE id = ?1 AND missing_session IS NOT NULL",
                )?
                .execute(params![message, edit])?;
            if filled > 0 {
                for pending in counters::pending_of_entry(tx.sql, message)? {
                    edits::note_included(tx, edit, &pending.to)?;
                }
            }
            let payload = Payload::Ready(payload.clone());
            journal::fill(tx, message, &payload, now).map(Some)
        })
        .await
    }

    /// This edit may be in the place although reconciliation did not find it: an edit in place leaves nothing by which it could
    /// be found. Its redaction restores the text that stood there before. `changed`: the copy that would have the text.
    pub async fn may_be_delivered(
        &self,
        edit: EntryId,
        to: &Place,
        changed: Option<&RemoteId>,
    ) -> Result<(), Error> {
        let (to, changed) = (to.clone(), changed.cloned());
        self.transaction("note an edit that may be delivered", move |tx| {
            tx.sql
                .prepare_cached(
                    "UPDATE link SET text_of = ?1 WHERE place = ?2 AND remote_id = ?3 AND bundle_slot < 0",
                )?
                .execute(params![edit, to, changed])?;
            tx.sql
                .prepare_cached(
                    "INSERT INTO delivered_text (entry_id, to_place) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                )?
                .execute(params![edit, to])?;
            Ok(())
        })
        .await
    }
}

/// A delivery was delivered: the place has the text of the message or edit now, or, where the message includes an edit, the
/// edit's text.
pub(crate) fn note_delivered(tx: &Tx<'_>, pending: &PendingDelivery) -> Result<(), TxError> {
    let text_of = rewritten::text_of(tx, pending.entry, &pending.to)?;
    tx.sql
        .prepare_cached(
            "INSERT INTO delivered_text (entry_id, to_place)
             SELECT coalesce(?3, j.id), ?2 FROM journal j
             WHERE j.id = ?1 AND j.place LIKE 'matrix:%' AND (
                 EXISTS (SELECT 1 FROM link l WHERE l.entry_id = j.id AND l.place = j.place)
                 OR EXISTS (SELECT 1 FROM edit_event r
                     WHERE r.place = j.place AND r.event_id = j.event_id AND r.target IS NOT NULL))
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![pending.entry, pending.to, text_of])?;
    Ok(())
}

/// Whether a text was sent to the place completely: that of an edit, or a message's own.
pub(crate) fn has(tx: &Tx<'_>, entry: EntryId, to: &Place) -> Result<bool, TxError> {
    Ok(tx
        .sql
        .prepare_cached("SELECT 1 FROM delivered_text WHERE entry_id = ?1 AND to_place = ?2")?
        .exists(params![entry, to])?)
}

/// Whether the place has the text of this edit or may have it, completely or in part: by itself, or in its message.
pub(crate) fn has_or_may(tx: &Tx<'_>, edit: EntryId, to: &Place) -> Result<bool, TxError> {
    Ok(has(tx, edit, to)? || is_begun(tx, edit, to, true)?)
}

/// Whether the place has the text of this edit of a message, completely or in part, or it is still pending for the place. What failed without
/// an answer does not count: it may never be there.
pub(crate) fn is_delivered_or_pending(
    tx: &Tx<'_>,
    edit: EntryId,
    message: Option<EntryId>,
    to: &Place,
) -> Result<bool, TxError> {
    Ok(has(tx, edit, to)?
        || is_begun(tx, edit, to, false)?
        || tx
            .sql
            .prepare_cached("SELECT 1 FROM outbox WHERE entry_id IN (?1, ?2) AND to_place = ?3")?
            .exists(params![edit, message, to])?)
}

/// Whether a step that brings the text of this edit is done or may be done, or, with `unanswered`, failed without an answer.
fn is_begun(tx: &Tx<'_>, edit: EntryId, to: &Place, unanswered: bool) -> Result<bool, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "WITH carrier (entry_id) AS (
                 SELECT ?1
                 UNION SELECT entry_id FROM rewritten WHERE edit_id = ?1 AND to_place = ?2
                 UNION SELECT id FROM journal WHERE text_of_edit = ?1)
             SELECT 1 FROM carrier c JOIN outbox o ON o.entry_id = c.entry_id AND o.to_place = ?2
             JOIN outbox l ON l.id = coalesce(o.bundle_leader_id, o.id)
             WHERE l.steps_done > 0 OR l.outcome_unknown_since IS NOT NULL OR l.unanswered_since IS NOT NULL
             UNION ALL
             SELECT 1 FROM carrier c JOIN parked_delivery p ON p.entry_id = c.entry_id AND p.to_place = ?2
             WHERE p.state <> 'delivered'
             AND (p.steps_done > 0 OR (?3 AND (p.outcome_unknown = 1 OR p.bundle_key IS NOT NULL)))",
        )?
        .exists(params![edit, to, unanswered])?)
}
