//! Closed lanes: lanes whose place denies access to the bridge, since when, why, and whether it grants access again.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use crate::{Error, LaneId, Millis, Store, columns, database::TxError};

/// A place that closes again within this time is the same incident: its notice is edited, and no new one is sent.
const REOPEN_WINDOW: Duration = Duration::from_hours(1);

/// A lane that cannot write into its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedLane {
    /// The lane.
    pub lane: LaneId,
    /// Since when.
    pub since: Millis,
    /// The network's answer; one sentence.
    pub reason: String,
}

impl Store {
    /// The lane's place denies access. Returns since when.
    pub async fn close_lane(
        &self,
        lane: LaneId,
        reason: &str,
        now: Millis,
    ) -> Result<Millis, Error> {
        let reason = columns::truncate_reason(reason);
        self.transaction("close a lane", move |tx| {
            let affair = i64::try_from(REOPEN_WINDOW.as_millis()).unwrap_or(i64::MAX);
            // A notice that says "open" is outdated now; one that says "closed" is not.
            tx.sql
                .prepare_cached(
                    "UPDATE status_notice SET stale = 1 WHERE notice_id = (SELECT status_notice_id FROM closed_lane
                     WHERE portal_id = ?1 AND toward = ?2 AND opened_at >= ?3)",
                )?
                .execute(params![
                    lane.portal,
                    lane.toward,
                    now.0.saturating_sub(affair)
                ])?;
            let since = tx
                .sql
                .prepare_cached(
                    "INSERT INTO closed_lane (portal_id, toward, since, reason) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (portal_id, toward) DO UPDATE SET
                         since = iif(closed_lane.opened_at IS NULL, closed_lane.since, excluded.since),
                         status_notice_id = iif(closed_lane.opened_at < ?5, NULL, closed_lane.status_notice_id),
                         reason = excluded.reason, opened_at = NULL
                     RETURNING since",
                )?
                .query_row(
                    params![
                        lane.portal,
                        lane.toward,
                        now,
                        reason,
                        now.0.saturating_sub(affair)
                    ],
                    |row| row.get(0),
                )?;
            Ok(since)
        })
        .await
    }

    /// The lane's place grants access again: deliveries that were postponed because it did not are due now.
    pub async fn open_lane(&self, lane: LaneId, now: Millis) -> Result<(), Error> {
        self.transaction("open a lane", move |tx| {
            tx.sql
                .prepare_cached(
                    "UPDATE status_notice SET stale = 1 WHERE notice_id = (SELECT status_notice_id FROM closed_lane
                     WHERE portal_id = ?1 AND toward = ?2 AND opened_at IS NULL)",
                )?
                .execute(params![lane.portal, lane.toward])?;
            tx.sql
                .prepare_cached(
                    "UPDATE closed_lane SET opened_at = ?3
                     WHERE portal_id = ?1 AND toward = ?2 AND opened_at IS NULL",
                )?
                .execute(params![lane.portal, lane.toward, now])?;
            tx.sql
                .prepare_cached(
                    "UPDATE outbox SET retry_at = ?3
                     WHERE portal_id = ?1 AND toward = ?2 AND retry_at > ?3 AND last_error = 'closed'",
                )?
                .execute(params![lane.portal, lane.toward, now])?;
            Ok(())
        })
        .await
    }

    /// Whether the lane's place denied access at the last attempt.
    pub async fn is_closed(&self, lane: LaneId) -> Result<bool, Error> {
        self.read("look whether a lane is closed", move |tx| {
            Ok(of(tx.sql, lane)?.is_some())
        })
        .await
    }
}

/// What is known of a closed lane.
pub(crate) fn of(sql: &rusqlite::Connection, lane: LaneId) -> Result<Option<ClosedLane>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT portal_id, toward, since, reason FROM closed_lane
             WHERE portal_id = ?1 AND toward = ?2 AND opened_at IS NULL",
        )?
        .query_row(params![lane.portal, lane.toward], |row| {
            Ok(ClosedLane {
                lane: columns::lane(row)?,
                since: row.get("since")?,
                reason: row.get("reason")?,
            })
        })
        .optional()?)
}
