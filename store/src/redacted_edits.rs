//! Redacted edits: which message an edit belongs to, whether its text applies in a place, and which text the message has without
//! it.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};

use crate::{
    Arrival, Change, DecryptedWith, EntryId, Error, MessageRef, Millis, Place, RemoteId, Store,
    database::{Tx, TxError},
    delivered_texts, edits, links,
    pending_changes::{self, Cancelled},
    rewritten,
};

/// A redacted edit, for one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactedEdit {
    /// The message that it edited; `None` where the edit was never decrypted.
    pub message: Option<RemoteId>,
    /// The edit.
    pub edit: EntryId,
    /// Which text of the message the place shows.
    pub shown: ShownText,
    /// The other edits of the message whose text was sent to the place, that were not redacted and came before the redaction, the
    /// newest first (by `origin_server_ts`, then by event id: specification, "Event replacements").
    pub others: Vec<Revision>,
    /// Whether the message's own text was sent there.
    pub own: bool,
    /// What contains the edit's text in the place.
    pub carriers: Vec<TextCarrier>,
}

/// A copy, or an event that replaces the text of one, with the text or a file of an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextCarrier {
    /// Its id.
    pub remote: RemoteId,
    /// Whether it is an event that replaces the text of a copy.
    pub is_replacement: bool,
    /// Whether an event with another text replaces its text.
    pub is_replaced: bool,
    /// Whether it carries or names a file.
    pub has_file: bool,
}

/// Which text of a message a place shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownText {
    /// That of the redacted edit.
    Redacted,
    /// That of a later edit.
    Later,
    /// An earlier one: the edit's text was never sent there.
    Earlier,
}

/// An edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its event.
    pub event_id: RemoteId,
    /// Its entry.
    pub entry: EntryId,
}

impl Store {
    /// What the redaction `by` of the edit that `from` calls `edit` means for `to`. `None` where `edit` is no known edit.
    pub async fn redacted_edit(
        &self,
        from: &Place,
        edit: &RemoteId,
        to: &Place,
        by: EntryId,
    ) -> Result<Option<RedactedEdit>, Error> {
        let (from, edit, to) = (from.clone(), edit.clone(), to.clone());
        self.read("look what the redaction of an edit means", move |tx| {
            let found: Option<(Option<RemoteId>, EntryId)> = tx
                .sql
                .prepare_cached(
                    "SELECT r.target, j.id FROM edit_event r
                     JOIN journal j ON j.place = r.place AND j.event_id = r.event_id
                     WHERE r.place = ?1 AND r.event_id = ?2",
                )?
                .query_row(params![from, edit], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((message, edit)) = found else {
                return Ok(None);
            };
            let Some(target) = &message else {
                return Ok(Some(RedactedEdit {
                    message,
                    edit,
                    shown: ShownText::Earlier,
                    others: Vec::new(),
                    own: false,
                    carriers: Vec::new(),
                }));
            };
            let edited = MessageRef {
                place: &from,
                id: target,
            };
            Ok(Some(RedactedEdit {
                shown: shown(tx, edited, &to, edit, by)?,
                others: others(tx, edited, &to, by)?,
                own: match links::entry_of(tx.sql, &from, target)? {
                    Some(original) => delivered_texts::has(tx, original, &to)?,
                    None => false,
                },
                carriers: carriers_of(tx, edited, &to, edit)?,
                message,
                edit,
            }))
        })
        .await
    }

    /// Whether an edit was redacted.
    pub async fn is_edit_redacted(&self, edit: EntryId) -> Result<bool, Error> {
        self.read("look whether an edit was redacted", move |tx| {
            is_redacted(tx, edit)
        })
        .await
    }

    /// Whether the text that the redaction `by` restores in `to` was redacted itself since.
    pub async fn restores_redacted_text(
        &self,
        message: MessageRef<'_>,
        to: &Place,
        by: EntryId,
    ) -> Result<bool, Error> {
        let (from, message, to) = (message.place.clone(), message.id.clone(), to.clone());
        self.read("look whether a restored text was redacted", move |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT 1 FROM latest_edit l JOIN journal j ON j.id = l.entry_id
                     JOIN edit_event r ON r.place = j.place AND r.event_id = j.event_id
                     WHERE l.place = ?1 AND l.target = ?2 AND l.to_place = ?3 AND l.restored_by = ?4
                     AND r.redacted = 1",
                )?
                .exists(params![from, message, to, by])?)
        })
        .await
    }

    /// Whether a message in a place contains the text of an edit that was redacted.
    pub async fn contains_redacted_text(
        &self,
        place: &Place,
        remote: &RemoteId,
    ) -> Result<bool, Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.read("look for a redacted text", move |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT 1 FROM link l JOIN journal j ON j.id = l.text_of
                     JOIN edit_event r ON r.place = j.place AND r.event_id = j.event_id
                     WHERE l.place = ?1 AND l.remote_id = ?2 AND l.deleted = 0 AND r.redacted = 1",
                )?
                .exists(params![place, remote])?)
        })
        .await
    }

    /// The redaction `by` is about to restore an earlier text of the message in `to`: that of the edit `text`, or the message's
    /// own. An older edit whose room key arrives late is compared with that from now on.
    pub async fn note_restored_text(
        &self,
        message: MessageRef<'_>,
        to: &Place,
        by: EntryId,
        text: Option<EntryId>,
    ) -> Result<(), Error> {
        let (from, message, to) = (message.place.clone(), message.id.clone(), to.clone());
        self.transaction("restore a text", move |tx| {
            let Some(original) = links::entry_of(tx.sql, &from, &message)? else {
                return Ok(());
            };
            tx.sql
                .prepare_cached(
                    "INSERT INTO latest_edit (place, target, to_place, entry_id, restored_by)
                     VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (place, target, to_place) DO UPDATE
                     SET entry_id = excluded.entry_id, restored_by = excluded.restored_by",
                )?
                .execute(params![from, message, to, text.unwrap_or(original), by])?;
            // The texts of redacted edits are no longer there, so another redaction of them restores nothing.
            tx.sql
                .prepare_cached(
                    "DELETE FROM delivered_text WHERE to_place = ?3 AND entry_id IN (
                         SELECT j.id FROM edit_event r
                         JOIN journal j ON j.place = r.place AND j.event_id = r.event_id
                         WHERE r.place = ?1 AND r.target = ?2 AND r.redacted = 1)",
                )?
                .execute(params![from, message, to])?;
            Ok(())
        })
        .await
    }

    /// Whether an event is the one that was first decrypted with this ratchet index: a homeserver that shows another message of
    /// the session under its id is lying. Of a session that has not been used for 30 days the event ids are forgotten (see
    /// [`Store::compact_used_indexes`]): then the answer is `false`.
    pub async fn was_decrypted_with(
        &self,
        event: &RemoteId,
        decrypted_with: &DecryptedWith,
    ) -> Result<bool, Error> {
        let (event, decrypted_with) = (event.clone(), decrypted_with.clone());
        self.read("look what an event was decrypted with", move |tx| {
            let known: Option<(RemoteId, Millis)> = tx
                .sql
                .prepare_cached(
                    "SELECT event_id, sent_at FROM used_ratchet_index WHERE session = ?1 AND ratchet_index = ?2",
                )?
                .query_row(params![decrypted_with.session, decrypted_with.ratchet_index], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            Ok(known.is_some_and(|(known, sent_at)| known == event && sent_at == decrypted_with.sent_at))
        })
        .await
    }
}

/// Notes which message or edit an arrival edits or redacts.
pub(crate) fn note_change(
    tx: &Tx<'_>,
    entry: EntryId,
    arrival: &Arrival,
    target: &RemoteId,
    change: Option<&Change>,
) -> Result<(), TxError> {
    pending_changes::note_target(tx, entry, target)?;
    match change {
        Some(change) if change.is_retraction => note_redaction(tx, &arrival.place, target),
        _ => note_edit(
            tx,
            &arrival.place,
            &arrival.event_id,
            target,
            arrival.sent_at,
        ),
    }
}

/// Notes which message an edit belongs to. A redaction that was noted of it stays.
pub(crate) fn note_edit(
    tx: &Tx<'_>,
    place: &Place,
    event_id: &RemoteId,
    target: &RemoteId,
    sent_at: Millis,
) -> Result<(), TxError> {
    if place.network() != Place::MATRIX {
        return Ok(());
    }
    tx.sql
        .prepare_cached(
            "INSERT INTO edit_event (place, event_id, target, sent_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (place, event_id) DO UPDATE SET target = excluded.target, sent_at = excluded.sent_at",
        )?
        .execute(params![place, event_id, target, sent_at])?;
    Ok(())
}

/// An event was redacted. If it is an edit, or waits for its room key and may be one, that is noted. Its failed deliveries can no
/// longer be retried, nor can those of its message that failed midway and have the edit's text.
fn note_redaction(tx: &Tx<'_>, place: &Place, event_id: &RemoteId) -> Result<(), TxError> {
    if place.network() != Place::MATRIX {
        return Ok(());
    }
    tx.sql
        .prepare_cached("UPDATE edit_event SET redacted = 1 WHERE place = ?1 AND event_id = ?2")?
        .execute(params![place, event_id])?;
    let edit: Option<EntryId> = tx
        .sql
        .prepare_cached(
            "SELECT j.id FROM edit_event r JOIN journal j ON j.place = r.place AND j.event_id = r.event_id
             WHERE r.place = ?1 AND r.event_id = ?2",
        )?
        .query_row(params![place, event_id], |row| row.get(0))
        .optional()?;
    if let Some(edit) = edit {
        let failed = failed_with(tx, edit)?;
        rewritten::forget(tx, edit)?;
        edits::note_redacted(tx, edit)?;
        for (entry, to) in failed {
            // One that has the text of another edit, or its own again, can still be retried.
            if entry == edit || rewritten::has_redacted(tx, entry, &to)? {
                let why = "its text was redacted";
                pending_changes::cancel_failed(tx, entry, None, &to, Cancelled::All, why)?;
            }
        }
    }
    // A message has a link; an undecryptable event without one may be an edit.
    tx.sql
        .prepare_cached(
            "INSERT INTO edit_event (place, event_id, redacted)
             SELECT place, event_id, 1 FROM journal
             WHERE place = ?1 AND event_id = ?2 AND missing_session IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM link WHERE place = ?1 AND remote_id = ?2)
             ON CONFLICT (place, event_id) DO NOTHING",
        )?
        .execute(params![place, event_id])?;
    Ok(())
}

/// The failed deliveries that can be retried of an edit, and of messages that took it in.
fn failed_with(tx: &Tx<'_>, edit: EntryId) -> Result<HashSet<(EntryId, Place)>, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT p.entry_id, p.to_place FROM parked_delivery p JOIN journal m ON m.id = p.entry_id
             WHERE p.retryable = 1 AND (?1 IN (m.id, m.text_of_edit) OR EXISTS (
                 SELECT 1 FROM rewritten w
                 WHERE w.edit_id = ?1 AND w.entry_id = m.id AND w.to_place = p.to_place))",
        )?
        .query_map([edit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?)
}

/// Whether an edit was redacted.
pub(crate) fn is_redacted(tx: &Tx<'_>, edit: EntryId) -> Result<bool, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT 1 FROM journal j JOIN edit_event r ON r.place = j.place AND r.event_id = j.event_id
             WHERE j.id = ?1 AND r.redacted = 1",
        )?
        .exists([edit])?)
}

fn shown(
    tx: &Tx<'_>,
    message: MessageRef<'_>,
    to: &Place,
    edit: EntryId,
    by: EntryId,
) -> Result<ShownText, TxError> {
    let newest: Option<(EntryId, Option<EntryId>)> = tx
        .sql
        .prepare_cached(
            "SELECT entry_id, restored_by FROM latest_edit
             WHERE place = ?1 AND target = ?2 AND to_place = ?3",
        )?
        .query_row(params![message.place, message.id, to], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(match newest {
        Some((_, Some(restored))) if restored == by => ShownText::Redacted,
        Some((newest, restored)) if newest > edit => {
            // A failed delivery is not there, and may never be.
            let original = links::entry_of(tx.sql, message.place, message.id)?;
            if restored.is_some()
                || delivered_texts::is_delivered_or_pending(tx, newest, original, to)?
            {
                ShownText::Later
            } else {
                ShownText::Redacted
            }
        }
        // The edit may have been on its way when its redaction was accepted: then it is not the latest edit any more.
        _ if delivered_texts::has_or_may(tx, edit, to)? => ShownText::Redacted,
        _ => ShownText::Earlier,
    })
}

fn others(
    tx: &Tx<'_>,
    message: MessageRef<'_>,
    to: &Place,
    by: EntryId,
) -> Result<Vec<Revision>, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT r.event_id, j.id FROM edit_event r
             JOIN journal j ON j.place = r.place AND j.event_id = r.event_id
             JOIN delivered_text c ON c.entry_id = j.id AND c.to_place = ?3
             WHERE r.place = ?1 AND r.target = ?2 AND r.redacted = 0 AND j.id < ?4
             ORDER BY r.sent_at DESC, r.event_id DESC",
        )?
        .query_map(params![message.place, message.id, to, by], |row| {
            Ok(Revision {
                event_id: row.get(0)?,
                entry: row.get(1)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}

fn carriers_of(
    tx: &Tx<'_>,
    message: MessageRef<'_>,
    to: &Place,
    edit: EntryId,
) -> Result<Vec<TextCarrier>, TxError> {
    let entry = links::entry_of(tx.sql, message.place, message.id)?;
    Ok(tx
        .sql
        .prepare_cached(
            // A bundled message contains the texts of others. The event that removed a part from one is not undone: the part has
            // no text any more.
            "SELECT remote_id, replaces IS NOT NULL, EXISTS (SELECT 1 FROM link e
                 WHERE e.place = link.place AND e.replaces = link.remote_id AND e.deleted = 0 AND e.text_of IS NOT ?3),
                 coalesce(file_digest, '') <> ''
             FROM link
             WHERE entry_id = ?1 AND place = ?2 AND text_of = ?3 AND deleted = 0 AND bundle_slot < 0
             AND NOT EXISTS (SELECT 1 FROM link s
                 WHERE s.place = link.place AND s.remote_id = link.replaces AND s.bundle_slot >= 0 AND s.deleted = 1)
             ORDER BY part",
        )?
        .query_map(params![entry, to, edit], |row| {
            Ok(TextCarrier {
                remote: row.get(0)?,
                is_replacement: row.get(1)?,
                is_replaced: row.get(2)?,
                has_file: row.get(3)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}
