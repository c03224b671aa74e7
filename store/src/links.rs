//! Links: where each copy of an entry lives, the original included.

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    DeliveryId, EntryId, Error, Millis, Place, RemoteId, Store, along, database::Fault, outbox,
    reactions, settle,
};

/// The slot of a link to an event that is the entry's alone.
const WHOLE: i64 = -1;

/// One copy of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Its id in its place.
    pub remote: RemoteId,
    /// The first message of the thread it belongs to there, if any.
    pub thread: Option<RemoteId>,
    /// When it was sent, by the clock of its network.
    pub sent_at: Millis,
    /// Which file of the message it carries: a digest of where the file lies on the side it comes from, behind
    /// [`Copy::NAMED`] where a line names the file instead. Empty where it carries words, `None` where that is not known.
    pub file: Option<String>,
}

impl Copy {
    /// What stands in front of the digest of a file that could not be carried; none begins with it.
    pub const NAMED: char = '~';

    /// Whether a line stands in for a file that could not be carried.
    #[must_use]
    pub fn names_a_file(&self) -> bool {
        let file = self.file.as_ref();
        file.is_some_and(|file| file.starts_with(Self::NAMED))
    }
}

/// The copies of one entry in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// The entry, if we know the id at all.
    pub entry: Option<EntryId>,
    /// Where it was written.
    pub home: Option<Place>,
    /// Its copies in the place asked for, in part order.
    pub copies: Vec<Copy>,
    /// Where an edit is an event of its own: what it changed, and the event, oldest first. Of a copy that several entries
    /// share the edits of all of them, and of copies that are gone as well.
    pub edits: Vec<(RemoteId, RemoteId)>,
    /// Which part of the first copy is the entry's, where several entries share it.
    pub slot: Option<u32>,
    /// Whether parts of other entries stand in a copy that was, or is, the entry's, too.
    pub shared: bool,
    /// What an edit replaced and could not take away wholly: no later edit changes it, and it goes with the message.
    pub kept: Vec<RemoteId>,
    /// A delivery of the entry to that place that is still owed.
    pub owed: Option<DeliveryId>,
}

/// Why a copy says nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emptied {
    /// Its message was deleted.
    Deleted,
    /// Its message was edited, and other copies say it.
    Replaced,
    /// The same, but something of it could not be taken away: it goes with the message.
    Kept,
}

impl Store {
    /// The copies in `to` of the message that `from` calls `remote`.
    pub async fn copies(
        &self,
        from: &Place,
        remote: &RemoteId,
        to: &Place,
    ) -> Result<Copies, Error> {
        let (from, remote, to) = (from.clone(), remote.clone(), to.clone());
        self.read("find the copies of a message", move |desk| {
            let Some(entry) = entry(desk.sql, &from, &remote)? else {
                return Ok(Copies::default());
            };
            Ok(Copies {
                entry: Some(entry),
                home: desk
                    .sql
                    .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
                    .query_row([entry], |row| row.get(0))
                    .optional()?,
                copies: copies_of(desk.sql, entry, &to)?,
                edits: edits_of(desk.sql, entry, &to)?,
                slot: slot_of(desk.sql, entry, &to)?,
                shared: is_shared(desk.sql, entry, &to)?,
                kept: kept_of(desk.sql, entry, &to)?,
                owed: desk
                    .sql
                    .prepare_cached("SELECT id FROM outbox WHERE entry_id = ?1 AND to_place = ?2")?
                    .query_row(params![entry, to], |row| row.get(0))
                    .optional()?,
            })
        })
        .await
    }

    /// The copies of an entry in a place, in part order.
    pub async fn copies_of(&self, entry: EntryId, place: &Place) -> Result<Vec<Copy>, Error> {
        let place = place.clone();
        self.read("find the copies of an entry", move |desk| {
            copies_of(desk.sql, entry, &place)
        })
        .await
    }

    /// The copies of an entry in a place that say nothing any more, but that others have answered to: new answers belong
    /// there too.
    pub async fn emptied_copies(&self, entry: EntryId, place: &Place) -> Result<Vec<Copy>, Error> {
        let place = place.clone();
        self.read("find the emptied copies of an entry", move |desk| {
            copies_that(desk.sql, entry, &place, true)
        })
        .await
    }

    /// The present step is done: a copy says nothing any more, and stands there for what hangs on it. Of a message that is
    /// deleted nobody is of any mind. Otherwise as [`Store::step_done`].
    pub async fn step_emptied(
        &self,
        delivery: DeliveryId,
        (copy, emptied): (&RemoteId, Emptied),
        last: bool,
    ) -> Result<(), Error> {
        let copy = copy.clone();
        self.transaction("settle a step", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                outbox::note(0, delivery);
                return Ok(());
            };
            empty(desk.sql, &debt.to, &copy, emptied == Emptied::Kept)?;
            along::forget(desk.sql, delivery)?;
            if emptied == Emptied::Deleted {
                reactions::forget(desk, &debt.to, &copy)?;
            }
            outbox::advance(desk, &debt, last)
        })
        .await
    }

    /// Whether the message is known: an original we accepted or a copy we made, even one taken back since.
    pub async fn is_linked(&self, place: &Place, remote: &RemoteId) -> Result<bool, Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.read("look for a link", move |desk| {
            Ok(entry(desk.sql, &place, &remote)?.is_some())
        })
        .await
    }

    /// A message was taken back, by the entry `deletion`, that never came: should it come later, it is no news.
    pub async fn never_mind(
        &self,
        place: &Place,
        remote: &RemoteId,
        deletion: EntryId,
        now: Millis,
    ) -> Result<(), Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.transaction("remember what was taken back", move |desk| {
            if entry(desk.sql, &place, &remote)?.is_none() {
                let gone = Copy {
                    remote: remote.clone(),
                    thread: None,
                    sent_at: now,
                    file: None,
                };
                link(desk.sql, deletion, &place, &gone)?;
                unlink(desk.sql, &place, &remote)?;
            }
            Ok(())
        })
        .await
    }

    /// This copy is gone: nothing is done to it any more. Its id stays known.
    pub async fn copy_is_gone(&self, place: &Place, remote: &RemoteId) -> Result<(), Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.transaction("note that a copy is gone", move |desk| {
            unlink(desk.sql, &place, &remote)
        })
        .await
    }

    /// The present step of an edit is done and made `made`: a new text of the message that `original` names, or the event that
    /// replaces the text of its copy `replaces`. It is linked to that one, so that whoever takes the original back
    /// takes both. Answers whether the delivery was still owed; the link is kept in any case.
    pub async fn step_made_for(
        &self,
        (delivery, edit): (DeliveryId, EntryId),
        (to, made, replaces): (&Place, &Copy, Option<&RemoteId>),
        original: (&Place, &RemoteId),
        last: bool,
    ) -> Result<bool, Error> {
        let (to, made) = (to.clone(), made.clone());
        let (place, remote) = (original.0.clone(), original.1.clone());
        let replaces = replaces.cloned();
        self.transaction("settle a step", move |desk| {
            let home = entry(desk.sql, &place, &remote)?.unwrap_or(edit);
            link_made(desk.sql, (home, edit), &to, (&made, replaces.as_ref()))?;
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                outbox::note(0, delivery);
                return Ok(false);
            };
            outbox::advance(desk, &debt, last)?;
            Ok(true)
        })
        .await
    }
}

/// The entry that this message is a copy of, or the original. Of several entries that share it, the last: who
/// answers such a message most likely answers what was said last.
pub(crate) fn entry(
    sql: &Connection,
    place: &Place,
    remote: &RemoteId,
) -> Result<Option<EntryId>, Fault> {
    Ok(sql
        .prepare_cached(
            "SELECT entry_id FROM link WHERE place = ?1 AND remote = ?2
             ORDER BY gone, slot DESC LIMIT 1",
        )?
        .query_row(params![place, remote], |row| row.get(0))
        .optional()?)
}

fn slot_of(sql: &Connection, entry: EntryId, place: &Place) -> Result<Option<u32>, Fault> {
    let slot: Option<i64> = sql
        .prepare_cached(
            "SELECT slot FROM link WHERE entry_id = ?1 AND place = ?2 AND gone = 0 AND edits IS NULL
             ORDER BY part LIMIT 1",
        )?
        .query_row(params![entry, place], |row| row.get(0))
        .optional()?;
    Ok(slot.and_then(|slot| u32::try_from(slot).ok()))
}

/// Whether a copy of the entry carries what other entries said, too, or did before its part was taken out.
fn is_shared(sql: &Connection, entry: EntryId, place: &Place) -> Result<bool, Fault> {
    Ok(sql
        .prepare_cached(
            "SELECT 1 FROM link own JOIN link other ON other.place = own.place AND other.remote = own.remote
             WHERE own.entry_id = ?1 AND own.place = ?2 AND own.slot >= 0
             AND other.entry_id <> ?1 AND other.gone = 0",
        )?
        .exists(params![entry, place])?)
}

fn copies_of(sql: &Connection, entry: EntryId, place: &Place) -> Result<Vec<Copy>, Fault> {
    copies_that(sql, entry, place, false)
}

/// Those that were emptied, or those that say what they said.
fn copies_that(
    sql: &Connection,
    entry: EntryId,
    place: &Place,
    were_emptied: bool,
) -> Result<Vec<Copy>, Fault> {
    Ok(sql
        .prepare_cached(
            "SELECT remote, thread, sent_at, file FROM link
             WHERE entry_id = ?1 AND place = ?2 AND gone = ?3 AND emptied = ?3 AND edits IS NULL
             ORDER BY part",
        )?
        .query_map(params![entry, place, were_emptied], |row| {
            Ok(Copy {
                remote: row.get(0)?,
                thread: row.get(1)?,
                sent_at: row.get(2)?,
                file: row.get(3)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}

fn edits_of(
    sql: &Connection,
    entry: EntryId,
    place: &Place,
) -> Result<Vec<(RemoteId, RemoteId)>, Fault> {
    Ok(sql
        .prepare_cached(
            "SELECT edits, remote FROM link WHERE place = ?2 AND gone = 0
             AND edits IN (SELECT remote FROM link WHERE entry_id = ?1 AND place = ?2)
             ORDER BY sent_at, part",
        )?
        .query_map(params![entry, place], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?)
}

/// Links a copy as the next part of the entry in its place. Linked to this entry already is success; linked to
/// another one is refused by the database.
pub(crate) fn link(
    sql: &Connection,
    entry: EntryId,
    place: &Place,
    copy: &Copy,
) -> Result<(), Fault> {
    link_part(sql, entry, place, copy, None)
}

/// The same; `slot` says which part of the copy is the entry's, where several share it.
pub(crate) fn link_part(
    sql: &Connection,
    entry: EntryId,
    place: &Place,
    copy: &Copy,
    slot: Option<i64>,
) -> Result<(), Fault> {
    if sql
        .prepare_cached("SELECT 1 FROM link WHERE place = ?1 AND remote = ?2 AND entry_id = ?3")?
        .exists(params![place, copy.remote, entry])?
    {
        return Ok(());
    }
    sql.prepare_cached(
        "INSERT INTO link (place, remote, slot, entry_id, part, thread, sent_at, file)
         SELECT ?1, ?2, ?6, ?3, coalesce(max(part) + 1, 0), ?4, ?5, ?7 FROM link
         WHERE entry_id = ?3 AND place = ?1",
    )?
    .execute(params![
        place,
        copy.remote,
        entry,
        copy.thread,
        copy.sent_at,
        slot.unwrap_or(WHOLE),
        copy.file
    ])?;
    Ok(())
}

/// Links what the entry `by` made for the message `home`, unless it is known: a copy, or the event that replaces the text of one.
pub(crate) fn link_made(
    sql: &Connection,
    (home, by): (EntryId, EntryId),
    to: &Place,
    (made, replaces): (&Copy, Option<&RemoteId>),
) -> Result<(), Fault> {
    if entry(sql, to, &made.remote)?.is_none() {
        link(sql, home, to, made)?;
        sql.prepare_cached(
            "UPDATE link SET edits = ?3, made_by = ?4 WHERE place = ?1 AND remote = ?2",
        )?
        .execute(params![to, made.remote, replaces, by])?;
    }
    Ok(())
}

fn kept_of(sql: &Connection, entry: EntryId, place: &Place) -> Result<Vec<RemoteId>, Fault> {
    Ok(sql
        .prepare_cached(
            "SELECT remote FROM link WHERE entry_id = ?1 AND place = ?2 AND kept = 1 ORDER BY part",
        )?
        .query_map(params![entry, place], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

/// The copy says nothing any more, but what answers to it hangs on it.
pub(crate) fn empty(
    sql: &Connection,
    place: &Place,
    remote: &RemoteId,
    kept: bool,
) -> Result<(), Fault> {
    sql.prepare_cached(
        "UPDATE link SET gone = 1, emptied = 1, kept = ?3 WHERE place = ?1 AND remote = ?2",
    )?
    .execute(params![place, remote, kept])?;
    Ok(())
}

/// The copy is gone. Its id stays known, so that a late echo of it is no new message.
pub(crate) fn unlink(sql: &Connection, place: &Place, remote: &RemoteId) -> Result<(), Fault> {
    sql.prepare_cached(
        "UPDATE link SET gone = 1, emptied = 0, kept = 0 WHERE place = ?1 AND remote = ?2",
    )?
    .execute(params![place, remote])?;
    Ok(())
}
