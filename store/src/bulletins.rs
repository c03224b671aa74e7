//! Bulletins: notices of failures and closed places that change with what they speak of.
//!
//! Whatever changes the state marks its notices as stale in the same transaction; [`Store::refresh_notices`]
//! then writes them anew. A kill in between costs nothing: the mark stays.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, DeliveryId, EntryId, Error, LaneId, Millis, Place, RemoteId, Side, Store, columns,
    database::{Desk, Fault},
    notices,
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
    /// The message it answers, where it is shown.
    pub about: Option<Copy>,
    /// The side where it is shown.
    pub shown: Side,
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
                        "SELECT 1 WHERE EXISTS (SELECT 1 FROM bulletin WHERE stale = 1)
                         OR EXISTS (SELECT 1 FROM parked WHERE untold = 1)
                         OR EXISTS (SELECT 1 FROM closed WHERE bulletin IS NULL)",
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
            gather_closed(desk)?;
            let stale: Vec<RemoteId> = desk
                .sql
                .prepare_cached("SELECT fact FROM bulletin WHERE stale = 1 ORDER BY touched_at")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut lanes = Vec::new();
            for fact in stale {
                lanes.extend(write(desk, &fact, compose, now)?);
            }
            Ok(lanes)
        })
        .await
    }
}

/// The bulletin that speaks of this delivery, if one does, is no longer right.
pub(crate) fn spoil(desk: &Desk<'_>, delivery: DeliveryId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "UPDATE bulletin SET stale = 1
             WHERE fact = (SELECT bulletin FROM parked WHERE id = ?1)",
        )?
        .execute([delivery])?;
    Ok(())
}

/// The bulletin whose first text this entry is.
pub(crate) fn of(desk: &Desk<'_>, entry: Option<EntryId>) -> Result<Option<RemoteId>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT b.fact FROM journal j JOIN bulletin b ON b.fact = j.fact
             WHERE j.id = ?1 AND j.place = ?2",
        )?
        .query_row(params![entry, notices::home()], |row| row.get(0))
        .optional()?)
}

/// Gives every failure that nobody was told of its bulletin: the last one of the place if it is recent.
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
        let bulletin = match graph.back(&failed_to, &origin) {
            None => None,
            Some(lane) => {
                let fact = match recent(desk, lane, failed_at)? {
                    Some(fact) => fact,
                    None => RemoteId(format!("failed-{delivery}")),
                };
                make(desk, lane, "failure", &fact, failed_at)?;
                Some(fact)
            }
        };
        desk.sql
            .prepare_cached("UPDATE parked SET untold = 0, bulletin = ?2 WHERE id = ?1")?
            .execute(params![delivery, bulletin])?;
    }
    Ok(())
}

fn recent(desk: &Desk<'_>, lane: LaneId, failed_at: Millis) -> Result<Option<RemoteId>, Fault> {
    let burst = i64::try_from(BURST.as_millis()).unwrap_or(i64::MAX);
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT fact FROM bulletin WHERE portal_id = ?1 AND toward = ?2 AND topic = 'failure'
             AND touched_at >= ?3 ORDER BY touched_at DESC LIMIT 1",
        )?
        .query_row(
            params![lane.portal, lane.toward, failed_at.0.saturating_sub(burst)],
            |row| row.get(0),
        )
        .optional()?)
}

/// Gives every closed lane that nobody was told of its bulletin, at the portal's other end.
fn gather_closed(desk: &Desk<'_>) -> Result<(), Fault> {
    let untold: Vec<(LaneId, Millis)> = desk
        .sql
        .prepare_cached("SELECT portal_id, toward, since FROM closed WHERE bulletin IS NULL")?
        .query_map([], |row| Ok((columns::lane(row)?, row.get("since")?)))?
        .collect::<Result<_, _>>()?;
    for (closed, since) in untold {
        let lane = LaneId {
            portal: closed.portal,
            toward: closed.toward.opposite(),
        };
        let fact = RemoteId(format!(
            "closed-{}-{}-{}",
            closed.portal,
            closed.toward.as_str(),
            since.0
        ));
        make(desk, lane, "closed", &fact, since)?;
        desk.sql
            .prepare_cached("UPDATE closed SET bulletin = ?3 WHERE portal_id = ?1 AND toward = ?2")?
            .execute(params![closed.portal, closed.toward, fact])?;
    }
    Ok(())
}

/// A bulletin without a text yet, or one that is there already and whose text is no longer right.
fn make(
    desk: &Desk<'_>,
    lane: LaneId,
    topic: &str,
    fact: &RemoteId,
    at: Millis,
) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "INSERT INTO bulletin (fact, portal_id, toward, topic, touched_at)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (fact) DO UPDATE SET stale = 1, touched_at = excluded.touched_at",
        )?
        .execute(params![fact, lane.portal, lane.toward, topic, at])?;
    Ok(())
}

/// Writes the bulletin's next text and owes it.
fn write(
    desk: &Desk<'_>,
    fact: &RemoteId,
    compose: Compose,
    now: Millis,
) -> Result<Option<LaneId>, Fault> {
    let (lane, is_failure, said): (LaneId, bool, bool) = desk
        .sql
        .prepare_cached(
            "SELECT portal_id, toward, topic = 'failure', said FROM bulletin WHERE fact = ?1",
        )?
        .query_row([fact], |row| {
            Ok((columns::lane(row)?, row.get(2)?, row.get(3)?))
        })?;
    desk.sql
        .prepare_cached("UPDATE bulletin SET stale = 0, said = 1 WHERE fact = ?1")?
        .execute([fact])?;
    let replaces = said.then(|| fact.clone());
    let state = if is_failure {
        failures(desk, fact, (lane.toward, replaces), now)?
    } else {
        closed(desk, fact, (lane.toward, replaces), now)?
    };
    let Some(letter) = state.as_ref().and_then(compose) else {
        return Ok(None);
    };
    let rung = if said {
        supersede(desk, fact)?;
        notices::change_notice(desk, fact, &letter, now)?
    } else {
        notices::notice(desk, lane, fact, &letter, now)?
    };
    if rung.is_some() {
        notices::hurry(desk)?;
    }
    Ok(rung)
}

/// Takes out changes of this notice that are still owed: the next one says all of it.
fn supersede(desk: &Desk<'_>, fact: &RemoteId) -> Result<(), Fault> {
    let ids: Vec<DeliveryId> = desk
        .sql
        .prepare_cached(
            "SELECT o.id FROM journal j JOIN outbox o ON o.entry_id = j.id
             WHERE j.place = ?1 AND j.fact GLOB ?2 AND o.steps_done = 0 AND o.unsure_since IS NULL",
        )?
        .query_map(params![notices::home(), format!("{fact}.*")], |row| {
            row.get(0)
        })?
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
    bulletin: &RemoteId,
    (shown, replaces): (Side, Option<RemoteId>),
    at: Millis,
) -> Result<Option<NoticeState>, Fault> {
    let count = |state: &str, kept: &str| -> Result<u64, Fault> {
        Ok(desk
            .sql
            .prepare_cached(&format!(
                "SELECT count(*) FROM parked WHERE bulletin = ?1 AND state = ?2 {kept}"
            ))?
            .query_row(params![bulletin, state], |row| row.get(0))?)
    };
    let (failed, kept) = (count("failed", "")?, count("failed", "AND kept = 1")?);
    let (again, delivered) = (count("again", "")?, count("delivered", "")?);
    let last = desk
        .sql
        .prepare_cached(
            "SELECT to_place, reason FROM parked WHERE bulletin = ?1
             ORDER BY state = 'failed' DESC, failed_at DESC, id DESC LIMIT 1",
        )?
        .query_row([bulletin], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((to, reason)) = last else {
        return Ok(None);
    };
    Ok(Some(NoticeState {
        about: first_message(desk, bulletin)?.filter(|_| replaces.is_none()),
        replaces,
        shown,
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
fn first_message(desk: &Desk<'_>, bulletin: &RemoteId) -> Result<Option<Copy>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT l.remote, l.thread, l.sent_at FROM parked p
             JOIN journal j ON j.id = p.entry_id
             JOIN link l ON l.place = j.place AND l.remote = coalesce(p.about, j.fact)
             WHERE p.bulletin = ?1 ORDER BY p.id LIMIT 1",
        )?
        .query_row([bulletin], |row| {
            Ok(Copy {
                remote: row.get(0)?,
                thread: row.get(1)?,
                sent_at: row.get(2)?,
                file: None,
            })
        })
        .optional()?)
}

fn closed(
    desk: &Desk<'_>,
    bulletin: &RemoteId,
    (shown, replaces): (Side, Option<RemoteId>),
    at: Millis,
) -> Result<Option<NoticeState>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT c.reason, c.opened_at IS NOT NULL,
                    iif(c.toward = 'matrix', p.room_place, p.channel_place)
             FROM closed c JOIN portal p ON p.id = c.portal_id WHERE c.bulletin = ?1",
        )?
        .query_row([bulletin], |row| {
            Ok(NoticeState {
                replaces,
                shown,
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
