//! Reactions: who reacted to which message, and what shows it in another place. One account shows the reactions of many people,
//! so they are counted here.

use rusqlite::{OptionalExtension, params};

use crate::{
    AccountId, Copy, DeliveryId, EntryId, Error, Millis, Place, RemoteId, Store, bundles, counters,
    database::{Tx, TxError},
    links,
    outbox::{self, advance_plan},
    reaction_summaries,
    seal::Cell,
};

/// One person's reaction to a message, as known for another place.
#[derive(Clone, PartialEq, Eq)]
pub struct Reaction {
    /// What the adapter stored of it when it was noted.
    pub payload: Vec<u8>,
    /// Whether the person removed it.
    pub removed: bool,
    /// What shows it; one row has it for all reactions that are shown by the same.
    pub shown: Option<Copy>,
    /// Whether a summary line shows it, with or without others.
    pub in_summary: bool,
    /// The personal account that reacts for this person; `None`: the relay does, for all.
    pub owner: Option<AccountId>,
}

impl std::fmt::Debug for Reaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reaction(..)")
    }
}

/// Somebody added or removed a reaction.
#[derive(Clone, PartialEq, Eq)]
pub struct ReactionChange {
    /// The message.
    pub target: EntryId,
    /// Where it is to be shown.
    pub to: Place,
    /// Who, and with which emoji: kept as a keyed hash.
    pub reactor: String,
    /// The payload for [`Reaction::payload`].
    pub payload: Vec<u8>,
    /// The personal account that reacts for this person, if one does. Not used by a removal.
    pub owner: Option<AccountId>,
}

impl std::fmt::Debug for ReactionChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReactionChange(..)")
    }
}

impl Store {
    /// Adds a reaction, for the delivery of this entry. Returns whether it is new; the answer is the same when it is called again
    /// for the same entry.
    pub async fn add_reaction(
        &self,
        entry: EntryId,
        change: ReactionChange,
    ) -> Result<bool, Error> {
        self.transaction("add a reaction", move |tx| add_reaction(tx, entry, &change))
            .await
    }

    /// The reaction that the delivery of this entry added is not sent now: it does not count until it is.
    pub async fn forget_unsent_reaction(&self, entry: EntryId, to: &Place) -> Result<(), Error> {
        let to = to.clone();
        self.transaction("forget an unsent reaction", move |tx| {
            forget_unshown(tx, entry, &to)
        })
        .await
    }

    /// Marks somebody's reaction as removed, for the delivery of this entry. Returns whether there was one.
    pub async fn remove_reaction(
        &self,
        entry: EntryId,
        change: ReactionChange,
    ) -> Result<bool, Error> {
        self.transaction("remove a reaction", move |tx| {
            let reactor = tx.seal.reactor_hash(&change.reactor);
            let rows = tx
                .sql
                .prepare_cached(
                    "UPDATE reaction SET removed = 1, changed_by = ?4
                     WHERE target_id = ?1 AND to_place = ?2 AND reactor_hash = ?3",
                )?
                .execute(params![change.target, change.to, reactor, entry])?;
            Ok(rows > 0)
        })
        .await
    }

    /// The same for the reaction whose entry is `reaction`. Returns the message and the payload.
    pub async fn remove_reaction_entry(
        &self,
        entry: EntryId,
        reaction: EntryId,
        to: &Place,
    ) -> Result<Option<(EntryId, Vec<u8>)>, Error> {
        let to = to.clone();
        self.transaction("remove a reaction", move |tx| {
            let found: Option<(i64, EntryId, Vec<u8>)> = tx
                .sql
                .prepare_cached(
                    "UPDATE reaction SET removed = 1, changed_by = ?3 WHERE entry_id = ?1 AND to_place = ?2
                     RETURNING id, target_id, payload",
                )?
                .query_row(params![reaction, to, entry], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()?;
            found
                .map(|(row, target, payload)| Ok((target, tx.seal.open(cell(row), &payload)?)))
                .transpose()
        })
        .await
    }

    /// The reactions to a message for a place, oldest first.
    pub async fn reactions(&self, target: EntryId, to: &Place) -> Result<Vec<Reaction>, Error> {
        let to = to.clone();
        self.read("read reactions", move |tx| {
            let mut found = tx
                .sql
                .prepare_cached(
                    "SELECT id, payload, removed, shown_hash, thread, sent_at, in_summary, shown_payload, owner_id
                     FROM reaction WHERE target_id = ?1 AND to_place = ?2 ORDER BY id",
                )?
                .query_map(params![target, to], |row| {
                    let shown: Option<RemoteId> = row.get(3)?;
                    let sealed: Option<Vec<u8>> = row.get(7)?;
                    let (thread, sent_at) = (row.get(4)?, row.get::<_, Option<Millis>>(5)?);
                    let reaction = Reaction {
                        payload: row.get(1)?,
                        removed: row.get(2)?,
                        shown: shown.map(|remote| Copy {
                            remote,
                            thread,
                            sent_at: sent_at.unwrap_or_default(), file: None }),
                        in_summary: row.get(6)?,
                        owner: row.get(8)?,
                    };
                    Ok((row.get(0)?, reaction, sealed))
                })?
                .collect::<Result<Vec<(i64, Reaction, Option<Vec<u8>>)>, _>>()?;
            for (row, reaction, sealed) in &mut found {
                reaction.payload = tx.seal.open(cell(*row), &reaction.payload)?;
                if let (Some(shown), Some(sealed)) = (&mut reaction.shown, sealed) {
                    shown.remote = open_shown(tx, *row, sealed)?;
                }
            }
            Ok(found
                .into_iter()
                .map(|(_, reaction, _)| reaction)
                .collect())
        })
        .await
    }

    /// The payloads of the reactions that people of this place have to one of its messages, as far as they are known.
    pub async fn reactions_from(
        &self,
        place: &Place,
        message: &RemoteId,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let (place, message) = (place.clone(), message.clone());
        self.read("read reactions", move |tx| {
            let Some(target) = links::entry_of(tx.sql, &place, &message)? else {
                return Ok(Vec::new());
            };
            let found = tx
                .sql
                .prepare_cached(
                    "SELECT id, payload FROM reaction
                     WHERE target_id = ?1 AND to_place <> ?2 AND removed = 0 ORDER BY id",
                )?
                .query_map(params![target, place], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<Vec<(i64, Vec<u8>)>, _>>()?;
            found
                .into_iter()
                .map(|(row, payload)| tx.seal.open(cell(row), &payload))
                .collect()
        })
        .await
    }

    /// The present step is done and `created` shows reactions now: a reaction of the bridge's account, or a summary line, which
    /// replaces an older one. Otherwise as [`Store::complete_step`].
    pub async fn complete_reaction_step(
        &self,
        delivery: DeliveryId,
        created: &Copy,
        in_summary: bool,
        last: bool,
    ) -> Result<(), Error> {
        let created = created.clone();
        self.transaction("settle a step", move |tx| {
            let Some(pending) = counters::pending(tx.sql, delivery)? else {
                outbox::log_if_settled(0, delivery);
                return Ok(());
            };
            let target: Option<EntryId> = tx
                .sql
                .prepare_cached(
                    "SELECT target_id FROM reaction WHERE changed_by = ?1 AND to_place = ?2",
                )?
                .query_row(params![pending.entry, pending.to], |row| row.get(0))
                .optional()?;
            if in_summary {
                bundles::link_created(tx, &pending, &created)?;
                tx.sql
                    .prepare_cached(
                        "UPDATE reaction SET shown_hash = NULL, shown_payload = NULL
                         WHERE target_id = ?1 AND to_place = ?2 AND in_summary = 1",
                    )?
                    .execute(params![target, pending.to])?;
            }
            let rows = tx
                .sql
                .prepare_cached(
                    "UPDATE reaction SET shown_hash = ?3, thread = ?4, sent_at = ?5, in_summary = ?6
                     WHERE changed_by = ?1 AND to_place = ?2 RETURNING id",
                )?
                .query_map(
                    params![
                        pending.entry,
                        pending.to,
                        tx.seal.reaction_event_hash(&pending.to, &created.remote),
                        created.thread,
                        created.sent_at,
                        in_summary
                    ],
                    |row| row.get(0),
                )?
                .collect::<Result<Vec<i64>, _>>()?;
            for row in rows {
                let sealed = tx
                    .seal
                    .seal(shown_cell(row), created.remote.as_str().as_bytes())?;
                tx.sql
                    .prepare_cached("UPDATE reaction SET shown_payload = ?2 WHERE id = ?1")?
                    .execute(params![row, sealed])?;
            }
            if let Some(target) = target {
                delete_removed_reactions(tx, target, &pending.to)?;
            }
            advance_plan(tx, &pending, last)
        })
        .await
    }

    /// The present step is done, and a message was deleted: one that showed reactions, or one that they were about. Otherwise as
    /// [`Store::complete_step`].
    pub async fn complete_reaction_removal(
        &self,
        delivery: DeliveryId,
        removed: &RemoteId,
        last: bool,
    ) -> Result<(), Error> {
        let removed = removed.clone();
        self.transaction("settle a step", move |tx| {
            let Some(pending) = counters::pending(tx.sql, delivery)? else {
                outbox::log_if_settled(0, delivery);
                return Ok(());
            };
            links::mark_deleted(tx.sql, &pending.to, &removed)?;
            forget_shown(tx, &pending.to, &removed)?;
            forget(tx, &pending.to, &removed)?;
            advance_plan(tx, &pending, last)
        })
        .await
    }
}

/// The reaction of this entry is not shown and will not be, or not yet.
pub(crate) fn forget_unshown(tx: &Tx<'_>, entry: EntryId, to: &Place) -> Result<(), TxError> {
    let rows = tx
        .sql
        .prepare_cached(
            "DELETE FROM reaction
             WHERE changed_by = ?1 AND to_place = ?2 AND removed = 0 AND shown_hash IS NULL",
        )?
        .execute(params![entry, to])?;
    if rows > 0 {
        tx.mark_erased();
    }
    Ok(())
}

/// The bridge shows no reaction by this message any more.
fn forget_shown(tx: &Tx<'_>, place: &Place, remote: &RemoteId) -> Result<(), TxError> {
    let targets = tx
        .sql
        .prepare_cached(
            "UPDATE reaction SET shown_hash = NULL, shown_payload = NULL, in_summary = 0
             WHERE to_place = ?1 AND shown_hash IN (?2, ?3) RETURNING target_id",
        )?
        .query_map(
            params![place, remote, tx.seal.reaction_event_hash(place, remote)],
            |row| row.get(0),
        )?
        .collect::<Result<Vec<EntryId>, _>>()?;
    for target in targets {
        reaction_summaries::end_summary(tx.sql, target, place)?;
        delete_removed_reactions(tx, target, place)?;
    }
    Ok(())
}

/// Deletes the reactions to a deleted message.
pub(crate) fn forget(tx: &Tx<'_>, place: &Place, message: &RemoteId) -> Result<(), TxError> {
    let rows = tx
        .sql
        .prepare_cached(
            "DELETE FROM reaction WHERE to_place = ?1 AND target_id IN
             (SELECT entry_id FROM link WHERE place = ?1 AND remote_id = ?2)",
        )?
        .execute(params![place, message])?;
    if rows > 0 {
        tx.mark_erased();
    }
    Ok(())
}

/// Deletes the reactions that were removed and are not shown.
pub(crate) fn delete_removed_reactions(
    tx: &Tx<'_>,
    target: EntryId,
    place: &Place,
) -> Result<(), TxError> {
    let rows = tx
        .sql
        .prepare_cached(
            "DELETE FROM reaction WHERE target_id = ?1 AND to_place = ?2 AND removed = 1 AND shown_hash IS NULL",
        )?
        .execute(params![target, place])?;
    if rows > 0 {
        tx.mark_erased();
    }
    Ok(())
}

fn add_reaction(tx: &Tx<'_>, entry: EntryId, change: &ReactionChange) -> Result<bool, TxError> {
    let reactor = tx.seal.reactor_hash(&change.reactor);
    let known: Option<(i64, EntryId, bool)> = tx
        .sql
        .prepare_cached(
            "SELECT id, entry_id, removed FROM reaction
             WHERE target_id = ?1 AND to_place = ?2 AND reactor_hash = ?3",
        )?
        .query_row(params![change.target, change.to, reactor], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    match known {
        Some((_, before, false)) => Ok(before == entry),
        Some((row, _, true)) => {
            tx.sql
                .prepare_cached(
                    "UPDATE reaction SET removed = 0, entry_id = ?2, changed_by = ?2,
                         owner_id = iif(shown_hash IS NULL, ?3, owner_id) WHERE id = ?1",
                )?
                .execute(params![row, entry, change.owner])?;
            Ok(true)
        }
        None => {
            tx.sql
                .prepare_cached(
                    "INSERT INTO reaction (target_id, to_place, reactor_hash, entry_id, changed_by, payload, owner_id)
                     VALUES (?1, ?2, ?3, ?4, ?4, x'', ?5)",
                )?
                .execute(params![change.target, change.to, reactor, entry, change.owner])?;
            let row = tx.sql.last_insert_rowid();
            let payload = tx.seal.seal(cell(row), &change.payload)?;
            tx.sql
                .prepare_cached("UPDATE reaction SET payload = ?2 WHERE id = ?1")?
                .execute(params![row, payload])?;
            Ok(true)
        }
    }
}

fn cell(row: i64) -> Cell {
    Cell {
        table: "reaction",
        column: "payload",
        row,
    }
}

fn shown_cell(row: i64) -> Cell {
    Cell {
        table: "reaction",
        column: "shown_payload",
        row,
    }
}

fn open_shown(tx: &Tx<'_>, row: i64, sealed: &[u8]) -> Result<RemoteId, TxError> {
    let id = tx.seal.open(shown_cell(row), sealed)?;
    String::from_utf8(id)
        .map(RemoteId)
        .map_err(|_| TxError::CorruptRow {
            table: "reaction",
            row,
        })
}
