//! Lanes whose place does not let us in: since when, why, and whether it does again.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use crate::{Error, LaneId, Millis, Store, columns, database::Fault};

/// A place that closes again within this time is the same affair: its notice changes, no new one is made.
const SAME_AFFAIR: Duration = Duration::from_hours(1);

/// A lane that cannot write into its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The lane.
    pub lane: LaneId,
    /// Since when.
    pub since: Millis,
    /// What the other side answered; one sentence.
    pub reason: String,
}

impl Store {
    /// The lane's place does not let us in. Answers since when.
    pub async fn close_lane(
        &self,
        lane: LaneId,
        reason: &str,
        now: Millis,
    ) -> Result<Millis, Error> {
        let reason = columns::sentence(reason);
        self.transaction("note that a place is closed", move |desk| {
            let affair = i64::try_from(SAME_AFFAIR.as_millis()).unwrap_or(i64::MAX);
            // A notice that says "open" is wrong now; one that says "closed" is as right as before.
            desk.sql
                .prepare_cached(
                    "UPDATE bulletin SET stale = 1 WHERE fact = (SELECT bulletin FROM closed
                     WHERE portal_id = ?1 AND toward = ?2 AND opened_at >= ?3)",
                )?
                .execute(params![
                    lane.portal,
                    lane.toward,
                    now.0.saturating_sub(affair)
                ])?;
            let since = desk
                .sql
                .prepare_cached(
                    "INSERT INTO closed (portal_id, toward, since, reason) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (portal_id, toward) DO UPDATE SET
                         since = iif(closed.opened_at IS NULL, closed.since, excluded.since),
                         bulletin = iif(closed.opened_at < ?5, NULL, closed.bulletin),
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

    /// The lane's place lets us in again: what was put off because it did not is due now.
    pub async fn open_lane(&self, lane: LaneId, now: Millis) -> Result<(), Error> {
        self.transaction("note that a place is open", move |desk| {
            desk.sql
                .prepare_cached(
                    "UPDATE bulletin SET stale = 1 WHERE fact = (SELECT bulletin FROM closed
                     WHERE portal_id = ?1 AND toward = ?2 AND opened_at IS NULL)",
                )?
                .execute(params![lane.portal, lane.toward])?;
            desk.sql
                .prepare_cached(
                    "UPDATE closed SET opened_at = ?3
                     WHERE portal_id = ?1 AND toward = ?2 AND opened_at IS NULL",
                )?
                .execute(params![lane.portal, lane.toward, now])?;
            desk.sql
                .prepare_cached(
                    "UPDATE outbox SET due = ?3
                     WHERE portal_id = ?1 AND toward = ?2 AND due > ?3 AND trouble = 'closed'",
                )?
                .execute(params![lane.portal, lane.toward, now])?;
            Ok(())
        })
        .await
    }

    /// Whether the lane's place did not let us in when we last tried.
    pub async fn is_closed(&self, lane: LaneId) -> Result<bool, Error> {
        self.read("look whether a place is closed", move |desk| {
            Ok(of(desk.sql, lane)?.is_some())
        })
        .await
    }
}

/// What is known of a lane that is closed.
pub(crate) fn of(sql: &rusqlite::Connection, lane: LaneId) -> Result<Option<Closed>, Fault> {
    Ok(sql
        .prepare_cached(
            "SELECT portal_id, toward, since, reason FROM closed
             WHERE portal_id = ?1 AND toward = ?2 AND opened_at IS NULL",
        )?
        .query_row(params![lane.portal, lane.toward], |row| {
            Ok(Closed {
                lane: columns::lane(row)?,
                since: row.get("since")?,
                reason: row.get("reason")?,
            })
        })
        .optional()?)
}
