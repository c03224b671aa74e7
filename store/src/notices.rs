//! What the bridge itself has to say of failures and closed places, where people see it. A notice is one
//! message that changes with what it is about: each text is an entry of its own, the later ones edit the first.
//!
//! Whatever changes the state marks its notices as stale in the same transaction; [`Store::refresh_notices`]
//! then writes them anew. A kill in between costs nothing: the mark stays.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, DeliveryId, EntryId, Error, LaneId, Millis, Payload, Place, RemoteId, Store, columns,
    database::{Desk, Fault},
    journal, links, outbox,
    portals::Graph,
    settle::{self, End},
};

/// Failures in one place that follow each other within this time share a notice.
const BURST: Duration = Duration::from_mins(1);
/// The rule for a text that a later one has replaced before it was sent.
const SUPERSEDED: &str = "superseded";

/// What a notice speaks of, as things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeState {
    /// The first text of it, as `replaces` of what is written now; `None` for the first text itself.
    pub replaces: Option<RemoteId>,
    /// The message it answers, in the place where it is shown.
    pub about: Option<Copy>,
    /// The place that could not be reached.
    pub to: Place,
    /// What it is about.
    pub topic: Topic,
    /// When this is written.
    pub at: Millis,
}

/// What a notice is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Deliveries that failed.
    Failures {
        /// Those that failed and are as they were.
        failed: u64,
        /// Of these, those that can be tried again.
        kept: u64,
        /// Those that are tried again.
        again: u64,
        /// Those that were delivered after all.
        delivered: u64,
        /// The last reason.
        reason: String,
    },
    /// A place that does not let us in.
    Closed {
        /// What it answered.
        reason: String,
        /// Whether it let us in again since.
        open: bool,
    },
}

/// Writes the letter of a notice. Pure.
pub type Compose = fn(&NoticeState) -> Option<Vec<u8>>;

impl Store {
    /// Writes what is stale anew: a first text for failures and closed places that nobody was told of, an edit
    /// for those that changed. Answers the lanes to ring.
    pub async fn refresh_notices(
        &self,
        compose: Compose,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        let nothing = self
            .read("look for stale notices", |desk| {
                Ok(!desk
                    .sql
                    .prepare_cached(
                        "SELECT 1 WHERE EXISTS (SELECT 1 FROM notice WHERE stale = 1)
                         OR EXISTS (SELECT 1 FROM parked WHERE untold = 1)
                         OR EXISTS (SELECT 1 FROM closed WHERE notice IS NULL)",
                    )?
                    .exists([])?)
            })
            .await?;
        if nothing {
            return Ok(Vec::new());
        }
        self.transaction("write notices", move |desk| {
            let graph = Graph::load(desk.sql)?;
            gather_failures(desk, &graph)?;
            gather_closed(desk, &graph)?;
            let stale: Vec<EntryId> = desk
                .sql
                .prepare_cached("SELECT entry_id FROM notice WHERE stale = 1 ORDER BY entry_id")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut lanes = Vec::new();
            for notice in stale {
                lanes.extend(write(desk, notice, compose, now)?);
            }
            Ok(lanes)
        })
        .await
    }
}

/// The notice that speaks of this delivery, if one does, is no longer right.
pub(crate) fn spoil(desk: &Desk<'_>, delivery: DeliveryId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "UPDATE notice SET stale = 1
             WHERE entry_id = (SELECT notice FROM parked WHERE id = ?1)",
        )?
        .execute([delivery])?;
    Ok(())
}

/// Gives every failure that nobody was told of its notice: the last one of the place if it is recent.
fn gather_failures(desk: &Desk<'_>, graph: &Graph) -> Result<(), Fault> {
    let untold: Vec<(DeliveryId, Place, Place, Millis)> = desk
        .sql
        .prepare_cached(
            "SELECT p.id, j.place, p.to_place, p.failed_at FROM parked p
             JOIN journal j ON j.id = p.entry_id WHERE p.untold = 1 ORDER BY p.id",
        )?
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<_, _>>()?;
    for (delivery, origin, failed_to, failed_at) in untold {
        let notice = match graph.back(&failed_to, &origin) {
            None => None,
            Some(lane) => Some(match recent(desk, lane, &origin, failed_at)? {
                Some(notice) => {
                    desk.sql
                        .prepare_cached(
                            "UPDATE notice SET stale = 1, touched_at = ?2 WHERE entry_id = ?1",
                        )?
                        .execute(params![notice, failed_at])?;
                    notice
                }
                None => make(
                    desk,
                    (lane, &origin),
                    "failure",
                    &format!("failed-{delivery}"),
                    failed_at,
                )?,
            }),
        };
        desk.sql
            .prepare_cached("UPDATE parked SET untold = 0, notice = ?2 WHERE id = ?1")?
            .execute(params![delivery, notice])?;
    }
    Ok(())
}

fn recent(
    desk: &Desk<'_>,
    lane: LaneId,
    place: &Place,
    failed_at: Millis,
) -> Result<Option<EntryId>, Fault> {
    let burst = i64::try_from(BURST.as_millis()).unwrap_or(i64::MAX);
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT entry_id FROM notice WHERE to_place = ?1 AND portal_id = ?2 AND topic = 'failure'
             AND touched_at >= ?3 ORDER BY entry_id DESC LIMIT 1",
        )?
        .query_row(
            params![place, lane.portal, failed_at.0.saturating_sub(burst)],
            |row| row.get(0),
        )
        .optional()?)
}

/// Gives every closed lane that nobody was told of its notice, at the portal's other end.
fn gather_closed(desk: &Desk<'_>, graph: &Graph) -> Result<(), Fault> {
    let untold: Vec<(LaneId, Millis)> = desk
        .sql
        .prepare_cached("SELECT portal_id, toward, since FROM closed WHERE notice IS NULL")?
        .query_map([], |row| Ok((columns::lane(row)?, row.get("since")?)))?
        .collect::<Result<_, _>>()?;
    for (closed, since) in untold {
        let lane = LaneId {
            portal: closed.portal,
            toward: closed.toward.opposite(),
        };
        let Some(place) = graph.end(lane) else {
            continue;
        };
        let fact = format!("closed-{}-{}-{}", closed.portal, closed.toward.as_str(), since.0);
        let notice = make(desk, (lane, place), "closed", &fact, since)?;
        desk.sql
            .prepare_cached("UPDATE closed SET notice = ?3 WHERE portal_id = ?1 AND toward = ?2")?
            .execute(params![closed.portal, closed.toward, notice])?;
    }
    Ok(())
}

/// A notice without a text yet.
fn make(
    desk: &Desk<'_>,
    (lane, place): (LaneId, &Place),
    topic: &str,
    fact: &str,
    at: Millis,
) -> Result<EntryId, Fault> {
    let (home, fact) = (home(), RemoteId::from(fact));
    let entry = journal::write_fact(desk, &home, &fact, at)?;
    let original = Copy {
        remote: fact,
        thread: None,
        sent_at: at,
    };
    links::link(desk.sql, entry, &home, &original)?;
    desk.sql
        .prepare_cached(
            "INSERT INTO notice (entry_id, portal_id, toward, to_place, topic, touched_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![entry, lane.portal, lane.toward, place, topic, at])?;
    Ok(entry)
}

/// Where the bridge's own messages happen.
pub(crate) fn home() -> Place {
    Place::new(outbox::BRIDGE, "notice")
}

/// One row, as far as writing needs it.
struct Row {
    lane: LaneId,
    place: Place,
    is_failure: bool,
    versions: i64,
    fact: RemoteId,
}

/// Writes the notice's next text and owes it.
fn write(
    desk: &Desk<'_>,
    notice: EntryId,
    compose: Compose,
    now: Millis,
) -> Result<Option<LaneId>, Fault> {
    let row = desk
        .sql
        .prepare_cached(
            "SELECT n.portal_id, n.toward, n.to_place, n.topic = 'failure', n.versions, j.fact
             FROM notice n JOIN journal j ON j.id = n.entry_id WHERE n.entry_id = ?1",
        )?
        .query_row([notice], |row| {
            Ok(Row {
                lane: columns::lane(row)?,
                place: row.get(2)?,
                is_failure: row.get(3)?,
                versions: row.get(4)?,
                fact: row.get(5)?,
            })
        })?;
    desk.sql
        .prepare_cached("UPDATE notice SET stale = 0, versions = versions + 1 WHERE entry_id = ?1")?
        .execute([notice])?;
    let replaces = (row.versions > 0).then(|| row.fact.clone());
    let state = if row.is_failure {
        failures(desk, notice, replaces, now)?
    } else {
        closed(desk, notice, replaces, now)?
    };
    let Some(letter) = state.as_ref().and_then(compose) else {
        return Ok(None);
    };
    let home = home();
    let (entry, fact) = if row.versions == 0 {
        (notice, row.fact)
    } else {
        supersede(desk, &row.fact, &row.place)?;
        let fact = RemoteId(format!("{}/{}", row.fact, row.versions));
        (journal::write_fact(desk, &home, &fact, now)?, fact)
    };
    journal::write_letter(desk, entry, &Payload::Ready(letter))?;
    settle::owe(desk, entry, (&home, &fact), (row.lane, &row.place), now)?;
    Ok(Some(row.lane))
}

/// Takes out edits of this notice that are still owed: the next one says all of it. One that is being sent in
/// this moment is sent nevertheless, before the next.
fn supersede(desk: &Desk<'_>, fact: &RemoteId, place: &Place) -> Result<(), Fault> {
    let ids: Vec<DeliveryId> = desk
        .sql
        .prepare_cached(
            "SELECT o.id FROM outbox o JOIN journal j ON j.id = o.entry_id
             WHERE o.to_place = ?1 AND j.place = ?2 AND j.fact GLOB ?3
             AND o.steps_done = 0 AND o.unsure_since IS NULL",
        )?
        .query_map(params![place, home(), format!("{fact}/*")], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in ids {
        if let Some(debt) = settle::debt(desk.sql, id)? {
            settle::settle(desk, &debt, End::Skipped(SUPERSEDED))?;
        }
    }
    Ok(())
}

fn failures(
    desk: &Desk<'_>,
    notice: EntryId,
    replaces: Option<RemoteId>,
    at: Millis,
) -> Result<Option<NoticeState>, Fault> {
    let count = |state: &str, kept: &str| -> Result<u64, Fault> {
        Ok(desk
            .sql
            .prepare_cached(&format!(
                "SELECT count(*) FROM parked WHERE notice = ?1 AND state = ?2 {kept}"
            ))?
            .query_row(params![notice, state], |row| row.get(0))?)
    };
    let (failed, kept) = (count("failed", "")?, count("failed", "AND kept = 1")?);
    let (again, delivered) = (count("again", "")?, count("delivered", "")?);
    let last = desk
        .sql
        .prepare_cached(
            "SELECT to_place, reason FROM parked WHERE notice = ?1
             ORDER BY state = 'failed' DESC, failed_at DESC, id DESC LIMIT 1",
        )?
        .query_row([notice], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((to, reason)) = last else {
        return Ok(None);
    };
    Ok(Some(NoticeState {
        about: if replaces.is_none() {
            first_message(desk, notice)?
        } else {
            None
        },
        replaces,
        to,
        topic: Topic::Failures {
            failed,
            kept,
            again,
            delivered,
            reason,
        },
        at,
    }))
}

/// The first message that a notice is about, where its author sees it.
fn first_message(desk: &Desk<'_>, notice: EntryId) -> Result<Option<Copy>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT l.remote, l.thread, l.sent_at FROM parked p
             JOIN journal j ON j.id = p.entry_id
             JOIN link l ON l.place = j.place AND l.remote = coalesce(p.about, j.fact)
             WHERE p.notice = ?1 ORDER BY p.id LIMIT 1",
        )?
        .query_row([notice], |row| {
            Ok(Copy {
                remote: row.get(0)?,
                thread: row.get(1)?,
                sent_at: row.get(2)?,
            })
        })
        .optional()?)
}

fn closed(
    desk: &Desk<'_>,
    notice: EntryId,
    replaces: Option<RemoteId>,
    at: Millis,
) -> Result<Option<NoticeState>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT c.reason, c.opened_at IS NOT NULL,
                    iif(c.toward = 'matrix', p.room_place, p.channel_place)
             FROM closed c JOIN portal p ON p.id = c.portal_id WHERE c.notice = ?1",
        )?
        .query_row([notice], |row| {
            Ok(NoticeState {
                replaces,
                about: None,
                to: row.get(2)?,
                topic: Topic::Closed {
                    reason: row.get(0)?,
                    open: row.get(1)?,
                },
                at,
            })
        })
        .optional()?)
}
