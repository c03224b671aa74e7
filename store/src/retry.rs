//! A step that failed temporarily: when it is retried, and whether the message is to blame.

use std::time::Duration;

use rusqlite::params;

use crate::{
    DeliveryId, Error, LaneId, Millis, Store,
    database::{Tx, TxError},
    outbox::log_if_settled,
    removal,
};

/// How an attempt failed temporarily.
#[derive(Clone, Copy, Debug)]
pub struct RetryDecision {
    /// When it failed.
    pub at: Millis,
    /// Not again before this moment.
    pub retry_at: Millis,
    /// Whether the step certainly did not happen. Then its outcome is known.
    pub not_done: bool,
    /// The kind of the error: a short fixed word.
    pub kind: &'static str,
    /// Whether the error was permanent and concerns this message alone.
    pub rejected: bool,
    /// How much of the time since the last attempt counts against this message.
    pub blame: Duration,
}

impl RetryDecision {
    /// A failed attempt for which the message is not to blame.
    #[must_use]
    pub fn without_blame(at: Millis, retry_at: Millis, not_done: bool, kind: &'static str) -> Self {
        Self {
            at,
            retry_at,
            not_done,
            kind,
            rejected: false,
            blame: Duration::ZERO,
        }
    }
}

impl Store {
    /// An attempt of the present step got no answer. Keeps the earliest such moment until the step is done.
    pub async fn mark_unanswered(&self, delivery: DeliveryId, since: Millis) -> Result<(), Error> {
        self.transaction("mark a step as unanswered", move |tx| {
            mark_unanswered(tx, delivery, since)
        })
        .await
    }

    /// The only attempt of the present step so far got an answer: it did not happen.
    pub async fn mark_answered(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("note an answer", move |tx| {
            let rows = tx
                .sql
                .prepare_cached("UPDATE outbox SET unanswered_since = NULL WHERE id = ?1")?
                .execute([delivery])?;
            log_if_settled(rows, delivery);
            Ok(())
        })
        .await
    }

    /// The side of this lane answers again: deliveries that were postponed because it did not are due now. Returns whether there
    /// were any.
    pub async fn retry_now(&self, lane: LaneId, now: Millis) -> Result<bool, Error> {
        self.transaction("make postponed deliveries due", move |tx| {
            let rows = tx
                .sql
                .prepare_cached(
                    "UPDATE outbox SET retry_at = ?3 WHERE portal_id = ?1 AND toward = ?2 AND retry_at > ?3
                     AND last_error IN ('not-done', 'unknown', 'slowed')",
                )?
                .execute(params![lane.portal, lane.toward, now])?;
            Ok(rows > 0)
        })
        .await
    }

    /// The present step failed temporarily: one more attempt.
    pub async fn postpone(
        &self,
        delivery: DeliveryId,
        decision: RetryDecision,
    ) -> Result<(), Error> {
        self.transaction("postpone a step", move |tx| {
            let blame = i64::try_from(decision.blame.as_millis()).unwrap_or(i64::MAX);
            let rows = tx
                .sql
                .prepare_cached(
                    "UPDATE outbox SET attempts = attempts + 1, total_attempts = total_attempts + 1, retry_at = ?2,
                     outcome_unknown_since = iif(?3, NULL, outcome_unknown_since), last_attempt_at = ?4, last_error = ?5,
                     rejections = rejections + ?6, blame_ms = blame_ms + ?7 WHERE id = ?1",
                )?
                .execute(params![
                    delivery,
                    decision.retry_at,
                    decision.not_done,
                    decision.at,
                    decision.kind,
                    decision.rejected,
                    blame
                ])?;
            log_if_settled(rows, delivery);
            if decision.not_done {
                // If the delivery stayed only because its outcome was unknown, it is not retried.
                removal::end_if_no_route(tx, delivery)?;
            }
            Ok(())
        })
        .await
    }
}

/// An attempt of the present step got no answer: keeps the earliest such moment.
pub(crate) fn mark_unanswered(
    tx: &Tx<'_>,
    delivery: DeliveryId,
    since: Millis,
) -> Result<(), TxError> {
    let rows = tx
        .sql
        .prepare_cached(
            "UPDATE outbox SET unanswered_since = coalesce(unanswered_since, ?2) WHERE id = ?1",
        )?
        .execute(params![delivery, since])?;
    log_if_settled(rows, delivery);
    Ok(())
}
