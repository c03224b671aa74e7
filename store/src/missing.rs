//! Entries whose keys are missing, seen from the people who do not see them: which they were told of, how long
//! each has been waited for, and how it ended.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    EntryId, Error, LaneId, Millis, Place, RemoteId, Side, Store,
    database::{Desk, Fault},
    notices, parked,
    portals::Graph,
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

/// What people are told of entries that cannot be read.
#[derive(Clone, Debug)]
pub struct Telling {
    /// The entries; those that do not wait any more or were told of before are left out.
    pub entries: Vec<EntryId>,
    /// Where they were sent.
    pub place: Place,
    /// Who sent them.
    pub sender: String,
    /// Why they cannot be read: a fixed word.
    pub reason: String,
    /// Entries that follow within this span are told of by the same notice.
    pub once_within: Duration,
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

    /// People are told of entries that cannot be read, in every place these are owed to, or, if they were told of
    /// others of the same sender a short while ago, nobody is. `letter` makes the notice, or the letter that changes
    /// the notice with this fact back to it. Answers the lanes to ring.
    pub async fn tell(
        &self,
        telling: Telling,
        letter: impl Fn(Option<&RemoteId>) -> Option<Vec<u8>> + Send + Sync + 'static,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        self.transaction("tell of a missing key", move |desk| {
            tell(desk, &telling, &letter, now)
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

    /// People are told how a group ended: `there` makes the letter that changes the notice with this fact, if any;
    /// `here` is for the place where the entries were sent. Nothing happens if the group has changed since. Answers
    /// the lanes to ring.
    pub async fn tell_end(
        &self,
        group: Resolved,
        there: impl Fn(&RemoteId) -> Option<Vec<u8>> + Send + Sync + 'static,
        here: Option<Vec<u8>>,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        self.transaction("tell of keys that came", move |desk| {
            let found = desk
                .sql
                .prepare_cached(&format!("{RESOLVED} AND m.id = ?1"))?
                .query_row([group.group], resolved_from_row)
                .optional()?;
            if found.as_ref() != Some(&group) {
                return Ok(Vec::new());
            }
            desk.sql
                .prepare_cached("UPDATE missing SET closed = 1 WHERE id = ?1")?
                .execute([group.group])?;
            let mut lanes = Vec::new();
            let (mut back, graph) = (None, Graph::load(desk.sql)?);
            for (lane, _) in graph.reach(&group.place) {
                let fact = told(group.group, lane);
                if let Some(letter) = there(&fact) {
                    lanes.extend(notices::change_notice(desk, &fact, &letter, now)?);
                }
                if lane.toward == Side::Silo {
                    back.get_or_insert(LaneId {
                        portal: lane.portal,
                        toward: Side::Matrix,
                    });
                }
            }
            if let (Some(lane), Some(letter)) = (back, &here) {
                // Once per number of failures: a group may be opened and closed again.
                let fact = RemoteId(format!("lost-{}-{}", group.group, group.failed));
                lanes.extend(notices::notice(desk, lane, &fact, letter, now)?);
            }
            Ok(lanes)
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

const RESOLVED: &str = "
    SELECT m.id, m.place, m.sender, m.reason, m.arrived, m.dropped, m.failed FROM missing m
    WHERE m.closed = 0 AND NOT EXISTS (
        SELECT 1 FROM journal j WHERE j.missing = m.id AND j.session IS NOT NULL)";

fn resolved_from_row(row: &Row<'_>) -> rusqlite::Result<Resolved> {
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

/// The notice of a group in the place that a lane leads to.
fn told(group: i64, lane: LaneId) -> RemoteId {
    RemoteId(format!(
        "unread-{group}-{}-{}",
        lane.portal,
        lane.toward.as_str()
    ))
}

fn tell(
    desk: &Desk<'_>,
    telling: &Telling,
    letter: &dyn Fn(Option<&RemoteId>) -> Option<Vec<u8>>,
    now: Millis,
) -> Result<Vec<LaneId>, Fault> {
    let mut waiting = Vec::new();
    for entry in &telling.entries {
        let untold = desk
            .sql
            .prepare_cached(
                "SELECT 1 FROM journal j WHERE id = ?1 AND session IS NOT NULL AND missing IS NULL
                 AND EXISTS (SELECT 1 FROM outbox WHERE entry_id = j.id)",
            )?
            .exists([entry])?;
        if untold {
            waiting.push(*entry);
        }
    }
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let before = desk
        .sql
        .prepare_cached(
            "SELECT id, closed, told_at FROM missing WHERE place = ?1 AND sender = ?2
             ORDER BY id DESC LIMIT 1",
        )?
        .query_row(params![telling.place, telling.sender], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?
        // A moment in the future is one before the clock was put back.
        .filter(|(_, _, at): &(i64, bool, Millis)| now.since(*at) < telling.once_within);
    let is_new = before.is_none();
    let group = if let Some((group, closed, _)) = before {
        assign(desk, group, &waiting)?;
        if !closed {
            return Ok(Vec::new());
        }
        // People were told that all is well, and it is not any more.
        desk.sql
            .prepare_cached("UPDATE missing SET closed = 0, reason = ?2 WHERE id = ?1")?
            .execute(params![group, telling.reason])?;
        group
    } else {
        desk.sql
            .prepare_cached(
                "INSERT INTO missing (place, sender, reason, told_at) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![telling.place, telling.sender, telling.reason, now])?;
        let group = desk.sql.last_insert_rowid();
        assign(desk, group, &waiting)?;
        group
    };
    let mut lanes = Vec::new();
    for lane in owing(desk, &waiting)? {
        let fact = told(group, lane);
        let owed = match letter((!is_new).then_some(&fact)) {
            Some(letter) if is_new => {
                notices::notice_about(desk, lane, &telling.place, (&fact, &letter), now)?
            }
            Some(letter) => notices::change_notice(desk, &fact, &letter, now)?,
            None => None,
        };
        lanes.extend(owed);
    }
    Ok(lanes)
}

/// The lanes that owe any of these entries.
fn owing(desk: &Desk<'_>, entries: &[EntryId]) -> Result<Vec<LaneId>, Fault> {
    let mut lanes = Vec::new();
    for entry in entries {
        for debt in settle::debts_of_entry(desk.sql, *entry)? {
            if !lanes.contains(&debt.lane) {
                lanes.push(debt.lane);
            }
        }
    }
    Ok(lanes)
}

fn assign(desk: &Desk<'_>, group: i64, entries: &[EntryId]) -> Result<(), Fault> {
    for entry in entries {
        desk.sql
            .prepare_cached("UPDATE journal SET missing = ?2 WHERE id = ?1")?
            .execute(params![entry, group])?;
    }
    Ok(())
}
