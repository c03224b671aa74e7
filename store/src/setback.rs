//! A step that failed for now: when it is tried again, and what speaks against the message.

use std::time::Duration;

use rusqlite::params;

use crate::{
    DeliveryId, Error, LaneId, Millis, Store,
    database::{Desk, Fault},
    outbox::note,
    removal,
};

/// How a try failed, for now.
#[derive(Clone, Copy, Debug)]
pub struct Setback {
    /// When it failed.
    pub at: Millis,
    /// Not again before this moment.
    pub due: Millis,
    /// Whether the step certainly did not happen. That clears the doubt.
    pub sure: bool,
    /// The kind of the error: a short fixed word.
    pub kind: &'static str,
    /// Whether the answer looked like never and spoke against this message.
    pub rejected: bool,
    /// How much of the time since the last try speaks against this message.
    pub blamed: Duration,
}

impl Setback {
    /// A setback that speaks against nobody.
    #[must_use]
    pub fn of_nobody(at: Millis, due: Millis, sure: bool, kind: &'static str) -> Self {
        Self {
            at,
            due,
            sure,
            kind,
            rejected: false,
            blamed: Duration::ZERO,
        }
    }
}

impl Store {
    /// A try of the present step was not answered. Keeps the earliest such moment until the step is done.
    pub async fn unanswered(&self, delivery: DeliveryId, since: Millis) -> Result<(), Error> {
        self.transaction("mark a step as unanswered", move |desk| {
            mark_unanswered(desk, delivery, since)
        })
        .await
    }

    /// The only try of the present step so far was answered: it did not happen.
    pub async fn answered(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("note an answer", move |desk| {
            let rows = desk
                .sql
                .prepare_cached("UPDATE outbox SET unanswered_since = NULL WHERE id = ?1")?
                .execute([delivery])?;
            note(rows, delivery);
            Ok(())
        })
        .await
    }

    /// The side of this lane answers again: what was put off because it did not is due now. Answers whether anything was.
    pub async fn hurry(&self, lane: LaneId, now: Millis) -> Result<bool, Error> {
        self.transaction("make what was put off due", move |desk| {
            let rows = desk
                .sql
                .prepare_cached(
                    "UPDATE outbox SET due = ?3 WHERE portal_id = ?1 AND toward = ?2 AND due > ?3
                     AND trouble IN ('not-done', 'unknown', 'slowed')",
                )?
                .execute(params![lane.portal, lane.toward, now])?;
            Ok(rows > 0)
        })
        .await
    }

    /// The present step failed for now: one more attempt.
    pub async fn postponed(&self, delivery: DeliveryId, setback: Setback) -> Result<(), Error> {
        self.transaction("postpone a step", move |desk| {
            let blamed = i64::try_from(setback.blamed.as_millis()).unwrap_or(i64::MAX);
            let rows = desk
                .sql
                .prepare_cached(
                    "UPDATE outbox SET attempts = attempts + 1, tries = tries + 1, due = ?2,
                     unsure_since = iif(?3, NULL, unsure_since), tried_at = ?4, trouble = ?5,
                     rejections = rejections + ?6, blamed_ms = blamed_ms + ?7 WHERE id = ?1",
                )?
                .execute(params![
                    delivery,
                    setback.due,
                    setback.sure,
                    setback.at,
                    setback.kind,
                    setback.rejected,
                    blamed
                ])?;
            note(rows, delivery);
            if setback.sure {
                // If only its doubt kept it, it is not tried again.
                removal::end_without_path(desk, delivery)?;
            }
            Ok(())
        })
        .await
    }
}

/// A try of the present step was not answered: keeps the earliest such moment.
pub(crate) fn mark_unanswered(
    desk: &Desk<'_>,
    delivery: DeliveryId,
    since: Millis,
) -> Result<(), Fault> {
    let rows = desk
        .sql
        .prepare_cached(
            "UPDATE outbox SET unanswered_since = coalesce(unanswered_since, ?2) WHERE id = ?1",
        )?
        .execute(params![delivery, since])?;
    note(rows, delivery);
    Ok(())
}
