//! What became of one message: everything the tables know of it, for whoever asks.

use rusqlite::{OptionalExtension, params};

use crate::{
    Closed, DeliveryId, EntryId, Error, LaneId, Millis, ParkedState, Place, RemoteId, Store,
    closed, columns,
    database::{Desk, Fault},
    links, notices,
    paths::Net,
};

/// The story of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Its entry.
    pub entry: EntryId,
    /// Where it was written.
    pub from: Place,
    /// When we accepted it.
    pub accepted_at: Millis,
    /// Where it went, or is to go, and how it stands there.
    pub stands: Vec<(Place, Stand)>,
}

impl Story {
    /// Whether the bridge itself said it.
    #[must_use]
    pub fn is_of_bridge(&self) -> bool {
        self.from == notices::home()
    }
}

/// How one delivery stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It is there.
    Delivered {
        /// Since when, by the clock of that network.
        at: Millis,
        /// How many tries it took, if it had failed before.
        tries: Option<u32>,
    },
    /// It is still owed.
    Pending {
        /// How many stand before it.
        ahead: u64,
        /// Tries that failed.
        tries: u32,
        /// The kind of the last error.
        trouble: Option<String>,
        /// When it is tried next, if it waits for that.
        due: Option<Millis>,
        /// Whether its key is missing.
        without_key: bool,
        /// Whether nobody knows if it was delivered already.
        unsure: bool,
        /// Whether its place does not let us in.
        closed: Option<Closed>,
        /// Whether a portal that it has to pass is held up, short delays left out.
        held: bool,
    },
    /// A rule ended it.
    Skipped {
        /// Which.
        rule: String,
    },
    /// It failed.
    Failed {
        /// Why.
        reason: String,
        /// When.
        at: Millis,
        /// After how many tries.
        tries: u32,
        /// Whether it can be tried again.
        kept: bool,
    },
}

impl Store {
    /// What became of the message that is called `remote` in `place`, the original or a copy; `None` if it is
    /// not known.
    pub async fn story(&self, place: &Place, remote: &RemoteId) -> Result<Option<Story>, Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.read("read what became of a message", move |desk| {
            let linked = links::entry(desk.sql, &place, &remote)?;
            let entry: Option<EntryId> = match linked {
                Some(entry) => Some(entry),
                None => desk
                    .sql
                    .prepare_cached("SELECT id FROM journal WHERE place = ?1 AND fact = ?2")?
                    .query_row(params![place, remote], |row| row.get(0))
                    .optional()?,
            };
            entry.map(|entry| tell(desk, entry)).transpose()
        })
        .await
    }

    /// The last message of this author in a place, since we listen there.
    pub async fn last_of(&self, place: &Place, author: &str) -> Result<Option<RemoteId>, Error> {
        let (place, author) = (place.clone(), author.to_owned());
        self.read("find somebody's last message", move |desk| {
            let author = desk.seal.author_key(&place, &author);
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT j.fact FROM author a JOIN journal j ON j.id = a.entry_id
                     WHERE a.place = ?1 AND a.author = ?2",
                )?
                .query_row(params![place, author], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// What became of the message that this failed delivery was of.
    pub async fn story_of(&self, failed: DeliveryId) -> Result<Option<Story>, Error> {
        self.read("read what became of a failed message", move |desk| {
            let entry = desk
                .sql
                .prepare_cached("SELECT entry_id FROM parked WHERE id = ?1")?
                .query_row([failed], |row| row.get(0))
                .optional()?;
            entry.map(|entry| tell(desk, entry)).transpose()
        })
        .await
    }

    /// The newest entries of a place whose letters are still there, newest first: what somebody may want to be
    /// tried again who does not say which message.
    pub async fn unsettled(
        &self,
        place: &Place,
        at_most: u32,
    ) -> Result<Vec<(RemoteId, Vec<u8>)>, Error> {
        let place = place.clone();
        self.read("read the unsettled messages of a place", move |desk| {
            let found: Vec<(EntryId, RemoteId, Vec<u8>)> = desk
                .sql
                .prepare_cached(
                    "SELECT id, fact, payload FROM journal WHERE place = ?1 AND payload IS NOT NULL
                     AND session IS NULL AND NOT EXISTS (SELECT 1 FROM command WHERE entry_id = id)
                     ORDER BY id DESC LIMIT ?2",
                )?
                .query_map(params![place, at_most], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<Result<_, _>>()?;
            found
                .into_iter()
                .map(|(entry, fact, sealed)| {
                    let letter = desk
                        .seal
                        .open(crate::journal::letter_cell(entry), &sealed)?;
                    Ok((fact, letter))
                })
                .collect()
        })
        .await
    }
}

/// Keeps whose message this is, if it is a later one than the one known.
pub(crate) fn note_author(
    desk: &Desk<'_>,
    place: &Place,
    fact: &RemoteId,
    author: &str,
) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "INSERT INTO author (place, author, entry_id)
             SELECT ?1, ?3, id FROM journal WHERE place = ?1 AND fact = ?2
             ON CONFLICT (place, author) DO UPDATE SET entry_id = max(entry_id, excluded.entry_id)",
        )?
        .execute(params![place, fact, desk.seal.author_key(place, author)])?;
    Ok(())
}

fn tell(desk: &Desk<'_>, entry: EntryId) -> Result<Story, Fault> {
    let (from, accepted_at) = desk
        .sql
        .prepare_cached("SELECT place, accepted_at FROM journal WHERE id = ?1")?
        .query_row([entry], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let places: Vec<Place> = desk
        .sql
        .prepare_cached(
            "SELECT to_place AS place FROM outbox WHERE entry_id = ?1
             UNION SELECT to_place FROM parked WHERE entry_id = ?1
             UNION SELECT to_place FROM skipped WHERE entry_id = ?1
             UNION SELECT place FROM link WHERE entry_id = ?1 AND place <> ?2 ORDER BY 1",
        )?
        .query_map(params![entry, from], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut stands = Vec::new();
    for place in places {
        if let Some(stand) = stand(desk, entry, &place)? {
            stands.push((place, stand));
        }
    }
    Ok(Story {
        entry,
        from,
        accepted_at,
        stands,
    })
}

fn stand(desk: &Desk<'_>, entry: EntryId, to: &Place) -> Result<Option<Stand>, Fault> {
    if let Some(pending) = pending(desk, entry, to)? {
        return Ok(Some(pending));
    }
    let parked = desk
        .sql
        .prepare_cached(
            "SELECT state, reason, failed_at, tries, kept FROM parked
             WHERE entry_id = ?1 AND to_place = ?2",
        )?
        .query_row(params![entry, to], |row| {
            Ok((
                ParkedState::read(&row.get::<_, String>(0)?),
                Stand::Failed {
                    reason: row.get(1)?,
                    at: row.get(2)?,
                    tries: row.get(3)?,
                    kept: row.get(4)?,
                },
            ))
        })
        .optional()?;
    let tries = match parked {
        Some((ParkedState::Failed, failed)) => return Ok(Some(failed)),
        Some((_, Stand::Failed { tries, .. })) => Some(tries + 1),
        _ => None,
    };
    let rule = desk
        .sql
        .prepare_cached("SELECT rule FROM skipped WHERE entry_id = ?1 AND to_place = ?2")?
        .query_row(params![entry, to], |row| row.get(0))
        .optional()?;
    if let Some(rule) = rule {
        return Ok(Some(Stand::Skipped { rule }));
    }
    Ok(desk
        .sql
        .prepare_cached("SELECT min(sent_at) FROM link WHERE entry_id = ?1 AND place = ?2")?
        .query_row(params![entry, to], |row| row.get::<_, Option<Millis>>(0))?
        .map(|at| Stand::Delivered { at, tries }))
}

fn pending(desk: &Desk<'_>, entry: EntryId, to: &Place) -> Result<Option<Stand>, Fault> {
    let found = desk
        .sql
        .prepare_cached(
            "SELECT o.portal_id, o.toward, o.tries, o.trouble, o.due, j.session IS NOT NULL,
                    o.unsure_since IS NOT NULL, o.from_place, o.urgent,
                    (SELECT count(*) FROM outbox b WHERE b.portal_id = o.portal_id
                     AND b.toward = o.toward AND b.id < o.id)
             FROM outbox o JOIN journal j ON j.id = o.entry_id
             WHERE o.entry_id = ?1 AND o.to_place = ?2",
        )?
        .query_row(params![entry, to], |row| {
            let lane: LaneId = columns::lane(row)?;
            let due: Millis = row.get(4)?;
            Ok((
                lane,
                (row.get::<_, Place>(7)?, row.get::<_, bool>(8)?),
                Stand::Pending {
                    ahead: row.get(9)?,
                    tries: row.get(2)?,
                    trouble: row.get(3)?,
                    due: (due.0 > 0).then_some(due),
                    without_key: row.get(5)?,
                    unsure: row.get(6)?,
                    closed: None,
                    held: false,
                },
            ))
        })
        .optional()?;
    let Some((lane, (from, urgent), mut stand)) = found else {
        return Ok(None);
    };
    if let Stand::Pending { closed, held, .. } = &mut stand {
        *closed = closed::of(desk.sql, lane)?;
        let open = Net::load(desk.sql, Millis(i64::MAX))?.open(lane);
        *held = !urgent && !open.lead(&from, entry);
    }
    Ok(Some(stand))
}
