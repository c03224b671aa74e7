//! What was seen of a room while it was joined to nothing: before it was linked, or between two links. It was not said to
//! the bridge, and does not cross when a homeserver shows it later as new. An event is known again by its id, by its
//! ciphertext, and by its place in the ratchet of its room key: what stands at or before the last message that was read
//! then was written before it.

use std::collections::{HashMap, HashSet};

use rusqlite::{OptionalExtension, params};

use crate::{
    Accepted, Batch, Error, Opened, Place, RemoteId, Store,
    database::{Desk, Fault},
};

/// The rule for what was written while the room was not linked.
pub(crate) const UNLINKED: &str = "before-link";
/// So many marks are kept of a room, two for each encrypted event: members decide how many there are.
const MOST_MARKS: i64 = 4_000;
/// So many room keys are kept of a room.
const MOST_KEYS: i64 = 2_000;

/// An event as a homeserver showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The room.
    pub place: Place,
    /// The id of the event.
    pub event: RemoteId,
    /// A digest of its ciphertext, if it came encrypted.
    pub ciphertext: Option<String>,
    /// What it was decrypted with, if it could be.
    pub opened: Option<Opened>,
}

impl Store {
    /// Which of these events were seen while the room was not linked.
    pub async fn unlinked(
        &self,
        place: &Place,
        events: Vec<RemoteId>,
    ) -> Result<HashSet<RemoteId>, Error> {
        let place = place.clone();
        self.read("look for events of before a link", move |desk| {
            let mut found = HashSet::new();
            for event in &events {
                if is_marked(desk, &place, event.as_str())? {
                    found.insert(event.clone());
                }
            }
            Ok(found)
        })
        .await
    }
}

/// How the arrivals of a batch were shown.
pub(crate) type ByEvent<'a> = HashMap<(&'a Place, &'a RemoteId), &'a Shown>;

pub(crate) fn by_event(batch: &Batch) -> ByEvent<'_> {
    let shown = batch.shown.iter();
    shown
        .map(|shown| ((&shown.place, &shown.event), shown))
        .collect()
}

/// Takes an arrival in, unless it was written while its room was not linked. What turns out to be, is noted, also where it
/// is taken in and `stays` in its room.
pub(crate) fn unless_of_before(
    desk: &Desk<'_>,
    shown: Option<&Shown>,
    stays: bool,
    take_in: impl FnOnce() -> Result<Accepted, Fault>,
) -> Result<Accepted, Fault> {
    let Some(shown) = shown else {
        return take_in();
    };
    if is_of_before(desk, shown)? {
        return Ok(Accepted::Seen);
    }
    let accepted = take_in()?;
    if stays || accepted == Accepted::Unlinked {
        note(desk, shown)?;
    }
    Ok(accepted)
}

/// Whether the event was written while its room was not linked.
fn is_of_before(desk: &Desk<'_>, shown: &Shown) -> Result<bool, Fault> {
    let marks = [Some(shown.event.as_str()), shown.ciphertext.as_deref()];
    for mark in marks.into_iter().flatten() {
        if is_marked(desk, &shown.place, mark)? {
            // What could not be read then tells by now how far its key was used. Nothing else is noted: whoever shows it
            // under ever new ids must not push other marks out.
            note_index(desk, shown)?;
            return Ok(true);
        }
    }
    match &shown.opened {
        Some(opened) => is_at_or_before(desk, opened),
        None => Ok(false),
    }
}

/// Whether the message stands at or before the last one of its key that was read while the room was not linked.
pub(crate) fn is_at_or_before(desk: &Desk<'_>, opened: &Opened) -> Result<bool, Fault> {
    let last: Option<u32> = desk
        .sql
        .prepare_cached("SELECT last FROM unlinked_index WHERE session = ?1")?
        .query_row([&opened.session], |row| row.get(0))
        .optional()?;
    Ok(last.is_some_and(|last| opened.index <= last))
}

/// Keeps that an event was seen while its room was not linked.
fn note(desk: &Desk<'_>, shown: &Shown) -> Result<(), Fault> {
    let marks = [Some(shown.event.as_str()), shown.ciphertext.as_deref()];
    for mark in marks.into_iter().flatten() {
        desk.sql
            .prepare_cached(
                "INSERT INTO unlinked_event (place, mark) VALUES (?1, ?2)
                 ON CONFLICT (place, mark) DO NOTHING",
            )?
            .execute(params![shown.place, mark])?;
    }
    note_index(desk, shown)
}

/// Keeps how far a room key was used while its room was not linked.
fn note_index(desk: &Desk<'_>, shown: &Shown) -> Result<(), Fault> {
    if let Some(opened) = &shown.opened {
        desk.sql
            .prepare_cached(
                "INSERT INTO unlinked_index (session, place, last) VALUES (?1, ?2, ?3)
                 ON CONFLICT (session) DO UPDATE SET last = max(last, excluded.last)",
            )?
            .execute(params![opened.session, shown.place, opened.index])?;
    }
    Ok(())
}

/// Keeps what a batch tells of the time before links, and forgets the oldest of what is kept beyond the most.
pub(crate) fn keep(desk: &Desk<'_>, batch: &Batch) -> Result<(), Fault> {
    for shown in &batch.before {
        note(desk, shown)?;
    }
    let touched = batch.before.iter().chain(&batch.shown);
    for place in touched.map(|shown| &shown.place).collect::<HashSet<_>>() {
        desk.sql
            .prepare_cached(
                "DELETE FROM unlinked_event WHERE place = ?1 AND id <= (
                     SELECT id FROM unlinked_event WHERE place = ?1
                     ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![place, MOST_MARKS])?;
        desk.sql
            .prepare_cached(
                "DELETE FROM unlinked_index WHERE place = ?1 AND rowid <= (
                     SELECT rowid FROM unlinked_index WHERE place = ?1
                     ORDER BY rowid DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![place, MOST_KEYS])?;
    }
    Ok(())
}

fn is_marked(desk: &Desk<'_>, place: &Place, mark: &str) -> Result<bool, Fault> {
    Ok(desk
        .sql
        .prepare_cached("SELECT 1 FROM unlinked_event WHERE place = ?1 AND mark = ?2")?
        .exists(params![place, mark])?)
}
