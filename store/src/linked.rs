//! Links and facts as a listener asks for them when it compares what it knows with what it is shown.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Row, params};

use crate::{Copy, Error, Place, RemoteId, Store};

/// A message that we know in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Where and when.
    pub copy: Copy,
    /// Whether it was written there. If not, we made it.
    pub original: bool,
    /// Whether it is a copy that we took back, so that nothing stands there any more.
    pub gone: bool,
}

/// The columns of a [`Linked`], for `link` as `l`.
const COLUMNS: &str = "l.remote, l.thread, l.sent_at, l.gone AND NOT l.emptied, EXISTS (
    SELECT 1 FROM journal j WHERE j.id = l.entry_id AND j.place = l.place AND j.fact = l.remote)";

fn linked(row: &Row<'_>) -> rusqlite::Result<Linked> {
    Ok(Linked {
        copy: Copy {
            remote: row.get(0)?,
            thread: row.get(1)?,
            sent_at: row.get(2)?,
            file: None,
        },
        gone: row.get(3)?,
        original: row.get(4)?,
    })
}

impl Store {
    /// What is known of a message.
    pub async fn linked(&self, place: &Place, remote: &RemoteId) -> Result<Option<Linked>, Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.read("look for a message", move |desk| {
            Ok(desk
                .sql
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM link l WHERE l.place = ?1 AND l.remote = ?2
                     ORDER BY l.gone, l.slot DESC LIMIT 1"
                ))?
                .query_row(params![place, remote], linked)
                .optional()?)
        })
        .await
    }

    /// The messages of a place whose ids are `first` or greater, but below `end`, and that we did not take back,
    /// by id. Of use where ids grow with time.
    pub async fn links_between(
        &self,
        place: &Place,
        first: &RemoteId,
        end: Option<&RemoteId>,
    ) -> Result<Vec<Linked>, Error> {
        let (place, first, end) = (place.clone(), first.clone(), end.cloned());
        self.read("list messages", move |desk| {
            Ok(desk
                .sql
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM link l
                     WHERE l.place = ?1 AND l.remote >= ?2 AND (?3 IS NULL OR l.remote < ?3)
                     AND l.gone = 0 ORDER BY l.remote"
                ))?
                .query_map(params![place, first, end], linked)?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Which of these have arrived in a place, or were made there by us, since it was last linked.
    pub async fn known(
        &self,
        place: &Place,
        facts: Vec<RemoteId>,
    ) -> Result<HashSet<RemoteId>, Error> {
        let place = place.clone();
        self.read("look for facts", move |desk| {
            let mut look = desk.sql.prepare_cached(
                "SELECT EXISTS (
                     SELECT 1 FROM journal WHERE place = ?1 AND fact = ?2 AND accepted_at >= opened
                     UNION ALL
                     SELECT 1 FROM link l JOIN journal j ON j.id = l.entry_id
                     WHERE l.place = ?1 AND l.remote = ?2 AND j.accepted_at >= opened)
                 FROM (SELECT max(opened_at) AS opened FROM portal
                       WHERE active = 1 AND (room_place = ?1 OR channel_place = ?1))",
            )?;
            let mut known = HashSet::new();
            for fact in &facts {
                if look.query_row(params![place, fact], |row| row.get(0))? {
                    known.insert(fact.clone());
                }
            }
            Ok(known)
        })
        .await
    }
}
