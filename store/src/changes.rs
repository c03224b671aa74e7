//! Edits and deletions of messages that are still owed: found before the message goes, and where they stay in their room
//! themselves, they keep it there.

use std::collections::HashSet;

use rusqlite::params;

use crate::{
    Arrival, Batch, Delivery, DeliveryId, EntryId, Error, LaneId, Millis, Place, RemoteId, Store,
    bulletins, bundle,
    database::{Desk, Fault},
    head, links, revisions,
    settle::{self, Debt, End},
};

/// What an arrival changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub place: Place,
    /// The arrival.
    pub fact: RemoteId,
    /// The message that it changes; `None` for what only a reaction is taken back by.
    pub target: Option<RemoteId>,
    /// Whether it only takes back, and says nothing.
    pub takes_back: bool,
    /// Whether its author wants what it says to stay where it is.
    pub stays: bool,
}

/// What a batch says of its arrivals besides.
pub(crate) struct Besides<'a> {
    older: HashSet<(&'a Place, &'a RemoteId)>,
    changes: &'a [Change],
}

/// What it says of one.
#[derive(Clone, Copy)]
pub(crate) struct Of<'a> {
    /// When it was written, where it stands among what was taken in before.
    pub dated: Option<Millis>,
    /// What it changes.
    pub change: Option<&'a Change>,
}

impl<'a> Besides<'a> {
    pub fn of_batch(batch: &'a Batch) -> Self {
        let older = batch.late.iter().chain(&batch.older);
        Self {
            older: older.map(|(place, fact)| (place, fact)).collect(),
            changes: &batch.changes,
        }
    }

    pub fn of(&self, arrival: &Arrival) -> Of<'a> {
        let is_older = self.older.contains(&(&arrival.place, &arrival.fact));
        let mut changes = self.changes.iter();
        Of {
            dated: is_older.then_some(arrival.sent_at),
            change: changes
                .find(|change| change.fact == arrival.fact && change.place == arrival.place),
        }
    }
}

impl Store {
    /// The edits and deletions of a message that stand behind it in its lane, as far as they can be read, oldest first; of each,
    /// whether it was taken back itself.
    pub async fn changes_behind(
        &self,
        message: DeliveryId,
    ) -> Result<Vec<(DeliveryId, bool)>, Error> {
        self.read("look for changes of a message", move |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT c.id, EXISTS (
                         SELECT 1 FROM revision r
                         WHERE r.place = j.place AND r.fact = j.fact AND r.gone = 1)
                     FROM outbox o
                     JOIN journal m ON m.id = o.entry_id
                     JOIN link l ON l.entry_id = m.id AND l.place = m.place
                     JOIN journal j ON j.place = m.place AND j.about = l.remote
                     JOIN outbox c ON c.entry_id = j.id
                     WHERE o.id = ?1 AND c.portal_id = o.portal_id AND c.toward = o.toward
                     AND c.to_place = o.to_place AND j.session IS NULL ORDER BY c.id",
                )?
                .query_map([message], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// A delivery that is owed and can be read.
    pub async fn owed(
        &self,
        lane: LaneId,
        delivery: DeliveryId,
    ) -> Result<Option<Delivery>, Error> {
        self.read("read what is owed", move |desk| {
            head::open_one(desk, lane, delivery)
        })
        .await
    }
}

/// The key of an edit came: it is known now which message it changes. Where the edit was not to leave its room, what is
/// owed of that message stays there too.
pub(crate) fn opened(
    desk: &Desk<'_>,
    edit: EntryId,
    (target, sent_at): (&RemoteId, Millis),
    now: Millis,
) -> Result<(), Fault> {
    let (place, fact): (Place, RemoteId) = desk
        .sql
        .prepare_cached("SELECT place, fact FROM journal WHERE id = ?1")?
        .query_row([edit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    note(desk, edit, target)?;
    revisions::note(desk, (&place, &fact), target, sent_at)?;
    let kept = desk
        .sql
        .prepare_cached("SELECT to_place, rule FROM skipped WHERE entry_id = ?1")?
        .query_map([edit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(Place, String)>, _>>()?;
    for (to, rule) in kept {
        keep_back(desk, (&place, target), &to, &rule, now)?;
    }
    Ok(())
}

/// This entry changes that message.
pub(crate) fn note(desk: &Desk<'_>, entry: EntryId, target: &RemoteId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached("UPDATE journal SET about = ?2 WHERE id = ?1 AND payload IS NOT NULL")?
        .execute(params![entry, target])?;
    Ok(())
}

/// The author has changed a message, and what it says by now stays where it is: so does what it said before, unless that may
/// have gone already.
pub(crate) fn keep_back(
    desk: &Desk<'_>,
    (place, target): (&Place, &RemoteId),
    to: &Place,
    rule: &str,
    now: Millis,
) -> Result<(), Fault> {
    const WHY: &str = "its author changed it before it might cross";
    let Some(entry) = links::entry(desk.sql, place, target)? else {
        return Ok(());
    };
    take_back_failed(desk, (entry, Some((place, target))), to, WHY)?;
    let owed = settle::debts_of_entry(desk.sql, entry)?.into_iter();
    for debt in owed.filter(|debt| debt.to == *to) {
        let leader: DeliveryId = desk
            .sql
            .prepare_cached("SELECT coalesce(leader, id) FROM outbox WHERE id = ?1")?
            .query_row([debt.id], |row| row.get(0))?;
        if bundle::was_tried(desk, leader)? {
            continue;
        }
        let ending: [Debt; 1] = [debt];
        bundle::take_apart(desk, &ending, now)?;
        for debt in &ending {
            settle::settle(desk, debt, End::Skipped(rule))?;
        }
    }
    Ok(())
}

/// Where the delivery of a message, or of an edit of it, to a place failed and is kept, nothing is kept any more. Edits are
/// found by what the place calls the message (`edited`). Answers whether that was so.
pub(crate) fn take_back_failed(
    desk: &Desk<'_>,
    (entry, edited): (EntryId, Option<(&Place, &RemoteId)>),
    to: &Place,
    why: &str,
) -> Result<bool, Fault> {
    let (place, target) = edited.unzip();
    let ended: Vec<(DeliveryId, EntryId)> = desk
        .sql
        .prepare_cached(
            "UPDATE parked SET untold = 0, kept = 0, plan = NULL, reason = ?3
             WHERE to_place = ?2 AND kept = 1 AND (entry_id = ?1 OR (
                 about = ?5 AND entry_id IN (SELECT id FROM journal WHERE place = ?4)))
             RETURNING id, entry_id",
        )?
        .query_map(params![entry, to, why, place, target], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    for (id, entry) in &ended {
        settle::erase_unneeded(desk, *entry)?;
        bulletins::spoil(desk, *id)?;
    }
    Ok(!ended.is_empty())
}
