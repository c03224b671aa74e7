//! Facts: what arrived, accepted exactly once, with the cursor that proves how far we have read.

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    Change, Copy, EntryId, Error, LaneId, Millis, Payload, Place, RemoteId, Rival, Store,
    Tombstone,
    changes::{self, Besides, Of},
    columns, commands, consent,
    database::{Desk, Fault},
    links,
    missing::{self, Ending},
    openings,
    paths::Net,
    people,
    portals::Graph,
    progress::{self, Flag, Gap},
    replay::{self, Opened},
    revisions, rivals,
    seal::Cell,
    settle::{self, End},
    story,
    trust::{self, Suspect},
    unlinked::{self, Shown},
    upgrades, writers,
};

/// Something that happened in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where.
    pub place: Place,
    /// Its id, unique in the place. A message's own id; an edit or deletion has an id of its own.
    pub fact: RemoteId,
    /// For a new message, how others will refer to it: makes the first link.
    pub message: Option<RemoteId>,
    /// The thread it belongs to in its place (the thread's first message), if any.
    pub thread: Option<RemoteId>,
    /// When the source says it was sent; kept on the link.
    pub sent_at: Millis,
    /// What it says.
    pub payload: Payload,
}

/// What one step of listening learnt. One transaction: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In the order in which they happened.
    pub arrivals: Vec<Arrival>,
    /// Cursors to move: name, value.
    pub cursors: Vec<(String, String)>,
    /// Gaps to open, or to move when the place has one already (`stop` then stays as it was).
    pub gaps: Vec<Gap>,
    /// Gaps that this batch fills: removed if still as given.
    pub filled: Vec<Gap>,
    /// Flags to raise. A raised flag is never lowered.
    pub flags: Vec<(Place, Flag)>,
    /// Who wrote which of the arrivals: place, fact, author. Kept as a keyed hash, the last one of each author.
    pub authors: Vec<(Place, RemoteId, String)>,
    /// Who wrote new messages: place, message, user. Kept as a keyed hash.
    pub writers: Vec<(Place, RemoteId, String)>,
    /// What arrivals were decrypted with: place, fact, key. One message of a key is one event for ever.
    pub opened: Vec<(Place, RemoteId, Opened)>,
    /// Of the arrivals that wait, those that wait for somebody in charge: place, fact, for whose identity.
    pub held: Vec<(Place, RemoteId, Suspect)>,
    /// Rooms that stand in the clear.
    pub clear: Vec<Place>,
    /// Who entered which room. Kept as a keyed hash.
    pub entered: Vec<(Place, String)>,
    /// Of the arrivals, those that come late: what was written after them was taken in before.
    pub late: Vec<(Place, RemoteId)>,
    /// Of the arrivals, others of which what was written after them may have been taken in before.
    pub older: Vec<(Place, RemoteId)>,
    /// What arrivals change.
    pub changes: Vec<Change>,
    /// Accounts in channels that somebody says are another bridge's.
    pub rivals: Vec<Rival>,
    /// Rooms that have moved.
    pub tombstones: Vec<Tombstone>,
    /// How arrivals were shown. One that was seen while its room was not linked is [`Accepted::Seen`].
    pub shown: Vec<Shown>,
    /// Events of rooms that were written before these were linked.
    pub before: Vec<Shown>,
}

/// What became of an arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Written down; these lanes owe a copy.
    New(Vec<LaneId>),
    /// We had it (or it is a copy that we made ourselves).
    Seen,
    /// An old ciphertext under a new event: dropped.
    Replayed,
    /// No active portal has this place; not written.
    Unlinked,
}

/// An entry that waits for its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The entry.
    pub entry: EntryId,
    /// Where it happened.
    pub place: Place,
    /// Its id there.
    pub fact: RemoteId,
    /// The session whose key is missing.
    pub session: String,
    /// The event as received.
    pub raw: Vec<u8>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Takes in a batch. Answers one [`Accepted`] per arrival, in order.
    pub async fn accept(&self, batch: Batch, now: Millis) -> Result<Vec<Accepted>, Error> {
        self.transaction("accept a batch", move |desk| {
            let graph = (Graph::load(desk.sql)?, Net::load(desk.sql, now)?);
            let besides = Besides::of_batch(&batch);
            let used = replay::used(&batch);
            let shown = unlinked::by_event(&batch);
            let accepted = batch
                .arrivals
                .iter()
                .map(|arrival| {
                    let shown = shown.get(&(&arrival.place, &arrival.fact)).copied();
                    let of = besides.of(arrival);
                    let stays = waits_at_desk(&graph.0, arrival);
                    unlinked::unless_of_before(desk, shown, stays, || {
                        match replay::caught(desk, &used, arrival, now)? {
                            Some(caught) => take_in(desk, &graph, (&caught, of), now)
                                .map(|_| Accepted::Replayed),
                            None => take_in(desk, &graph, (arrival, of), now),
                        }
                    })
                })
                .collect::<Result<_, Fault>>()?;
            unlinked::keep(desk, &batch)?;
            for (place, fact) in &batch.late {
                settle::mark_late(desk, place, fact)?;
            }
            for (place, fact, author) in &batch.authors {
                story::note_author(desk, place, fact, author)?;
            }
            for writer in &batch.writers {
                writers::keep(desk, writer)?;
            }
            trust::keep(desk, &batch, now)?;
            progress::keep(desk, &batch, now)?;
            for room in &batch.clear {
                consent::mark_clear(desk, room)?;
            }
            for (place, user) in &batch.entered {
                people::entered(desk, place, user)?;
            }
            for rival in &batch.rivals {
                rivals::keep(desk, rival)?;
            }
            for tombstone in &batch.tombstones {
                upgrades::moved(desk, tombstone, now)?;
            }
            Ok(accepted)
        })
        .await
    }

    /// Entries that wait for a key: all, or those of one session.
    pub async fn waiting(&self, session: Option<&str>) -> Result<Vec<Waiting>, Error> {
        let session = session.map(str::to_owned);
        self.read("read the entries that wait for a key", move |desk| {
            let mut waiting = desk
                .sql
                .prepare_cached(
                    "SELECT id, place, fact, session, payload FROM journal INDEXED BY journal_waiting
                     WHERE session IS NOT NULL AND session = coalesce(?1, session) ORDER BY id",
                )?
                .query_map([&session], waiting_from_row)?
                .collect::<Result<Vec<_>, _>>()?;
            for one in &mut waiting {
                one.raw = desk.seal.open(letter_cell(one.entry), &one.raw)?;
            }
            Ok(waiting)
        })
        .await
    }

    /// The key came: the entry is readable now (or, with [`Payload::Skipped`], settled). If it had been passed
    /// by others its deliveries are marked late. Answers the lanes to ring; none if the entry does not wait.
    pub async fn fill(
        &self,
        entry: EntryId,
        payload: Payload,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        self.transaction("fill an entry", move |desk| {
            fill(desk, entry, &payload, now)
        })
        .await
    }
}

/// Where the letter of an entry is sealed.
pub(crate) fn letter_cell(entry: EntryId) -> Cell {
    Cell {
        table: "journal",
        column: "payload",
        row: entry.0,
    }
}

/// The letter of an entry, opened, if it is still there.
pub(crate) fn open_letter(desk: &Desk<'_>, entry: EntryId) -> Result<Option<Vec<u8>>, Fault> {
    let sealed: Option<Vec<u8>> = desk
        .sql
        .prepare_cached("SELECT payload FROM journal WHERE id = ?1")?
        .query_row([entry], |row| row.get(0))
        .optional()?
        .flatten();
    sealed
        .map(|sealed| desk.seal.open(letter_cell(entry), &sealed))
        .transpose()
}

pub(crate) fn waiting_from_row(row: &Row<'_>) -> rusqlite::Result<Waiting> {
    Ok(Waiting {
        entry: row.get(0)?,
        place: row.get(1)?,
        fact: row.get(2)?,
        session: row.get(3)?,
        raw: row.get(4)?,
    })
}

fn take_in(
    desk: &Desk<'_>,
    (graph, net): &(Graph, Net),
    (arrival, of): (&Arrival, Of<'_>),
    now: Millis,
) -> Result<Accepted, Fault> {
    let arrival = &Arrival {
        fact: desk.seal.readable_id(&arrival.place, &arrival.fact),
        ..arrival.clone()
    };
    if is_known(desk, arrival)? {
        return Ok(Accepted::Seen);
    }
    let reached = openings::ways((graph, net), &arrival.place, of.dated);
    // At a desk only questions are heard.
    let asked = matches!(arrival.payload, Payload::Command(_)) && graph.only_asks(&arrival.place);
    // It may turn out to be one when its key comes.
    let heard = asked || waits_at_desk(graph, arrival);
    if reached.is_empty() && !heard {
        return Ok(Accepted::Unlinked);
    }
    let entry = write_fact(desk, &arrival.place, &arrival.fact, now)?;
    write_letter(desk, entry, &arrival.payload)?;
    if let Payload::Command(_) = arrival.payload {
        commands::ask(desk, entry)?;
    }
    if let Some(message) = &arrival.message {
        let original = Copy {
            remote: message.clone(),
            thread: arrival.thread.clone(),
            sent_at: arrival.sent_at,
            file: None,
        };
        links::link(desk.sql, entry, &arrival.place, &original)?;
    }
    let mut owing = Vec::new();
    let target = of.change.and_then(|change| change.target.as_ref());
    if let Some(target) = target {
        revisions::of(desk, (entry, arrival), target, of.change)?;
    }
    let takes_back = of.change.is_some_and(|change| change.takes_back);
    for (lane, to) in reached {
        // What only takes back says nothing that would have to stay.
        let too_early = (!takes_back).then(|| net.keeps(&arrival.place, lane, of.dated));
        let skipped = arrival.payload.skipped_by();
        if let Some(rule) = skipped.or(too_early.flatten()) {
            settle::skip_at_once(desk, entry, (lane, &to), rule)?;
            let kept = skipped.is_none() || of.change.is_some_and(|change| change.stays);
            if let Some(target) = target.filter(|_| kept) {
                changes::keep_back(desk, (&arrival.place, target), &to, rule, now)?;
            }
        } else {
            let fact = (&arrival.place, &arrival.fact);
            settle::owe(desk, entry, fact, (lane, &to), now)?;
            owing.push(lane);
        }
    }
    if owing.is_empty() && matches!(arrival.payload, Payload::Ready(_)) {
        settle::erase_unneeded(desk, entry)?;
    }
    Ok(Accepted::New(owing))
}

/// Whether this was written where questions are heard and nothing is joined, and waits for its key.
fn waits_at_desk(graph: &Graph, arrival: &Arrival) -> bool {
    matches!(arrival.payload, Payload::Waiting { .. }) && graph.only_asks(&arrival.place)
}

fn is_known(desk: &Desk<'_>, arrival: &Arrival) -> Result<bool, Fault> {
    if desk
        .sql
        .prepare_cached("SELECT 1 FROM journal WHERE place = ?1 AND fact = ?2")?
        .exists(params![arrival.place, arrival.fact])?
    {
        return Ok(true);
    }
    match &arrival.message {
        Some(message) => Ok(links::entry(desk.sql, &arrival.place, message)?.is_some()),
        None => Ok(false),
    }
}

/// Writes a fact down, still without its letter: that is sealed to the row this makes.
pub(crate) fn write_fact(
    desk: &Desk<'_>,
    place: &Place,
    fact: &RemoteId,
    now: Millis,
) -> Result<EntryId, Fault> {
    desk.sql
        .prepare_cached("INSERT INTO journal (place, fact, accepted_at) VALUES (?1, ?2, ?3)")?
        .execute(params![place, fact, now])?;
    Ok(EntryId(desk.sql.last_insert_rowid()))
}

/// Seals the letter of an entry into its row.
pub(crate) fn write_letter(
    desk: &Desk<'_>,
    entry: EntryId,
    payload: &Payload,
) -> Result<(), Fault> {
    let (letter, session, hold_until) = match payload {
        Payload::Ready(letter) | Payload::Command(letter) => (letter, None, None),
        Payload::Waiting {
            session,
            raw,
            hold_until,
        } => (raw, Some(columns::bounded(session)), Some(hold_until)),
        Payload::Skipped(_) => return Ok(()),
    };
    let sealed = desk.seal.seal(letter_cell(entry), letter)?;
    desk.sql
        .prepare_cached(
            "UPDATE journal SET payload = ?2, session = ?3, hold_until = ?4 WHERE id = ?1",
        )?
        .execute(params![entry, sealed, session, hold_until])?;
    Ok(())
}

pub(crate) fn fill(
    desk: &Desk<'_>,
    entry: EntryId,
    payload: &Payload,
    now: Millis,
) -> Result<Vec<LaneId>, Fault> {
    let hold_until: Option<Millis> = desk
        .sql
        .prepare_cached("SELECT hold_until FROM journal WHERE id = ?1 AND session IS NOT NULL")?
        .query_row([entry], |row| row.get(0))
        .optional()?;
    let Some(hold_until) = hold_until else {
        return Ok(Vec::new());
    };
    trust::release(desk, entry)?;
    let debts = settle::debts_of_entry(desk.sql, entry)?;
    if let Payload::Command(_) = payload {
        write_letter(desk, entry, payload)?;
        commands::ask(desk, entry)?;
    }
    if let Some(rule) = payload.skipped_by() {
        missing::count(desk, entry, Ending::Dropped)?;
        for debt in &debts {
            settle::settle(desk, debt, End::Skipped(rule))?;
        }
    } else {
        missing::count(desk, entry, Ending::Arrived)?;
        write_letter(desk, entry, payload)?;
        desk.erased();
        if hold_until <= now {
            desk.sql
                .prepare_cached("UPDATE outbox SET late = 1 WHERE entry_id = ?1")?
                .execute([entry])?;
        }
    }
    if debts.is_empty() {
        settle::erase_unneeded(desk, entry)?;
    }
    Ok(debts.into_iter().map(|debt| debt.lane).collect())
}
