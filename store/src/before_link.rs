//! Events that the bridge saw while their room was not linked: before the first link, or between two links. Their authors did not
//! write them to the bridge, so they are not relayed when a homeserver shows them later as new. The bridge recognises such an
//! event by its id, by its ciphertext, and by the ratchet index of its room key: a message at or before the last index that was
//! decrypted then was written before the link.

use std::collections::{HashMap, HashSet};

use rusqlite::{OptionalExtension, params};

use crate::{
    Accepted, Batch, DecryptedWith, Error, Place, RemoteId, Store,
    database::{Tx, TxError},
};

/// How many fingerprints are kept of a room, two for each encrypted event. There is a limit because members decide how many there
/// are.
const MAX_FINGERPRINTS: i64 = 4_000;
/// How many room keys are kept of a room.
const MAX_SESSIONS: i64 = 2_000;

/// An event as a homeserver showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenEvent {
    /// The room.
    pub place: Place,
    /// The event's id.
    pub event: RemoteId,
    /// A digest of its ciphertext, if it came encrypted.
    pub ciphertext: Option<String>,
    /// What it was decrypted with, if it could be.
    pub decrypted_with: Option<DecryptedWith>,
}

impl Store {
    /// Which of these events were seen while the room was not linked.
    pub async fn events_before_link(
        &self,
        place: &Place,
        events: Vec<RemoteId>,
    ) -> Result<HashSet<RemoteId>, Error> {
        let place = place.clone();
        self.read("look for events of before a link", move |tx| {
            let mut found = HashSet::new();
            for event in &events {
                if is_fingerprint_known(tx, &place, event.as_str())? {
                    found.insert(event.clone());
                }
            }
            Ok(found)
        })
        .await
    }
}

/// The arrivals of a batch as the homeserver showed them.
pub(crate) type ByEvent<'a> = HashMap<(&'a Place, &'a RemoteId), &'a SeenEvent>;

pub(crate) fn by_event(batch: &Batch) -> ByEvent<'_> {
    let shown = batch.seen_events.iter();
    shown
        .map(|shown| ((&shown.place, &shown.event), shown))
        .collect()
}

/// Accepts an arrival, unless it was written while its room was not linked. An event of an unlinked room is noted, and so is one
/// that is accepted and `stays` in its room.
pub(crate) fn unless_before_link(
    tx: &Tx<'_>,
    shown: Option<&SeenEvent>,
    stays: bool,
    accept_arrival: impl FnOnce() -> Result<Accepted, TxError>,
) -> Result<Accepted, TxError> {
    let Some(shown) = shown else {
        return accept_arrival();
    };
    if is_before_link(tx, shown)? {
        return Ok(Accepted::Duplicate);
    }
    let accepted = accept_arrival()?;
    if stays || accepted == Accepted::NotLinked {
        note(tx, shown)?;
    }
    Ok(accepted)
}

/// Whether the event was written while its room was not linked.
fn is_before_link(tx: &Tx<'_>, shown: &SeenEvent) -> Result<bool, TxError> {
    let marks = [Some(shown.event.as_str()), shown.ciphertext.as_deref()];
    for mark in marks.into_iter().flatten() {
        if is_fingerprint_known(tx, &shown.place, mark)? {
            // An event that was undecryptable then now shows how far its key was used. Nothing else is noted: a homeserver that
            // shows the event under new ids again and again must not displace other fingerprints.
            note_index(tx, shown)?;
            return Ok(true);
        }
    }
    match &shown.decrypted_with {
        Some(decrypted_with) => is_index_before_link(tx, decrypted_with),
        None => Ok(false),
    }
}

/// Whether the message's ratchet index is at or before the last one that was decrypted while the room was not linked.
pub(crate) fn is_index_before_link(
    tx: &Tx<'_>,
    decrypted_with: &DecryptedWith,
) -> Result<bool, TxError> {
    let last: Option<u32> = tx
        .sql
        .prepare_cached("SELECT last_index FROM before_link_index WHERE session = ?1")?
        .query_row([&decrypted_with.session], |row| row.get(0))
        .optional()?;
    Ok(last.is_some_and(|last| decrypted_with.ratchet_index <= last))
}

/// Notes that an event was seen while its room was not linked.
fn note(tx: &Tx<'_>, shown: &SeenEvent) -> Result<(), TxError> {
    let marks = [Some(shown.event.as_str()), shown.ciphertext.as_deref()];
    for mark in marks.into_iter().flatten() {
        tx.sql
            .prepare_cached(
                "INSERT INTO before_link_event (place, fingerprint) VALUES (?1, ?2)
                 ON CONFLICT (place, fingerprint) DO NOTHING",
            )?
            .execute(params![shown.place, mark])?;
    }
    note_index(tx, shown)
}

/// Notes how far a room key was used while its room was not linked.
fn note_index(tx: &Tx<'_>, shown: &SeenEvent) -> Result<(), TxError> {
    if let Some(decrypted_with) = &shown.decrypted_with {
        tx.sql
            .prepare_cached(
                "INSERT INTO before_link_index (session, place, last_index) VALUES (?1, ?2, ?3)
                 ON CONFLICT (session) DO UPDATE SET last_index = max(last_index, excluded.last_index)",
            )?
            .execute(params![decrypted_with.session, shown.place, decrypted_with.ratchet_index])?;
    }
    Ok(())
}

/// Writes what a batch says about the time before links, and deletes the oldest rows above the limits.
pub(crate) fn save(tx: &Tx<'_>, batch: &Batch) -> Result<(), TxError> {
    for shown in &batch.before_link {
        note(tx, shown)?;
    }
    let touched = batch.before_link.iter().chain(&batch.seen_events);
    for place in touched.map(|shown| &shown.place).collect::<HashSet<_>>() {
        tx.sql
            .prepare_cached(
                "DELETE FROM before_link_event WHERE place = ?1 AND id <= (
                     SELECT id FROM before_link_event WHERE place = ?1
                     ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![place, MAX_FINGERPRINTS])?;
        tx.sql
            .prepare_cached(
                "DELETE FROM before_link_index WHERE place = ?1 AND rowid <= (
                     SELECT rowid FROM before_link_index WHERE place = ?1
                     ORDER BY rowid DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![place, MAX_SESSIONS])?;
    }
    Ok(())
}

fn is_fingerprint_known(tx: &Tx<'_>, place: &Place, mark: &str) -> Result<bool, TxError> {
    Ok(tx
        .sql
        .prepare_cached("SELECT 1 FROM before_link_event WHERE place = ?1 AND fingerprint = ?2")?
        .exists(params![place, mark])?)
}
