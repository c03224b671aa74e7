//! What people are told of entries that cannot be read: where these do not appear, and where they were sent.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use crate::{
    EntryId, Error, LaneId, Millis, Place, RemoteId, Resolved, Store,
    database::{Desk, Fault},
    missing::{RESOLVED, STANDS, resolved_from_row},
    notices,
    portals::Graph,
    settle,
};

/// What people are told of entries that cannot be read.
#[derive(Clone, Debug)]
pub struct Telling {
    /// The entries; those that do not wait any more, are owed to nobody or were told of before are left out.
    pub entries: Vec<EntryId>,
    /// Where they were sent.
    pub place: Place,
    /// Who sent them.
    pub sender: String,
    /// Why they cannot be read: a fixed word.
    pub reason: String,
    /// Entries that follow within this span are told of by the same notice.
    pub once_within: Duration,
    /// Whether whoever sent them is told, too, because they can end it. Then other reasons have notices of their own.
    pub here: bool,
    /// The device that they come from, where it is what is wrong.
    pub device: Option<String>,
}

/// What a letter about entries that cannot be read is for.
#[derive(Clone, Copy, Debug)]
pub enum Tells<'a> {
    /// A notice where they do not appear.
    There,
    /// What takes the place of that notice, by its fact.
    Changed(&'a RemoteId),
    /// A notice where they were sent, about the first of them.
    Here(&'a RemoteId),
    /// What takes the place of that one.
    ChangedHere(&'a RemoteId),
    /// A sign on the first of them.
    Mark(&'a RemoteId),
    /// How it ended, where they were sent and no notice stands.
    Ended,
}

/// Makes a letter.
type Write<'a> = &'a dyn Fn(Tells<'_>) -> Option<Vec<u8>>;

/// So many people of one place are told in a day where they sent what cannot be read: whoever makes up senders must not
/// use up what the account may send.
const MOST_HERE: i64 = 6;
/// A day, in milliseconds.
const DAY: i64 = 86_400_000;

impl Store {
    /// People are told of entries that cannot be read, in every place these are owed to, or, if they were told of
    /// others of the same sender a short while ago, nobody is. `letter` makes what is said. Answers the lanes to ring.
    pub async fn tell(
        &self,
        telling: Telling,
        letter: impl Fn(Tells<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        self.transaction("tell of a missing key", move |desk| {
            tell(desk, &telling, &letter, now)
        })
        .await
    }

    /// People are told how a group ended. `letter` makes what takes the place of the notices, or what is said anew where
    /// the entries were sent and nothing stands there; the notices stay as they are where it makes nothing. Nothing happens
    /// if the group has changed since. Answers the lanes to ring.
    pub async fn tell_end(
        &self,
        group: Resolved,
        letter: impl Fn(Tells<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
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
            let graph = Graph::load(desk.sql)?;
            let lanes = change(
                desk,
                group.group,
                reached(&graph, &group.place),
                &letter,
                now,
            )?;
            let stands = lanes.is_empty();
            desk.sql
                .prepare_cached("UPDATE missing SET closed = 1, stands = ?2 WHERE id = ?1")?
                .execute(params![group.group, stands])?;
            let Some(back) = graph.room_lane(&group.place) else {
                return Ok(lanes);
            };
            // Once per number of failures: a group may be opened and closed again.
            let fact = RemoteId(format!("lost-{}-{}", group.group, group.failed));
            let told = is_told_here(desk, group.group)?;
            let said = match letter(Tells::Ended).filter(|_| !told) {
                Some(letter) => notices::notice(desk, back, &fact, &letter, now)?,
                None => None,
            };
            Ok(lanes.into_iter().chain(said).collect())
        })
        .await
    }

    /// What the notices of this group say is not so any more. `letter` makes what takes their place. Answers the lanes to
    /// ring.
    pub async fn no_longer(
        &self,
        group: Resolved,
        letter: impl Fn(Tells<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        self.transaction("tell of what is no longer so", move |desk| {
            let stood = desk
                .sql
                .prepare_cached(&format!(
                    "UPDATE missing SET stands = 0, closed = 1 WHERE id = ?1 AND {STANDS}"
                ))?
                .execute([group.group])?;
            if stood == 0 {
                return Ok(Vec::new());
            }
            let graph = Graph::load(desk.sql)?;
            change(
                desk,
                group.group,
                reached(&graph, &group.place),
                &letter,
                now,
            )
        })
        .await
    }
}

/// The lanes to all other places that portals lead to from here.
fn reached(graph: &Graph, place: &Place) -> Vec<LaneId> {
    let reached = graph.reach(place).into_iter();
    reached.map(|(lane, _)| lane).collect()
}

/// What takes the place of a group's notices at the ends of these lanes, and of the one where the entries were sent.
fn change(
    desk: &Desk<'_>,
    group: i64,
    ends: Vec<LaneId>,
    letter: Write<'_>,
    now: Millis,
) -> Result<Vec<LaneId>, Fault> {
    let mut lanes = Vec::new();
    for lane in ends {
        let fact = told(group, lane);
        if let Some(letter) = letter(Tells::Changed(&fact)) {
            lanes.extend(notices::change_notice(desk, &fact, &letter, now)?);
        }
    }
    let fact = told_here(group);
    if let Some(letter) = letter(Tells::ChangedHere(&fact)) {
        lanes.extend(notices::change_notice(desk, &fact, &letter, now)?);
    }
    Ok(lanes)
}

fn is_told_here(desk: &Desk<'_>, group: i64) -> Result<bool, Fault> {
    Ok(desk
        .sql
        .prepare_cached("SELECT 1 FROM missing WHERE id = ?1 AND here = 1")?
        .exists([group])?)
}

/// The notice of a group where its entries were sent.
fn told_here(group: i64) -> RemoteId {
    RemoteId(format!("unread-{group}-here"))
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
    letter: Write<'_>,
    now: Millis,
) -> Result<Vec<LaneId>, Fault> {
    let waiting = untold(desk, &telling.entries)?;
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let before = desk
        .sql
        .prepare_cached(
            "SELECT id, closed, told_at, stands AND reason = ?3 FROM missing
             WHERE place = ?1 AND sender = ?2 AND can_end = ?4 AND (reason = ?3 OR can_end = 0)
             ORDER BY id DESC LIMIT 1",
        )?
        .query_row(
            params![telling.place, telling.sender, telling.reason, telling.here],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .optional()?
        // A moment in the future is one before the clock was put back.
        .filter(|(_, _, at, _): &(i64, bool, Millis, bool)| now.since(*at) < telling.once_within);
    if let Some((group, closed, _, still_true)) = before {
        assign(desk, group, &waiting)?;
        if !closed {
            return Ok(Vec::new());
        }
        desk.sql
            .prepare_cached(
                "UPDATE missing SET closed = 0, stands = 0, reason = ?2, device = ?3 WHERE id = ?1",
            )?
            .execute(params![group, telling.reason, telling.device])?;
        if still_true {
            return Ok(Vec::new());
        }
        // People were told that all is well, and it is not any more.
        return change(desk, group, owing(desk, &waiting)?, letter, now);
    }
    let group = begin(desk, telling, now)?;
    assign(desk, group, &waiting)?;
    let mut lanes = Vec::new();
    for lane in owing(desk, &waiting)? {
        if let Some(letter) = letter(Tells::There) {
            let said = (&told(group, lane), letter.as_slice());
            let owed = notices::notice_about(desk, lane, &telling.place, said, now)?;
            lanes.extend(owed);
        }
    }
    if let (true, Some(first)) = (telling.here, waiting.first()) {
        let here = tell_here(desk, (group, *first), &telling.place, letter, now)?;
        lanes.extend(here);
    }
    Ok(lanes)
}

/// A new group. What was said of the same sender before stays as it is from now on: only the newest notices change.
fn begin(desk: &Desk<'_>, telling: &Telling, now: Millis) -> Result<i64, Fault> {
    desk.sql
        .prepare_cached(
            "UPDATE missing SET stands = 0 WHERE stands = 1 AND place = ?1 AND sender = ?2 AND reason = ?3",
        )?
        .execute(params![telling.place, telling.sender, telling.reason])?;
    desk.sql
        .prepare_cached(
            "INSERT INTO missing (place, sender, reason, told_at, can_end, device)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            telling.place,
            telling.sender,
            telling.reason,
            now,
            telling.here,
            telling.device
        ])?;
    Ok(desk.sql.last_insert_rowid())
}

/// Those of these entries that wait, are owed to somebody, and of which nobody was told.
fn untold(desk: &Desk<'_>, entries: &[EntryId]) -> Result<Vec<EntryId>, Fault> {
    let mut waiting = Vec::new();
    for entry in entries {
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
    Ok(waiting)
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

/// Tells who sent it that something cannot be read, and puts a sign on it.
fn tell_here(
    desk: &Desk<'_>,
    (group, first): (i64, EntryId),
    place: &Place,
    letter: Write<'_>,
    now: Millis,
) -> Result<Vec<LaneId>, Fault> {
    let Some(lane) = Graph::load(desk.sql)?.room_lane(place) else {
        return Ok(Vec::new());
    };
    let told: i64 = desk
        .sql
        .prepare_cached(
            "SELECT count(*) FROM missing WHERE place = ?1 AND here = 1 AND told_at > ?2",
        )?
        .query_row(params![place, Millis(now.0 - DAY)], |row| row.get(0))?;
    if told >= MOST_HERE {
        return Ok(Vec::new());
    }
    let first: RemoteId = desk
        .sql
        .prepare_cached("SELECT fact FROM journal WHERE id = ?1")?
        .query_row([first], |row| row.get(0))?;
    desk.sql
        .prepare_cached("UPDATE missing SET here = 1 WHERE id = ?1")?
        .execute([group])?;
    let mut lanes = Vec::new();
    let mark = RemoteId(format!("unread-{group}-mark"));
    for (fact, letter) in [
        (mark, letter(Tells::Mark(&first))),
        (told_here(group), letter(Tells::Here(&first))),
    ] {
        if let Some(letter) = letter {
            lanes.extend(notices::notice(desk, lane, &fact, &letter, now)?);
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
