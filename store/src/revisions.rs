//! Edits that are redacted themselves: which message an edit is of, whether it counts in a place, and what the message says
//! without it.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};

use crate::{
    Arrival, Change, EntryId, Error, Millis, Opened, Place, RemoteId, Store, changes, crossed,
    database::{Desk, Fault},
    edits, links, rewritten,
};

/// An edit that was redacted, as one place sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// The message that it changed; `None` where the edit could never be read.
    pub message: Option<RemoteId>,
    /// The edit.
    pub edit: EntryId,
    /// What counts in the place as the newest text of the message.
    pub shown: Shows,
    /// The other edits of the message whose text has gone to the place, that were not redacted and came before the redaction,
    /// the newest first (by `origin_server_ts`, then by event id: specification, "Event replacements").
    pub others: Vec<Revision>,
    /// Whether the message's own text has gone there.
    pub own: bool,
    /// The copies and events in the place that the edit made.
    pub made: Vec<RemoteId>,
}

/// Which text of a message a place shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// That of the edit that was redacted.
    Redacted,
    /// One that came after it.
    Later,
    /// One from before it: it never got there.
    Earlier,
}

/// An edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its event.
    pub fact: RemoteId,
    /// Its entry.
    pub entry: EntryId,
}

impl Store {
    /// What the redaction `by` of the edit `edit` means in `to`. `None` where `edit` is no edit that is known.
    pub async fn taken_back(
        &self,
        (from, edit): (&Place, &RemoteId),
        to: &Place,
        by: EntryId,
    ) -> Result<Option<TakenBack>, Error> {
        let (from, edit, to) = (from.clone(), edit.clone(), to.clone());
        self.read("look what the redaction of an edit means", move |desk| {
            let found: Option<(Option<RemoteId>, EntryId)> = desk
                .sql
                .prepare_cached(
                    "SELECT r.target, j.id FROM revision r
                     JOIN journal j ON j.place = r.place AND j.fact = r.fact
                     WHERE r.place = ?1 AND r.fact = ?2",
                )?
                .query_row(params![from, edit], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((message, edit)) = found else {
                return Ok(None);
            };
            let Some(target) = &message else {
                return Ok(Some(TakenBack {
                    message,
                    edit,
                    shown: Shows::Earlier,
                    others: Vec::new(),
                    own: false,
                    made: Vec::new(),
                }));
            };
            Ok(Some(TakenBack {
                shown: shown(desk, (&from, target), &to, (edit, by))?,
                others: others(desk, (&from, target), &to, by)?,
                own: match links::entry(desk.sql, &from, target)? {
                    Some(original) => crossed::has(desk, original, &to)?,
                    None => false,
                },
                made: made_by(desk, (&from, target), &to, edit)?,
                message,
                edit,
            }))
        })
        .await
    }

    /// Whether an edit was redacted itself.
    pub async fn is_edit_taken_back(&self, edit: EntryId) -> Result<bool, Error> {
        self.read("look whether an edit was redacted", move |desk| {
            is_gone(desk, edit)
        })
        .await
    }

    /// The redaction `by` is about to restore in `to` what the message said before: the text of the edit `text`, or its
    /// own. An older edit whose key comes late is judged by that from now on.
    pub async fn restores(
        &self,
        (from, message): (&Place, &RemoteId),
        to: &Place,
        by: EntryId,
        text: Option<EntryId>,
    ) -> Result<(), Error> {
        let (from, message, to) = (from.clone(), message.clone(), to.clone());
        self.transaction("restore a text", move |desk| {
            let Some(original) = links::entry(desk.sql, &from, &message)? else {
                return Ok(());
            };
            desk.sql
                .prepare_cached(
                    "UPDATE edited SET entry_id = ?4, restored_by = ?5
                     WHERE place = ?1 AND remote = ?2 AND to_place = ?3",
                )?
                .execute(params![from, message, to, text.unwrap_or(original), by])?;
            Ok(())
        })
        .await
    }

    /// Whether an event is the one that was first decrypted with this: whoever shows another message of the key under its id
    /// lies. Of a key that has not been used for 30 days nobody knows which events it decrypted (see [`Store::fold_used`]): then
    /// none is.
    pub async fn was_opened_with(&self, event: &RemoteId, opened: &Opened) -> Result<bool, Error> {
        let (event, opened) = (event.clone(), opened.clone());
        self.read("look what an event was decrypted with", move |desk| {
            let known: Option<(RemoteId, Millis)> = desk
                .sql
                .prepare_cached(
                    "SELECT event, sent_at FROM used_index WHERE session = ?1 AND place = ?2",
                )?
                .query_row(params![opened.session, opened.index], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            Ok(known.is_some_and(|(known, sent_at)| known == event && sent_at == opened.sent_at))
        })
        .await
    }
}

/// Keeps what an arrival is to the message or the edit that it is about.
pub(crate) fn of(
    desk: &Desk<'_>,
    (entry, arrival): (EntryId, &Arrival),
    target: &RemoteId,
    change: Option<&Change>,
) -> Result<(), Fault> {
    changes::note(desk, entry, target)?;
    match change {
        Some(change) if change.takes_back => redacted(desk, &arrival.place, target),
        _ => note(
            desk,
            (&arrival.place, &arrival.fact),
            target,
            arrival.sent_at,
        ),
    }
}

/// Keeps which message an edit is of. What was noted of its redaction stays.
pub(crate) fn note(
    desk: &Desk<'_>,
    (place, fact): (&Place, &RemoteId),
    target: &RemoteId,
    sent_at: Millis,
) -> Result<(), Fault> {
    if place.network() != Place::MATRIX {
        return Ok(());
    }
    desk.sql
        .prepare_cached(
            "INSERT INTO revision (place, fact, target, sent_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (place, fact) DO UPDATE SET target = excluded.target, sent_at = excluded.sent_at",
        )?
        .execute(params![place, fact, target, sent_at])?;
    Ok(())
}

/// A fact was redacted. If it is an edit, or waits for its key and may be one, that is noted, and what of it failed is not
/// kept to be tried again, nor is its message where that failed in the middle and says what the edit said.
fn redacted(desk: &Desk<'_>, place: &Place, fact: &RemoteId) -> Result<(), Fault> {
    if place.network() != Place::MATRIX {
        return Ok(());
    }
    desk.sql
        .prepare_cached("UPDATE revision SET gone = 1 WHERE place = ?1 AND fact = ?2")?
        .execute(params![place, fact])?;
    let edit: Option<EntryId> = desk
        .sql
        .prepare_cached(
            "SELECT j.id FROM revision r JOIN journal j ON j.place = r.place AND j.fact = r.fact
             WHERE r.place = ?1 AND r.fact = ?2",
        )?
        .query_row(params![place, fact], |row| row.get(0))
        .optional()?;
    if let Some(edit) = edit {
        rewritten::forget(desk, edit)?;
        edits::is_gone(desk, edit)?;
    }
    let failed: HashSet<(EntryId, Place)> = desk
        .sql
        .prepare_cached(
            "SELECT p.entry_id, p.to_place FROM parked p
             JOIN journal m ON m.id = p.entry_id
             JOIN revision r ON r.place = ?1 AND r.fact = ?2
             JOIN journal j ON j.place = r.place AND j.fact = r.fact
             WHERE p.kept = 1 AND (j.id IN (m.id, m.text_of) OR EXISTS (
                 SELECT 1 FROM rewritten w
                 WHERE w.edit_id = j.id AND w.entry_id = m.id AND w.to_place = p.to_place))",
        )?
        .query_map(params![place, fact], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (edit, to) in failed {
        changes::take_back_failed(desk, (edit, None), &to, "what it says was redacted")?;
    }
    // A message has a link; what has none and cannot be read may be an edit.
    desk.sql
        .prepare_cached(
            "INSERT INTO revision (place, fact, gone)
             SELECT place, fact, 1 FROM journal
             WHERE place = ?1 AND fact = ?2 AND session IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM link WHERE place = ?1 AND remote = ?2)
             ON CONFLICT (place, fact) DO NOTHING",
        )?
        .execute(params![place, fact])?;
    Ok(())
}

/// Whether an edit was redacted itself.
pub(crate) fn is_gone(desk: &Desk<'_>, edit: EntryId) -> Result<bool, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT 1 FROM journal j JOIN revision r ON r.place = j.place AND r.fact = j.fact
             WHERE j.id = ?1 AND r.gone = 1",
        )?
        .exists([edit])?)
}

fn shown(
    desk: &Desk<'_>,
    (from, target): (&Place, &RemoteId),
    to: &Place,
    (edit, by): (EntryId, EntryId),
) -> Result<Shows, Fault> {
    let newest: Option<(EntryId, Option<EntryId>)> = desk
        .sql
        .prepare_cached(
            "SELECT entry_id, restored_by FROM edited
             WHERE place = ?1 AND remote = ?2 AND to_place = ?3",
        )?
        .query_row(params![from, target, to], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(match newest {
        Some((_, Some(restored))) if restored == by => Shows::Redacted,
        Some((newest, _)) if newest == edit => {
            if crossed::has_or_may(desk, edit, to)? {
                Shows::Redacted
            } else {
                Shows::Earlier
            }
        }
        Some((newest, restored)) if newest > edit => {
            // One that failed is not there, and nothing says that it ever will be.
            let original = links::entry(desk.sql, from, target)?;
            if restored.is_some() || crossed::has_or_will(desk, (newest, original), to)? {
                Shows::Later
            } else {
                Shows::Redacted
            }
        }
        _ => Shows::Earlier,
    })
}

fn others(
    desk: &Desk<'_>,
    (from, target): (&Place, &RemoteId),
    to: &Place,
    by: EntryId,
) -> Result<Vec<Revision>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT r.fact, j.id FROM revision r
             JOIN journal j ON j.place = r.place AND j.fact = r.fact
             JOIN crossed c ON c.entry_id = j.id AND c.to_place = ?3
             WHERE r.place = ?1 AND r.target = ?2 AND r.gone = 0 AND j.id < ?4
             ORDER BY r.sent_at DESC, r.fact DESC",
        )?
        .query_map(params![from, target, to, by], |row| {
            Ok(Revision {
                fact: row.get(0)?,
                entry: row.get(1)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}

fn made_by(
    desk: &Desk<'_>,
    (from, target): (&Place, &RemoteId),
    to: &Place,
    edit: EntryId,
) -> Result<Vec<RemoteId>, Fault> {
    let message = links::entry(desk.sql, from, target)?;
    Ok(desk
        .sql
        .prepare_cached(
            // What took a part out of a shared event is not taken back: the part says nothing any more.
            "SELECT remote FROM link
             WHERE entry_id = ?1 AND place = ?2 AND made_by = ?3 AND gone = 0
             AND NOT EXISTS (SELECT 1 FROM link s
                 WHERE s.place = link.place AND s.remote = link.edits AND s.slot >= 0 AND s.gone = 1)
             ORDER BY part",
        )?
        .query_map(params![message, to, edit], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}
