//! Reactions: who is of which mind about which message, and what shows it in another place. One account speaks for many
//! people, so what it shows is counted here.

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, DeliveryId, EntryId, Error, Millis, Place, RemoteId, Store, bundle,
    database::{Desk, Fault},
    links,
    outbox::{self, advance},
    seal::Cell,
    settle, told,
};

/// One person's reaction to a message, as far as another place knows of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Reaction {
    /// What was said of it when it was noted.
    pub letter: Vec<u8>,
    /// Whether it was taken back.
    pub gone: bool,
    /// What shows it; one reaction keeps that for all that are shown by the same.
    pub shown: Option<Copy>,
    /// Whether a line of text shows it, with or without others.
    pub line: bool,
}

impl std::fmt::Debug for Reaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reaction(..)")
    }
}

/// Somebody reacted, or no longer does.
#[derive(Clone, PartialEq, Eq)]
pub struct Reacting {
    /// The message.
    pub target: EntryId,
    /// Where it is to be shown.
    pub to: Place,
    /// Who, and with what: kept as a keyed hash.
    pub who: String,
    /// What stands for it in [`Reaction::letter`].
    pub letter: Vec<u8>,
}

impl std::fmt::Debug for Reacting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reacting(..)")
    }
}

impl Store {
    /// Notes that somebody reacted, by the delivery of this entry. Answers whether that is news; asked again for the same
    /// entry, it answers the same.
    pub async fn react(&self, entry: EntryId, reacting: Reacting) -> Result<bool, Error> {
        self.transaction("note a reaction", move |desk| react(desk, entry, &reacting))
            .await
    }

    /// The reaction that the delivery of this entry noted does not go now: nothing tells of it until it does.
    pub async fn react_later(&self, entry: EntryId, to: &Place) -> Result<(), Error> {
        let to = to.clone();
        self.transaction("forget a reaction for now", move |desk| {
            forget_unshown(desk, entry, &to)
        })
        .await
    }

    /// Notes that somebody's reaction is taken back, by the delivery of this entry. Answers whether there was one.
    pub async fn unreact(&self, entry: EntryId, reacting: Reacting) -> Result<bool, Error> {
        self.transaction("note a reaction's end", move |desk| {
            let who = desk.seal.reactor_key(&reacting.who);
            let rows = desk
                .sql
                .prepare_cached(
                    "UPDATE reaction SET gone = 1, touched = ?4
                     WHERE target_id = ?1 AND to_place = ?2 AND who = ?3",
                )?
                .execute(params![reacting.target, reacting.to, who, entry])?;
            Ok(rows > 0)
        })
        .await
    }

    /// The same of the reaction that is the entry `reaction` itself. Answers the message and the letter.
    pub async fn unreact_entry(
        &self,
        entry: EntryId,
        reaction: EntryId,
        to: &Place,
    ) -> Result<Option<(EntryId, Vec<u8>)>, Error> {
        let to = to.clone();
        self.transaction("note a reaction's end", move |desk| {
            let found: Option<(i64, EntryId, Vec<u8>)> = desk
                .sql
                .prepare_cached(
                    "UPDATE reaction SET gone = 1, touched = ?3 WHERE entry_id = ?1 AND to_place = ?2
                     RETURNING id, target_id, letter",
                )?
                .query_row(params![reaction, to, entry], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()?;
            found
                .map(|(row, target, letter)| Ok((target, desk.seal.open(cell(row), &letter)?)))
                .transpose()
        })
        .await
    }

    /// What is noted of a message in a place, oldest first.
    pub async fn reactions(&self, target: EntryId, to: &Place) -> Result<Vec<Reaction>, Error> {
        let to = to.clone();
        self.read("read reactions", move |desk| {
            let mut found = desk
                .sql
                .prepare_cached(
                    "SELECT id, letter, gone, shown, thread, sent_at, line, shown_letter FROM reaction
                     WHERE target_id = ?1 AND to_place = ?2 ORDER BY id",
                )?
                .query_map(params![target, to], |row| {
                    let shown: Option<RemoteId> = row.get(3)?;
                    let sealed: Option<Vec<u8>> = row.get(7)?;
                    let (thread, sent_at) = (row.get(4)?, row.get::<_, Option<Millis>>(5)?);
                    let reaction = Reaction {
                        letter: row.get(1)?,
                        gone: row.get(2)?,
                        shown: shown.map(|remote| Copy {
                            remote,
                            thread,
                            sent_at: sent_at.unwrap_or_default(), file: None }),
                        line: row.get(6)?,
                    };
                    Ok((row.get(0)?, reaction, sealed))
                })?
                .collect::<Result<Vec<(i64, Reaction, Option<Vec<u8>>)>, _>>()?;
            for (row, reaction, sealed) in &mut found {
                reaction.letter = desk.seal.open(cell(*row), &reaction.letter)?;
                if let (Some(shown), Some(sealed)) = (&mut reaction.shown, sealed) {
                    shown.remote = open_shown(desk, *row, sealed)?;
                }
            }
            Ok(found
                .into_iter()
                .map(|(_, reaction, _)| reaction)
                .collect())
        })
        .await
    }

    /// The letters of the reactions that people of this place have to one of its messages, as far as they are noted.
    pub async fn reactions_from(
        &self,
        place: &Place,
        message: &RemoteId,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let (place, message) = (place.clone(), message.clone());
        self.read("read reactions", move |desk| {
            let Some(target) = links::entry(desk.sql, &place, &message)? else {
                return Ok(Vec::new());
            };
            let found = desk
                .sql
                .prepare_cached(
                    "SELECT id, letter FROM reaction
                     WHERE target_id = ?1 AND to_place <> ?2 AND gone = 0 ORDER BY id",
                )?
                .query_map(params![target, place], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<Vec<(i64, Vec<u8>)>, _>>()?;
            found
                .into_iter()
                .map(|(row, letter)| desk.seal.open(cell(row), &letter))
                .collect()
        })
        .await
    }

    /// The present step is done and `made` what shows reactions now: one of our own like those, or a `line` of text, which
    /// takes the place of an older one. Otherwise as [`Store::step_done`].
    pub async fn step_shown(
        &self,
        delivery: DeliveryId,
        made: &Copy,
        line: bool,
        last: bool,
    ) -> Result<(), Error> {
        let made = made.clone();
        self.transaction("settle a step", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                outbox::note(0, delivery);
                return Ok(());
            };
            let target: Option<EntryId> = desk
                .sql
                .prepare_cached(
                    "SELECT target_id FROM reaction WHERE touched = ?1 AND to_place = ?2",
                )?
                .query_row(params![debt.entry, debt.to], |row| row.get(0))
                .optional()?;
            if line {
                bundle::link_made(desk, &debt, &made)?;
                desk.sql
                    .prepare_cached(
                        "UPDATE reaction SET shown = NULL, shown_letter = NULL
                         WHERE target_id = ?1 AND to_place = ?2 AND line = 1",
                    )?
                    .execute(params![target, debt.to])?;
            }
            let rows = desk
                .sql
                .prepare_cached(
                    "UPDATE reaction SET shown = ?3, thread = ?4, sent_at = ?5, line = ?6
                     WHERE touched = ?1 AND to_place = ?2 RETURNING id",
                )?
                .query_map(
                    params![
                        debt.entry,
                        debt.to,
                        desk.seal.shown_key(&debt.to, &made.remote),
                        made.thread,
                        made.sent_at,
                        line
                    ],
                    |row| row.get(0),
                )?
                .collect::<Result<Vec<i64>, _>>()?;
            for row in rows {
                let sealed = desk
                    .seal
                    .seal(shown_cell(row), made.remote.as_str().as_bytes())?;
                desk.sql
                    .prepare_cached("UPDATE reaction SET shown_letter = ?2 WHERE id = ?1")?
                    .execute(params![row, sealed])?;
            }
            if let Some(target) = target {
                tidy(desk, target, &debt.to)?;
            }
            advance(desk, &debt, last)
        })
        .await
    }

    /// The present step is done, and a message is gone: what showed reactions, or what they were about. Otherwise as [`Store::step_done`].
    pub async fn step_hidden(
        &self,
        delivery: DeliveryId,
        gone: &RemoteId,
        last: bool,
    ) -> Result<(), Error> {
        let gone = gone.clone();
        self.transaction("settle a step", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                outbox::note(0, delivery);
                return Ok(());
            };
            links::unlink(desk.sql, &debt.to, &gone)?;
            hide(desk, &debt.to, &gone)?;
            forget(desk, &debt.to, &gone)?;
            advance(desk, &debt, last)
        })
        .await
    }
}

/// The reaction that is this entry is not shown and will not be, or not yet.
pub(crate) fn forget_unshown(desk: &Desk<'_>, entry: EntryId, to: &Place) -> Result<(), Fault> {
    let rows = desk
        .sql
        .prepare_cached(
            "DELETE FROM reaction
             WHERE touched = ?1 AND to_place = ?2 AND gone = 0 AND shown IS NULL",
        )?
        .execute(params![entry, to])?;
    if rows > 0 {
        desk.erased();
    }
    Ok(())
}

/// Nothing of ours shows any more what this showed.
fn hide(desk: &Desk<'_>, place: &Place, remote: &RemoteId) -> Result<(), Fault> {
    let targets = desk
        .sql
        .prepare_cached(
            "UPDATE reaction SET shown = NULL, shown_letter = NULL, line = 0
             WHERE to_place = ?1 AND shown IN (?2, ?3) RETURNING target_id",
        )?
        .query_map(
            params![place, remote, desk.seal.shown_key(place, remote)],
            |row| row.get(0),
        )?
        .collect::<Result<Vec<EntryId>, _>>()?;
    for target in targets {
        told::end(desk.sql, target, place)?;
        tidy(desk, target, place)?;
    }
    Ok(())
}

/// Nobody is of any mind about what is gone.
pub(crate) fn forget(desk: &Desk<'_>, place: &Place, message: &RemoteId) -> Result<(), Fault> {
    let rows = desk
        .sql
        .prepare_cached(
            "DELETE FROM reaction WHERE to_place = ?1 AND target_id IN
             (SELECT entry_id FROM link WHERE place = ?1 AND remote = ?2)",
        )?
        .execute(params![place, message])?;
    if rows > 0 {
        desk.erased();
    }
    Ok(())
}

/// What was taken back and shows nothing is needed no more.
pub(crate) fn tidy(desk: &Desk<'_>, target: EntryId, place: &Place) -> Result<(), Fault> {
    let rows = desk
        .sql
        .prepare_cached(
            "DELETE FROM reaction WHERE target_id = ?1 AND to_place = ?2 AND gone = 1 AND shown IS NULL",
        )?
        .execute(params![target, place])?;
    if rows > 0 {
        desk.erased();
    }
    Ok(())
}

fn react(desk: &Desk<'_>, entry: EntryId, reacting: &Reacting) -> Result<bool, Fault> {
    let who = desk.seal.reactor_key(&reacting.who);
    let known: Option<(i64, EntryId, bool)> = desk
        .sql
        .prepare_cached(
            "SELECT id, entry_id, gone FROM reaction
             WHERE target_id = ?1 AND to_place = ?2 AND who = ?3",
        )?
        .query_row(params![reacting.target, reacting.to, who], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    match known {
        Some((_, before, false)) => Ok(before == entry),
        Some((row, _, true)) => {
            desk.sql
                .prepare_cached(
                    "UPDATE reaction SET gone = 0, entry_id = ?2, touched = ?2 WHERE id = ?1",
                )?
                .execute(params![row, entry])?;
            Ok(true)
        }
        None => {
            desk.sql
                .prepare_cached(
                    "INSERT INTO reaction (target_id, to_place, who, entry_id, touched, letter)
                     VALUES (?1, ?2, ?3, ?4, ?4, x'')",
                )?
                .execute(params![reacting.target, reacting.to, who, entry])?;
            let row = desk.sql.last_insert_rowid();
            let letter = desk.seal.seal(cell(row), &reacting.letter)?;
            desk.sql
                .prepare_cached("UPDATE reaction SET letter = ?2 WHERE id = ?1")?
                .execute(params![row, letter])?;
            Ok(true)
        }
    }
}

fn cell(row: i64) -> Cell {
    Cell {
        table: "reaction",
        column: "letter",
        row,
    }
}

fn shown_cell(row: i64) -> Cell {
    Cell {
        table: "reaction",
        column: "shown_letter",
        row,
    }
}

fn open_shown(desk: &Desk<'_>, row: i64, sealed: &[u8]) -> Result<RemoteId, Fault> {
    let id = desk.seal.open(shown_cell(row), sealed)?;
    String::from_utf8(id)
        .map(RemoteId)
        .map_err(|_| Fault::Corrupt {
            table: "reaction",
            row,
        })
}
