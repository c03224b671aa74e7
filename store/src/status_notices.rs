//! Status notices: notices about failures and closed lanes that are edited when the state they report changes.
//!
//! Whatever changes the state marks its notices as stale in the same transaction; [`Store::refresh_notices`] then writes their
//! new texts. A kill in between does no harm: the mark stays.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, DeliveryId, EntryId, Error, LaneId, Millis, Place, RemoteId, Side, SkipRule, Store,
    columns,
    counters::{self, DeliveryEnd},
    database::{Tx, TxError},
    notices,
    portals::PortalGraph,
};

/// Failures in one place that follow each other within this time share a notice.
const MERGE_WINDOW: Duration = Duration::from_mins(1);

/// The present state that a notice reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusNotice {
    /// The notice's first text, if what is written now is an edit of it; `None` for the first text itself.
    pub replaces: Option<RemoteId>,
    /// The message that it replies to, where it is shown.
    pub about: Option<Copy>,
    /// The side where it is shown.
    pub shown_on: Side,
    /// The place that could not be reached.
    pub to: Place,
    /// What it reports.
    pub topic: StatusTopic,
    /// When this text is written.
    pub at: Millis,
}

/// What a notice reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusTopic {
    /// Deliveries that failed.
    Failures {
        /// Those that failed and are not retried.
        failed: u64,
        /// Of these, those that can be retried.
        retryable: u64,
        /// Those that are being retried.
        retrying: u64,
        /// Those that a retry delivered.
        delivered: u64,
        /// The last reason.
        reason: String,
    },
    /// A closed lane.
    Closed {
        /// What it answered.
        reason: String,
        /// Whether it is open again.
        open: bool,
    },
}

/// Renders the payload of a notice. Pure.
pub type RenderNotice = fn(&StatusNotice) -> Option<Vec<u8>>;

impl Store {
    /// Writes the texts of stale notices: a first text for failures and closed lanes that were not reported yet, an edit for
    /// those that changed. Returns the lanes to wake.
    pub async fn refresh_notices(
        &self,
        render: RenderNotice,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        let nothing = self
            .read("look for stale notices", |tx| {
                Ok(!tx
                    .sql
                    .prepare_cached(
                        "SELECT 1 WHERE EXISTS (SELECT 1 FROM status_notice WHERE stale = 1)
                         OR EXISTS (SELECT 1 FROM parked_delivery WHERE unreported = 1)
                         OR EXISTS (SELECT 1 FROM closed_lane c JOIN portal p ON p.id = c.portal_id
                             WHERE c.status_notice_id IS NULL AND c.opened_at IS NULL AND p.source <> 'management')",
                    )?
                    .exists([])?)
            })
            .await?;
        if nothing {
            return Ok(Vec::new());
        }
        self.transaction("refresh notices", move |tx| {
            let graph = PortalGraph::load(tx.sql)?;
            assign_failures(tx, &graph)?;
            assign_closed_lanes(tx)?;
            let stale: Vec<RemoteId> = tx
                .sql
                .prepare_cached(
                    "SELECT notice_id FROM status_notice WHERE stale = 1 ORDER BY updated_at",
                )?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut lanes = Vec::new();
            for notice_id in stale {
                lanes.extend(write(tx, &notice_id, render, now)?);
            }
            Ok(lanes)
        })
        .await
    }
}

/// Marks the status notice that reports this delivery, if one does, as stale.
pub(crate) fn mark_stale(tx: &Tx<'_>, delivery: DeliveryId) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE status_notice SET stale = 1
             WHERE notice_id = (SELECT status_notice_id FROM parked_delivery WHERE id = ?1)",
        )?
        .execute([delivery])?;
    Ok(())
}

/// The status notice whose first text this entry is.
pub(crate) fn of(tx: &Tx<'_>, entry: Option<EntryId>) -> Result<Option<RemoteId>, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT b.notice_id FROM journal j JOIN status_notice b ON b.notice_id = j.event_id
             WHERE j.id = ?1 AND j.place = ?2",
        )?
        .query_row(params![entry, notices::notice_place()], |row| row.get(0))
        .optional()?)
}

/// Assigns a status notice to every unreported failure: the last one of the place if it is recent.
fn assign_failures(tx: &Tx<'_>, graph: &PortalGraph) -> Result<(), TxError> {
    let untold: Vec<(DeliveryId, Place, Place, Millis)> = tx
        .sql
        .prepare_cached(
            "SELECT p.id, j.place, p.to_place, p.failed_at FROM parked_delivery p
             JOIN journal j ON j.id = p.entry_id WHERE p.unreported = 1 ORDER BY p.id",
        )?
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<_, _>>()?;
    for (delivery, origin, failed_to, failed_at) in untold {
        let status_notice = match graph.lane_back(&failed_to, &origin) {
            None => None,
            Some(lane) => {
                let notice_id = match recent(tx, lane, failed_at)? {
                    Some(notice_id) => notice_id,
                    None => RemoteId(format!("failed-{delivery}")),
                };
                upsert(tx, lane, "failure", &notice_id, failed_at)?;
                Some(notice_id)
            }
        };
        tx.sql
            .prepare_cached(
                "UPDATE parked_delivery SET unreported = 0, status_notice_id = ?2 WHERE id = ?1",
            )?
            .execute(params![delivery, status_notice])?;
    }
    Ok(())
}

fn recent(tx: &Tx<'_>, lane: LaneId, failed_at: Millis) -> Result<Option<RemoteId>, TxError> {
    let burst = i64::try_from(MERGE_WINDOW.as_millis()).unwrap_or(i64::MAX);
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT notice_id FROM status_notice WHERE portal_id = ?1 AND toward = ?2 AND topic = 'failure'
             AND updated_at >= ?3 ORDER BY updated_at DESC LIMIT 1",
        )?
        .query_row(
            params![lane.portal, lane.toward, failed_at.0.saturating_sub(burst)],
            |row| row.get(0),
        )
        .optional()?)
}

/// Assigns a status notice to every unreported closed lane, at the portal's other end. A management room has none, and a lane that
/// opened before anybody was notified needs no notice.
fn assign_closed_lanes(tx: &Tx<'_>) -> Result<(), TxError> {
    let untold: Vec<(LaneId, Millis)> = tx
        .sql
        .prepare_cached(
            "SELECT c.portal_id, c.toward, c.since FROM closed_lane c JOIN portal p ON p.id = c.portal_id
             WHERE c.status_notice_id IS NULL AND c.opened_at IS NULL AND p.source <> 'management'",
        )?
        .query_map([], |row| Ok((columns::lane(row)?, row.get("since")?)))?
        .collect::<Result<_, _>>()?;
    for (closed, since) in untold {
        let lane = LaneId {
            portal: closed.portal,
            toward: closed.toward.opposite(),
        };
        let notice_id = RemoteId(format!(
            "closed-{}-{}-{}",
            closed.portal,
            closed.toward.as_str(),
            since.0
        ));
        upsert(tx, lane, "closed-lane", &notice_id, since)?;
        tx.sql
            .prepare_cached(
                "UPDATE closed_lane SET status_notice_id = ?3 WHERE portal_id = ?1 AND toward = ?2",
            )?
            .execute(params![closed.portal, closed.toward, notice_id])?;
    }
    Ok(())
}

/// Adds a status notice without a text, or marks an existing one as stale.
fn upsert(
    tx: &Tx<'_>,
    lane: LaneId,
    topic: &str,
    notice_id: &RemoteId,
    at: Millis,
) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "INSERT INTO status_notice (notice_id, portal_id, toward, topic, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (notice_id) DO UPDATE SET stale = 1, updated_at = excluded.updated_at",
        )?
        .execute(params![notice_id, lane.portal, lane.toward, topic, at])?;
    Ok(())
}

/// Writes the status notice's next text and enqueues it.
fn write(
    tx: &Tx<'_>,
    notice_id: &RemoteId,
    render: RenderNotice,
    now: Millis,
) -> Result<Option<LaneId>, TxError> {
    let (lane, is_failure, has_text): (LaneId, bool, bool) = tx
        .sql
        .prepare_cached(
            "SELECT portal_id, toward, topic = 'failure', has_text FROM status_notice WHERE notice_id = ?1",
        )?
        .query_row([notice_id], |row| {
            Ok((columns::lane(row)?, row.get(2)?, row.get(3)?))
        })?;
    tx.sql
        .prepare_cached("UPDATE status_notice SET stale = 0, has_text = 1 WHERE notice_id = ?1")?
        .execute([notice_id])?;
    let replaces = has_text.then(|| notice_id.clone());
    let state = if is_failure {
        failures(tx, notice_id, lane.toward, replaces, now)?
    } else {
        closed(tx, notice_id, lane.toward, replaces, now)?
    };
    let Some(payload) = state.as_ref().and_then(render) else {
        return Ok(None);
    };
    let woken = if has_text {
        supersede(tx, notice_id)?;
        notices::edit_notice(tx, notice_id, &payload, now)?
    } else {
        notices::enqueue_notice(tx, lane, notice_id, &payload, now)?
    };
    if woken.is_some() {
        notices::mark_urgent(tx)?;
    }
    Ok(woken)
}

/// Ends the pending edits of this notice: the next one contains all of it.
fn supersede(tx: &Tx<'_>, notice_id: &RemoteId) -> Result<(), TxError> {
    let ids: Vec<DeliveryId> = tx
        .sql
        .prepare_cached(
            "SELECT o.id FROM journal j JOIN outbox o ON o.entry_id = j.id
             WHERE j.place = ?1 AND j.event_id GLOB ?2 AND o.steps_done = 0 AND o.outcome_unknown_since IS NULL",
        )?
        .query_map(params![notices::notice_place(), format!("{notice_id}.*")], |row| {
            row.get(0)
        })?
        .collect::<Result<_, _>>()?;
    for id in ids {
        if let Some(pending) = counters::pending(tx.sql, id)? {
            counters::settle(tx, &pending, DeliveryEnd::Skipped(SkipRule::Superseded))?;
        }
    }
    Ok(())
}

fn failures(
    tx: &Tx<'_>,
    status_notice: &RemoteId,
    shown_on: Side,
    replaces: Option<RemoteId>,
    at: Millis,
) -> Result<Option<StatusNotice>, TxError> {
    let count = |state: &str, retryable: &str| -> Result<u64, TxError> {
        Ok(tx
            .sql
            .prepare_cached(&format!(
                "SELECT count(*) FROM parked_delivery WHERE status_notice_id = ?1 AND state = ?2 {retryable}"
            ))?
            .query_row(params![status_notice, state], |row| row.get(0))?)
    };
    let (failed, retryable) = (count("failed", "")?, count("failed", "AND retryable = 1")?);
    let (retrying, delivered) = (count("retrying", "")?, count("delivered", "")?);
    let last = tx
        .sql
        .prepare_cached(
            "SELECT to_place, reason FROM parked_delivery WHERE status_notice_id = ?1
             ORDER BY state = 'failed' DESC, failed_at DESC, id DESC LIMIT 1",
        )?
        .query_row([status_notice], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((to, reason)) = last else {
        return Ok(None);
    };
    Ok(Some(StatusNotice {
        about: first_message(tx, status_notice)?.filter(|_| replaces.is_none()),
        replaces,
        shown_on,
        to,
        topic: StatusTopic::Failures {
            failed,
            retryable,
            retrying,
            delivered,
            reason,
        },
        at,
    }))
}

/// The first message that a notice reports, where its author sees it.
fn first_message(tx: &Tx<'_>, status_notice: &RemoteId) -> Result<Option<Copy>, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT l.remote_id, l.thread, l.sent_at FROM parked_delivery p
             JOIN journal j ON j.id = p.entry_id
             JOIN link l ON l.place = j.place AND l.remote_id = coalesce(p.target, j.event_id)
             WHERE p.status_notice_id = ?1 ORDER BY p.id LIMIT 1",
        )?
        .query_row([status_notice], |row| {
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
    tx: &Tx<'_>,
    status_notice: &RemoteId,
    shown_on: Side,
    replaces: Option<RemoteId>,
    at: Millis,
) -> Result<Option<StatusNotice>, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT c.reason, c.opened_at IS NOT NULL,
                    iif(c.toward = 'matrix', p.room_place, p.channel_place)
             FROM closed_lane c JOIN portal p ON p.id = c.portal_id WHERE c.status_notice_id = ?1",
        )?
        .query_row([status_notice], |row| {
            Ok(StatusNotice {
                replaces,
                shown_on,
                about: None,
                to: row.get(2)?,
                topic: StatusTopic::Closed {
                    reason: row.get(0)?,
                    open: row.get(1)?,
                },
                at,
            })
        })
        .optional()?)
}
