//! Replay protection: which ratchet index of which session belongs to which event. A homeserver can show an old ciphertext as a
//! new event, and the ratchet index of the ciphertext reveals it (P06). Rows are kept as long as a session is used and 30 days
//! more; then only the used indexes are kept, without the events.

use std::{collections::HashMap, time::Duration};

use rusqlite::{OptionalExtension, params};

use crate::{
    Arrival, Batch, EntryId, Error, LaneId, Millis, Payload, Place, RemoteId, SkipRule, Store,
    before_link,
    database::{Tx, TxError},
    journal, pending_changes,
    portals::PortalGraph,
};

/// How long event ids are kept after the last use of their session.
const INDEX_KEPT_FOR: Duration = Duration::from_hours(30 * 24);

/// What an event was decrypted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecryptedWith {
    /// The session.
    pub session: String,
    /// The ratchet index.
    pub ratchet_index: u32,
    /// When the homeserver says that the event was sent.
    pub sent_at: Millis,
}

/// The result of a decryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FillResult {
    /// The lanes to wake.
    pub lanes: Vec<LaneId>,
    /// Whether it turned out to be an old ciphertext under a new event id, and was dropped.
    pub replayed: bool,
}

impl Store {
    /// As [`Store::fill`], for an entry that was decrypted with this. `edits`: the message that it edits, if it is an edit.
    pub async fn fill_decrypted(
        &self,
        entry: EntryId,
        payload: Payload,
        decrypted_with: Option<DecryptedWith>,
        edits: Option<RemoteId>,
        now: Millis,
    ) -> Result<FillResult, Error> {
        self.transaction("fill an entry", move |tx| {
            let replayed = match &decrypted_with {
                Some(decrypted_with) => is_entry_replay(tx, entry, decrypted_with, now)?,
                None => false,
            };
            let of_before = match &decrypted_with {
                // A command in a management room is not relayed.
                Some(_) if is_management_command(tx, entry, &payload)? => false,
                Some(decrypted_with) => before_link::is_index_before_link(tx, decrypted_with)?,
                None => false,
            };
            let payload = if replayed {
                &Payload::Skipped(SkipRule::Replayed)
            } else if of_before {
                &Payload::Skipped(SkipRule::BeforeLink)
            } else {
                &payload
            };
            let lanes = journal::fill(tx, entry, payload, now)?;
            if let Some(target) = edits.as_ref().filter(|_| !replayed && !of_before) {
                let sent_at = decrypted_with
                    .as_ref()
                    .map(|decrypted_with| decrypted_with.sent_at);
                pending_changes::note_decrypted_edit(
                    tx,
                    entry,
                    target,
                    sent_at.unwrap_or_default(),
                    now,
                )?;
            }
            Ok(FillResult { lanes, replayed })
        })
        .await
    }

    /// Forgets the event ids of sessions that have not been used for long, and keeps that their ratchet indexes were used.
    /// Returns how many rows it saved.
    pub async fn compact_used_indexes(&self, now: Millis) -> Result<usize, Error> {
        self.transaction("compact the used ratchet indexes", move |tx| {
            tx.sql
                .prepare_cached(
                    "WITH old AS (
                         SELECT session FROM used_ratchet_index GROUP BY session HAVING max(seen_at) < ?1),
                     island AS (
                         SELECT session, ratchet_index,
                                ratchet_index - row_number() OVER (PARTITION BY session ORDER BY ratchet_index) AS number
                         FROM used_ratchet_index WHERE session IN old)
                     INSERT INTO used_ratchet_range (session, first, last)
                     SELECT session, min(ratchet_index), max(ratchet_index) FROM island GROUP BY session, number",
                )?
                .execute([before(now)])?;
            Ok(tx
                .sql
                .prepare_cached(
                    "DELETE FROM used_ratchet_index WHERE session IN (
                         SELECT session FROM used_ratchet_index GROUP BY session HAVING max(seen_at) < ?1)",
                )?
                .execute([before(now)])?)
        })
        .await
    }
}

/// A session must last have been used before this moment.
fn before(now: Millis) -> Millis {
    Millis(
        now.0
            .saturating_sub(i64::try_from(INDEX_KEPT_FOR.as_millis()).unwrap_or(i64::MAX)),
    )
}

/// What the arrivals of a batch were decrypted with.
pub(crate) type Used<'a> = HashMap<(&'a Place, &'a RemoteId), &'a DecryptedWith>;

pub(crate) fn used(batch: &Batch) -> Used<'_> {
    let used = batch.decrypted_with.iter();
    used.map(|(place, event_id, decrypted_with)| ((place, event_id), decrypted_with))
        .collect()
}

/// What to write for an arrival that is an old ciphertext under a new event id. If it is not, its ratchet index is used from now
/// on.
pub(crate) fn reject_replay(
    tx: &Tx<'_>,
    used: &Used<'_>,
    arrival: &Arrival,
    now: Millis,
) -> Result<Option<Arrival>, TxError> {
    let Some(decrypted_with) = used.get(&(&arrival.place, &arrival.event_id)) else {
        return Ok(None);
    };
    let replayed = is_replay(tx, &arrival.place, &arrival.event_id, decrypted_with, now)?;
    Ok(replayed.then(|| Arrival {
        message: None,
        payload: Payload::Skipped(SkipRule::Replayed),
        ..arrival.clone()
    }))
}

/// Whether the entry turns out to be a command in a room that is linked to no channel.
fn is_management_command(tx: &Tx<'_>, entry: EntryId, payload: &Payload) -> Result<bool, TxError> {
    let Payload::Command(_) = payload else {
        return Ok(false);
    };
    let place: Option<Place> = tx
        .sql
        .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
        .query_row([entry], |row| row.get(0))
        .optional()?;
    let graph = PortalGraph::load(tx.sql)?;
    Ok(place.is_some_and(|place| graph.is_management_only(&place)))
}

fn is_entry_replay(
    tx: &Tx<'_>,
    entry: EntryId,
    decrypted_with: &DecryptedWith,
    now: Millis,
) -> Result<bool, TxError> {
    let waits: Option<(Place, RemoteId)> = tx
        .sql
        .prepare_cached(
            "SELECT place, event_id FROM journal WHERE id = ?1 AND missing_session IS NOT NULL",
        )?
        .query_row([entry], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match waits {
        Some((place, event_id)) => is_replay(tx, &place, &event_id, decrypted_with, now),
        None => Ok(false),
    }
}

/// Whether another event used this ratchet index, or this event with another time. The first event has it.
fn is_replay(
    tx: &Tx<'_>,
    place: &Place,
    event: &RemoteId,
    decrypted_with: &DecryptedWith,
    now: Millis,
) -> Result<bool, TxError> {
    let known: Option<(RemoteId, Millis)> = tx
        .sql
        .prepare_cached("SELECT event_id, sent_at FROM used_ratchet_index WHERE session = ?1 AND ratchet_index = ?2")?
        .query_row(params![decrypted_with.session, decrypted_with.ratchet_index], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some((known, sent_at)) = known {
        return Ok(known != *event || sent_at != decrypted_with.sent_at);
    }
    let folded = tx
        .sql
        .prepare_cached(
            "SELECT 1 FROM used_ratchet_range WHERE session = ?1 AND first <= ?2 AND last >= ?2",
        )?
        .exists(params![
            decrypted_with.session,
            decrypted_with.ratchet_index
        ])?;
    if folded {
        // The event ids are forgotten; the journal knows its own events.
        return Ok(!tx
            .sql
            .prepare_cached("SELECT 1 FROM journal WHERE place = ?1 AND event_id = ?2")?
            .exists(params![place, event])?);
    }
    tx.sql
        .prepare_cached(
            "INSERT INTO used_ratchet_index (session, ratchet_index, event_id, sent_at, seen_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            decrypted_with.session,
            decrypted_with.ratchet_index,
            event,
            decrypted_with.sent_at,
            now
        ])?;
    Ok(false)
}
