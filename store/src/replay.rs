//! Which message of which room key was which event. A homeserver can show an old ciphertext again as a new event; the
//! ciphertext's place in its key's ratchet gives it away (P06). Rows are kept as long as a key is used and 30 days
//! more; then only the places that were used are, without the events.

use std::{collections::HashMap, time::Duration};

use rusqlite::{OptionalExtension, params};

use crate::{
    Arrival, Batch, EntryId, Error, LaneId, Millis, Payload, Place, RemoteId, Store, changes,
    database::{Desk, Fault},
    journal,
    portals::Graph,
    unlinked::{self, UNLINKED},
};

/// How long events are remembered after the last use of their key.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// The rule for an old ciphertext under a new event.
pub(crate) const REPLAYED: &str = "replayed";

/// What an event was decrypted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The session.
    pub session: String,
    /// The place in its ratchet.
    pub index: u32,
    /// When the homeserver says that the event was sent.
    pub sent_at: Millis,
}

/// What became of an entry that can be read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The lanes to ring.
    pub lanes: Vec<LaneId>,
    /// Whether it turned out to be an old ciphertext under a new event, and was dropped.
    pub replayed: bool,
}

impl Store {
    /// As [`Store::fill`], for an entry that was decrypted with this.
    pub async fn fill_opened(
        &self,
        entry: EntryId,
        payload: Payload,
        (opened, edits): (Option<Opened>, Option<RemoteId>),
        now: Millis,
    ) -> Result<Read, Error> {
        self.transaction("fill an entry", move |desk| {
            let replayed = match &opened {
                Some(opened) => replays_in_entry(desk, entry, opened, now)?,
                None => false,
            };
            let of_before = match &opened {
                // What is asked where nothing is joined crosses nothing.
                Some(_) if is_asked_at_desk(desk, entry, &payload)? => false,
                Some(opened) => unlinked::is_at_or_before(desk, opened)?,
                None => false,
            };
            let payload = if replayed {
                &Payload::Skipped(REPLAYED)
            } else if of_before {
                &Payload::Skipped(UNLINKED)
            } else {
                &payload
            };
            let lanes = journal::fill(desk, entry, payload, now)?;
            if let Some(target) = edits.as_ref().filter(|_| !replayed && !of_before) {
                let sent_at = opened.as_ref().map(|opened| opened.sent_at);
                changes::opened(desk, entry, (target, sent_at.unwrap_or_default()), now)?;
            }
            Ok(Read { lanes, replayed })
        })
        .await
    }

    /// Forgets by what keys were used that have not been used for long, and keeps that they were. Answers how many
    /// rows it saved.
    pub async fn fold_used(&self, now: Millis) -> Result<usize, Error> {
        self.transaction("fold the used places of old room keys", move |desk| {
            desk.sql
                .prepare_cached(
                    "WITH old AS (
                         SELECT session FROM used_index GROUP BY session HAVING max(seen_at) < ?1),
                     island AS (
                         SELECT session, place,
                                place - row_number() OVER (PARTITION BY session ORDER BY place) AS number
                         FROM used_index WHERE session IN old)
                     INSERT INTO used_range (session, first, last)
                     SELECT session, min(place), max(place) FROM island GROUP BY session, number",
                )?
                .execute([before(now)])?;
            Ok(desk
                .sql
                .prepare_cached(
                    "DELETE FROM used_index WHERE session IN (
                         SELECT session FROM used_index GROUP BY session HAVING max(seen_at) < ?1)",
                )?
                .execute([before(now)])?)
        })
        .await
    }
}

/// Before when a key must last have been used.
fn before(now: Millis) -> Millis {
    Millis(
        now.0
            .saturating_sub(i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX)),
    )
}

/// What the arrivals of a batch were decrypted with.
pub(crate) type Used<'a> = HashMap<(&'a Place, &'a RemoteId), &'a Opened>;

pub(crate) fn used(batch: &Batch) -> Used<'_> {
    let used = batch.opened.iter();
    used.map(|(place, fact, opened)| ((place, fact), opened))
        .collect()
}

/// The arrival as it may be written down if it is an old ciphertext under a new event. If it is not, what it was
/// decrypted with is used from now on.
pub(crate) fn caught(
    desk: &Desk<'_>,
    used: &Used<'_>,
    arrival: &Arrival,
    now: Millis,
) -> Result<Option<Arrival>, Fault> {
    let Some(opened) = used.get(&(&arrival.place, &arrival.fact)) else {
        return Ok(None);
    };
    let replayed = replays(desk, (&arrival.place, &arrival.fact), opened, now)?;
    Ok(replayed.then(|| Arrival {
        message: None,
        payload: Payload::Skipped(REPLAYED),
        ..arrival.clone()
    }))
}

/// Whether the entry turns out to be a question in a room that is joined to nothing, and in which questions are heard.
fn is_asked_at_desk(desk: &Desk<'_>, entry: EntryId, payload: &Payload) -> Result<bool, Fault> {
    let Payload::Command(_) = payload else {
        return Ok(false);
    };
    let place: Option<Place> = desk
        .sql
        .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
        .query_row([entry], |row| row.get(0))
        .optional()?;
    let graph = Graph::load(desk.sql)?;
    Ok(place.is_some_and(|place| graph.only_asks(&place)))
}

fn replays_in_entry(
    desk: &Desk<'_>,
    entry: EntryId,
    opened: &Opened,
    now: Millis,
) -> Result<bool, Fault> {
    let waits: Option<(Place, RemoteId)> = desk
        .sql
        .prepare_cached("SELECT place, fact FROM journal WHERE id = ?1 AND session IS NOT NULL")?
        .query_row([entry], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match waits {
        Some((place, fact)) => replays(desk, (&place, &fact), opened, now),
        None => Ok(false),
    }
}

/// Whether another event used this place of the key, or this event with another time. Whoever comes first has it.
fn replays(
    desk: &Desk<'_>,
    (place, event): (&Place, &RemoteId),
    opened: &Opened,
    now: Millis,
) -> Result<bool, Fault> {
    let known: Option<(RemoteId, Millis)> = desk
        .sql
        .prepare_cached("SELECT event, sent_at FROM used_index WHERE session = ?1 AND place = ?2")?
        .query_row(params![opened.session, opened.index], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some((known, sent_at)) = known {
        return Ok(known != *event || sent_at != opened.sent_at);
    }
    let folded = desk
        .sql
        .prepare_cached(
            "SELECT 1 FROM used_range WHERE session = ?1 AND first <= ?2 AND last >= ?2",
        )?
        .exists(params![opened.session, opened.index])?;
    if folded {
        // By which event is not remembered; the journal knows its own.
        return Ok(!desk
            .sql
            .prepare_cached("SELECT 1 FROM journal WHERE place = ?1 AND fact = ?2")?
            .exists(params![place, event])?);
    }
    desk.sql
        .prepare_cached(
            "INSERT INTO used_index (session, place, event, sent_at, seen_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            opened.session,
            opened.index,
            event,
            opened.sent_at,
            now
        ])?;
    Ok(false)
}
