//! Entries whose keys are missing, seen from the people who do not see them: which they were told of, how long
//! each has been waited for, and how it ended.

use std::time::Duration;

use rusqlite::{Row, params};

use crate::{
    EntryId, Error, Millis, Place, Store,
    database::{Desk, Fault},
    parked,
    settle::{self, End},
};

/// An entry that waits for its key, without its letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The entry.
    pub entry: EntryId,
    /// The session whose key is missing.
    pub session: String,
    /// For how long its key has been waited for, by the clock or by the time we ran: the longer.
    pub age: Duration,
    /// For how long we ran while its key was waited for.
    pub waited: Duration,
    /// Whether people were told of it.
    pub told: bool,
}

/// Entries of one sender of which people were told together. None of them waits any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its number.
    pub group: i64,
    /// Where they were sent.
    pub place: Place,
    /// Who sent them.
    pub sender: String,
    /// The word for why they could not be read.
    pub reason: String,
    /// Entries whose keys came.
    pub arrived: u64,
    /// Entries that turned out to be none that cross.
    pub dropped: u64,
    /// Entries that were given up.
    pub failed: u64,
}

impl Store {
    /// Entries that wait for a key. First adds `ran`, for how long we ran since the last call, to the time each
    /// has been waited for. No entry is waited for longer than it is there, and what is held for somebody in charge
    /// grows no older.
    pub async fn overdue(&self, ran: Duration, now: Millis) -> Result<Vec<Overdue>, Error> {
        self.transaction("age the entries that wait for a key", move |desk| {
            desk.sql
                .prepare_cached(
                    "UPDATE journal SET waited = waited + max(0, min(?1, ?2 - accepted_at))
                     WHERE session IS NOT NULL
                     AND NOT EXISTS (SELECT 1 FROM held WHERE entry_id = journal.id)",
                )?
                .execute(params![Millis::default().plus(ran), now])?;
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT id, session, accepted_at, waited, missing FROM journal
                     INDEXED BY journal_waiting WHERE session IS NOT NULL ORDER BY id",
                )?
                .query_map([], |row| overdue_from_row(row, now))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The key of an entry is not expected any more: what is owed of it ends as failed. Answers whether it
    /// still waited.
    pub async fn give_up(&self, entry: EntryId, now: Millis) -> Result<bool, Error> {
        self.transaction("give up an entry", move |desk| {
            let waits = desk
                .sql
                .prepare_cached("SELECT 1 FROM journal WHERE id = ?1 AND session IS NOT NULL")?
                .exists([entry])?;
            if !waits {
                return Ok(false);
            }
            end(desk, entry, "its key never came", now)?;
            Ok(true)
        })
        .await
    }

    /// Groups of which nothing waits any more and people were not told so yet.
    pub async fn resolved(&self) -> Result<Vec<Resolved>, Error> {
        self.read("look for keys that came", |desk| {
            Ok(desk
                .sql
                .prepare_cached(&format!("{RESOLVED} ORDER BY m.id"))?
                .query_map([], resolved_from_row)?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Whose notices say still that something of theirs cannot be read, although nothing of it waits any more: each
    /// group with its device.
    pub async fn standing(&self) -> Result<Vec<(Resolved, Option<String>)>, Error> {
        self.read("look for notices that stand", |desk| {
            Ok(desk
                .sql
                .prepare_cached(&format!(
                    "SELECT id, place, sender, reason, arrived, dropped, failed, device
                     FROM missing WHERE {STANDS} ORDER BY id"
                ))?
                .query_map([], |row| Ok((resolved_from_row(row)?, row.get(7)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }
}
/// What is owed of an entry that waits ends as failed, for this reason.
pub(crate) fn end(desk: &Desk<'_>, entry: EntryId, why: &str, now: Millis) -> Result<(), Fault> {
    count(desk, entry, Ending::Failed)?;
    for debt in settle::debts_of_entry(desk.sql, entry)? {
        parked::note(desk, &debt, why, now)?;
        settle::settle(desk, &debt, End::Failed)?;
    }
    settle::erase_unneeded(desk, entry)
}

/// How the wait of an entry ends.
#[derive(Clone, Copy)]
pub(crate) enum Ending {
    Arrived,
    Dropped,
    Failed,
}

/// Counts the end of a wait, if people were told of it.
pub(crate) fn count(desk: &Desk<'_>, entry: EntryId, ending: Ending) -> Result<(), Fault> {
    let update = match ending {
        Ending::Arrived => "UPDATE missing SET arrived = arrived + 1",
        Ending::Dropped => "UPDATE missing SET dropped = dropped + 1",
        Ending::Failed => "UPDATE missing SET failed = failed + 1",
    };
    desk.sql
        .prepare_cached(&format!(
            "{update} WHERE id = (SELECT missing FROM journal WHERE id = ?1)"
        ))?
        .execute([entry])?;
    Ok(())
}

/// Whether nothing of a group waits and its notices were not changed.
pub(crate) const STANDS: &str = "
    (stands = 1 OR closed = 0 AND NOT EXISTS (
        SELECT 1 FROM journal j WHERE j.missing = missing.id AND j.session IS NOT NULL))";

pub(crate) const RESOLVED: &str = "
    SELECT m.id, m.place, m.sender, m.reason, m.arrived, m.dropped, m.failed FROM missing m
    WHERE m.closed = 0 AND NOT EXISTS (
        SELECT 1 FROM journal j WHERE j.missing = m.id AND j.session IS NOT NULL)";

pub(crate) fn resolved_from_row(row: &Row<'_>) -> rusqlite::Result<Resolved> {
    Ok(Resolved {
        group: row.get(0)?,
        place: row.get(1)?,
        sender: row.get(2)?,
        reason: row.get(3)?,
        arrived: row.get(4)?,
        dropped: row.get(5)?,
        failed: row.get(6)?,
    })
}

fn overdue_from_row(row: &Row<'_>, now: Millis) -> rusqlite::Result<Overdue> {
    let accepted_at: Millis = row.get(2)?;
    let waited = row.get::<_, Millis>(3)?.since(Millis::default());
    Ok(Overdue {
        entry: row.get(0)?,
        session: row.get(1)?,
        age: now.since(accepted_at).max(waited),
        waited,
        told: row.get::<_, Option<i64>>(4)?.is_some(),
    })
}
