//! Links and events, for a listener that compares what the store knows with what the network shows.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Row, params};

use crate::{Copy, Error, Place, RemoteId, Store};

/// A message that the bridge knows in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedMessage {
    /// Its id, thread and time.
    pub copy: Copy,
    /// Whether it was written there. If not, it is a copy.
    pub original: bool,
    /// Whether it is a copy that the bridge deleted completely.
    pub deleted: bool,
}

/// The columns of a [`LinkedMessage`], for `link` as `l`.
const COLUMNS: &str = "l.remote_id, l.thread, l.sent_at, l.deleted AND NOT l.emptied, EXISTS (
    SELECT 1 FROM journal j WHERE j.id = l.entry_id AND j.place = l.place AND j.event_id = l.remote_id)";

fn linked_from_row(row: &Row<'_>) -> rusqlite::Result<LinkedMessage> {
    Ok(LinkedMessage {
        copy: Copy {
            remote: row.get(0)?,
            thread: row.get(1)?,
            sent_at: row.get(2)?,
            file: None,
        },
        deleted: row.get(3)?,
        original: row.get(4)?,
    })
}

impl Store {
    /// What is known of a message.
    pub async fn find_message(
        &self,
        place: &Place,
        remote: &RemoteId,
    ) -> Result<Option<LinkedMessage>, Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.read("look for a message", move |tx| {
            Ok(tx
                .sql
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM link l WHERE l.place = ?1 AND l.remote_id = ?2
                     ORDER BY l.deleted, l.bundle_slot DESC LIMIT 1"
                ))?
                .query_row(params![place, remote], linked_from_row)
                .optional()?)
        })
        .await
    }

    /// The messages of a place whose ids are `first` or greater, but below `end`, without deleted copies, by id. Useful where ids
    /// grow with time.
    pub async fn links_between(
        &self,
        place: &Place,
        first: &RemoteId,
        end: Option<&RemoteId>,
    ) -> Result<Vec<LinkedMessage>, Error> {
        let (place, first, end) = (place.clone(), first.clone(), end.cloned());
        self.read("list messages", move |tx| {
            Ok(tx
                .sql
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM link l
                     WHERE l.place = ?1 AND l.remote_id >= ?2 AND (?3 IS NULL OR l.remote_id < ?3)
                     AND l.deleted = 0 ORDER BY l.remote_id"
                ))?
                .query_map(params![place, first, end], linked_from_row)?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Which of these events were accepted in a place, or made there by the bridge, since it was last linked.
    pub async fn known_events(
        &self,
        place: &Place,
        event_ids: Vec<RemoteId>,
    ) -> Result<HashSet<RemoteId>, Error> {
        let place = place.clone();
        self.read("look for events", move |tx| {
            let mut look = tx.sql.prepare_cached(
                "SELECT EXISTS (
                     SELECT 1 FROM journal WHERE place = ?1 AND event_id = ?2 AND accepted_at >= linked
                     UNION ALL
                     SELECT 1 FROM link l JOIN journal j ON j.id = l.entry_id
                     WHERE l.place = ?1 AND l.remote_id = ?2 AND j.accepted_at >= linked)
                 FROM (SELECT max(linked_at) AS linked FROM portal
                       WHERE active = 1 AND (room_place = ?1 OR channel_place = ?1))",
            )?;
            let mut known = HashSet::new();
            for event_id in &event_ids {
                if look.query_row(params![place, event_id], |row| row.get(0))? {
                    known.insert(event_id.clone());
                }
            }
            Ok(known)
        })
        .await
    }
}
