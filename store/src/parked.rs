//! Parked deliveries: they failed and can be retried. They count as failed, and as pending while they are retried, so that every
//! message is counted once.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    AccountId, DeliveryId, EntryId, Error, FailureNotice, LaneId, MessageRef, Millis, ParkedState,
    Place, RemoteId, Store,
    bundles::BundlePart,
    columns,
    counters::{self, DeliveryEnd, PendingDelivery},
    database::{Tx, TxError},
    edits, links, notices,
    pending_changes::{self, Cancelled},
    rewritten, status_notices,
};

/// How many failed deliveries of one lane can be retried; of older ones only the reason stays.
const MAX_PARKED: i64 = 1_000;
/// For how long.
const PARKED_FOR: Duration = Duration::from_hours(30 * 24);

/// A delivery that failed, and its state since.
#[derive(Clone, PartialEq, Eq)]
pub struct ParkedDelivery {
    /// Its id, before and after a retry.
    pub id: DeliveryId,
    /// What was to be delivered.
    pub entry: EntryId,
    /// The lane it failed in.
    pub lane: LaneId,
    /// Where it was to go.
    pub to: Place,
    /// Its state now.
    pub state: ParkedState,
    /// Whether its payload is still there, so that it can be retried.
    pub retryable: bool,
    /// Whether its present step may have happened.
    pub outcome_unknown: bool,
    /// Whether it edits the message that was asked for, or redacts an edit of it.
    pub is_edit: bool,
    /// Its transaction key.
    pub key: String,
    /// The bundle that it was last sent with, perhaps.
    pub bundle: Option<BundlePart>,
    /// The personal account that was to send it; `None`: the relay.
    pub sender: Option<AccountId>,
    /// Steps of its plan that are done.
    pub steps_done: u32,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// The neutral message, decrypted; while it can be retried.
    pub payload: Option<Vec<u8>>,
}

impl std::fmt::Debug for ParkedDelivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParkedDelivery")
            .field("id", &self.id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Why a delivery failed.
pub(crate) struct FailureReason<'a> {
    pub kind: &'a str,
    pub reason: &'a str,
    pub about: Option<&'a RemoteId>,
    /// The bundle that the delivery was sent with, perhaps.
    pub bundle: Option<&'a BundlePart>,
}

impl Store {
    /// The failed deliveries that a message of `place` stands for: its own, those that it reports if it is a notice, or, for the
    /// root of a thread, those of the thread.
    pub async fn parked_deliveries_of(
        &self,
        place: &Place,
        remote: &RemoteId,
    ) -> Result<Vec<ParkedDelivery>, Error> {
        let (place, remote) = (place.clone(), remote.clone());
        self.read("read the failures of a message", move |tx| {
            let entry = links::entry_of(tx.sql, &place, &remote)?;
            let status_notice = status_notices::of(tx, entry)?;
            let mut found: Vec<ParkedDelivery> = tx
                .sql
                .prepare_cached(
                    "SELECT id, portal_id, toward, to_place, state, retryable, entry_id, outcome_unknown, transaction_key,
                         bundle_key, bundle_slot, steps_done, accepted_at, sender_id,
                         target IS ?2 AND entry_id IN (SELECT id FROM journal WHERE place = ?3) AS is_edit
                     FROM parked_delivery
                     WHERE entry_id = ?1 OR status_notice_id = ?4 OR target = ?2
                     OR entry_id IN (SELECT entry_id FROM link WHERE place = ?3 AND thread = ?2)
                     ORDER BY id",
                )?
                .query_map(params![entry, remote, place, status_notice], parked_from_row)?
                .collect::<Result<_, _>>()?;
            for parked in &mut found {
                if parked.retryable {
                    parked.payload = rewritten::payload(tx, parked.entry, &parked.to)?;
                }
            }
            Ok(found)
        })
        .await
    }

    /// Enqueues failed deliveries again, with their transaction keys and plans, where they can be retried: failed becomes
    /// pending. Others stay as they are, so a second call does no harm. Returns the lanes to wake.
    pub async fn retry_parked(&self, deliveries: &[DeliveryId]) -> Result<Vec<LaneId>, Error> {
        let deliveries = deliveries.to_vec();
        self.transaction("retry failed deliveries", move |tx| {
            let mut lanes = Vec::new();
            for id in &deliveries {
                lanes.extend(unpark(tx, *id)?);
            }
            Ok(lanes)
        })
        .await
    }

    /// The message that `from` calls `target` was edited or deleted, for this reason. If its delivery to `to` failed, or that of
    /// an edit of it, it can no longer be retried. Returns whether that was so.
    pub async fn cancel_failed_delivery(
        &self,
        from: &Place,
        target: &RemoteId,
        to: &Place,
        which: Cancelled,
        why: &'static str,
    ) -> Result<bool, Error> {
        let (from, target, to) = (from.clone(), target.clone(), to.clone());
        self.transaction("cancel a failed delivery", move |tx| {
            let Some(entry) = links::entry_of(tx.sql, &from, &target)? else {
                return Ok(false);
            };
            let message = MessageRef {
                place: &from,
                id: &target,
            };
            pending_changes::cancel_failed(tx, entry, Some(message), &to, which, why)
        })
        .await
    }

    /// Erases the payloads of failures that are too old to be retried.
    pub async fn expire_parked(&self, now: Millis) -> Result<(), Error> {
        self.transaction("forget old failures", move |tx| {
            let old = retryable(tx, "failed_at < ?1", [earliest(now)])?;
            erase(tx, &old)
        })
        .await
    }

    /// Ends as failed all deliveries of a closed lane that are pending since `before` or longer. Deliveries whose outcome is
    /// unknown, or that wait for a room key, stay. `edited` returns the message that a payload edits. Returns how many ended.
    pub async fn park_overdue(
        &self,
        lane: LaneId,
        before: Millis,
        reason: &str,
        edited: fn(&[u8]) -> Option<RemoteId>,
        now: Millis,
    ) -> Result<usize, Error> {
        let reason = reason.to_owned();
        self.transaction("park the overdue deliveries of a closed lane", move |tx| {
            let deliveries: Vec<PendingDelivery> = tx
                .sql
                .prepare_cached(
                    "SELECT o.id, o.entry_id, o.portal_id, o.toward, o.to_place, o.from_place
                     FROM outbox o JOIN journal j ON j.id = o.entry_id
                     WHERE o.portal_id = ?1 AND o.toward = ?2 AND o.accepted_at <= ?3
                     AND o.outcome_unknown_since IS NULL AND j.missing_session IS NULL
                     AND NOT EXISTS (
                         -- Messages that went together, perhaps: tried again each would go by itself.
                         SELECT 1 FROM outbox l WHERE l.id = coalesce(o.bundle_leader_id, o.id)
                         AND l.bundle_slot IS NOT NULL AND l.unanswered_since IS NOT NULL
                     ) ORDER BY o.id",
                )?
                .query_map(
                    params![lane.portal, lane.toward, before],
                    counters::pending_from_row,
                )?
                .collect::<Result<_, _>>()?;
            for pending in &deliveries {
                // Where that message is deleted, its edits are not retried.
                let about = edits::edited_message(tx, pending, edited)?;
                let failure = FailureReason {
                    kind: "closed",
                    reason: &reason,
                    about: about.as_ref(),
                    bundle: None,
                };
                let notice = if notices::is_notice(tx, pending.entry)? {
                    FailureNotice::None
                } else {
                    FailureNotice::ToSender
                };
                park(tx, pending, &failure, notice, now)?;
            }
            Ok(deliveries.len())
        })
        .await
    }
}

fn parked_from_row(row: &Row<'_>) -> rusqlite::Result<ParkedDelivery> {
    Ok(ParkedDelivery {
        id: row.get("id")?,
        entry: row.get("entry_id")?,
        lane: columns::lane(row)?,
        to: row.get("to_place")?,
        state: ParkedState::from_str(&row.get::<_, String>("state")?),
        retryable: row.get("retryable")?,
        outcome_unknown: row.get("outcome_unknown")?,
        is_edit: row.get("is_edit")?,
        key: row.get("transaction_key")?,
        bundle: match (row.get("bundle_key")?, row.get("bundle_slot")?) {
            (Some(key), Some(slot)) => Some(BundlePart { key, slot }),
            _ => None,
        },
        sender: row.get("sender_id")?,
        steps_done: row.get("steps_done")?,
        accepted_at: row.get("accepted_at")?,
        payload: None,
    })
}

/// Ends a delivery as failed and keeps what a retry needs.
pub(crate) fn park(
    tx: &Tx<'_>,
    pending: &PendingDelivery,
    failure: &FailureReason<'_>,
    notice: FailureNotice,
    now: Millis,
) -> Result<(), TxError> {
    let keep = notice == FailureNotice::ToSender;
    upsert(tx, pending, failure, keep, now)?;
    counters::settle(tx, pending, DeliveryEnd::Failed)?;
    prune(tx, pending.lane, now)
}

/// Writes why a delivery fails that cannot be retried.
pub(crate) fn record_failure(
    tx: &Tx<'_>,
    pending: &PendingDelivery,
    reason: &str,
    now: Millis,
) -> Result<(), TxError> {
    let failure = FailureReason {
        kind: "given-up",
        reason,
        about: None,
        bundle: None,
    };
    upsert(tx, pending, &failure, false, now)
}

// A row that exists already was retried and failed again: its notice is edited, and no new one is sent.
fn upsert(
    tx: &Tx<'_>,
    pending: &PendingDelivery,
    failure: &FailureReason<'_>,
    keep: bool,
    now: Millis,
) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "INSERT INTO parked_delivery (id, entry_id, portal_id, toward, to_place, transaction_key, plan, steps_done,
                 accepted_at, from_place, total_attempts, failed_at, error_kind, reason, target,
                 outcome_unknown, state, retryable, unreported, bundle_key, bundle_slot, sender_id)
             SELECT id, entry_id, portal_id, toward, to_place, transaction_key,
                 iif(?6 AND steps_done > 0, plan, NULL), steps_done, accepted_at, from_place, total_attempts + 1,
                 ?2, ?3, ?4, ?5,
                 ?7 IS NULL AND (?3 IN ('unknown', 'unlinked') OR (?3 = 'closed' AND outcome_unknown_since IS NOT NULL)
                     -- A lane that starts marks its head, which may not have been attempted.
                     OR (unanswered_since IS NOT NULL AND (?3 = 'closed' OR total_attempts > 0))),
                 'failed', ?6, ?6, ?7, ?8, sender_id
             FROM outbox WHERE id = ?1
             ON CONFLICT (id) DO UPDATE SET from_place = excluded.from_place, plan = excluded.plan, sender_id = excluded.sender_id,
                 transaction_key = excluded.transaction_key, bundle_key = coalesce(excluded.bundle_key, bundle_key),
                 bundle_slot = coalesce(excluded.bundle_slot, bundle_slot), -- What may be there still may after a retry.
                 steps_done = excluded.steps_done, total_attempts = excluded.total_attempts, failed_at = excluded.failed_at,
                 error_kind = excluded.error_kind, reason = excluded.reason, outcome_unknown = excluded.outcome_unknown
                     OR (parked_delivery.outcome_unknown AND parked_delivery.steps_done = excluded.steps_done),
                 state = 'failed', retryable = excluded.retryable, unreported = iif(parked_delivery.status_notice_id IS NULL, excluded.unreported, 0)",
        )?
        .execute(params![
            pending.id,
            now,
            failure.kind,
            columns::truncate_reason(failure.reason),
            failure.about,
            keep,
            failure.bundle.map(|bundle| &bundle.key),
            failure.bundle.map(|bundle| bundle.slot)
        ])?;
    status_notices::mark_stale(tx, pending.id)
}

/// A delivery ends: if it had failed before, that is its state now.
pub(crate) fn record_end(
    tx: &Tx<'_>,
    pending: &PendingDelivery,
    end: DeliveryEnd,
) -> Result<(), TxError> {
    let state = match end {
        DeliveryEnd::Failed => return Ok(()),
        DeliveryEnd::Delivered => "delivered",
        DeliveryEnd::Skipped(_) => "skipped",
    };
    let rows = tx
        .sql
        .prepare_cached("UPDATE parked_delivery SET state = ?2 WHERE id = ?1")?
        .execute(params![pending.id, state])?;
    if rows > 0 {
        status_notices::mark_stale(tx, pending.id)?;
    }
    Ok(())
}

fn unpark(tx: &Tx<'_>, id: DeliveryId) -> Result<Option<LaneId>, TxError> {
    let lane = tx
        .sql
        .prepare_cached(
            "SELECT p.portal_id, p.toward FROM parked_delivery p JOIN portal o ON o.id = p.portal_id
             WHERE p.id = ?1 AND p.retryable = 1 AND o.active = 1",
        )?
        .query_row([id], columns::lane)
        .optional()?;
    let Some(lane) = lane else {
        return Ok(None);
    };
    // Later deliveries have passed it, so it is late, and it is the first now. A later step, an edit, and what ended in a closed
    // place are looked for first. Where nobody can know the outcome, a person has decided to send it again.
    tx.sql
        .prepare_cached(
            "INSERT INTO outbox (id, entry_id, portal_id, toward, to_place, transaction_key, plan, steps_done,
                 accepted_at, from_place, sender_id, late, total_attempts, unanswered_since)
             SELECT id, entry_id, portal_id, toward, to_place, transaction_key, plan, steps_done, accepted_at, from_place,
                 sender_id, 1, total_attempts, iif(outcome_unknown = 1 AND (error_kind = 'closed' OR (error_kind NOT IN ('unknown', 'unlinked')
                     AND (steps_done > 0 OR target IS NOT NULL))), accepted_at, NULL)
             FROM parked_delivery WHERE id = ?1",
        )?
        .execute([id])?;
    tx.sql
        .prepare_cached("UPDATE parked_delivery SET state = 'retrying', retryable = 0, plan = NULL WHERE id = ?1")?
        .execute([id])?;
    counters::count(
        tx.sql,
        lane,
        "UPDATE lane_counter SET failed = failed - 1 WHERE portal_id = ?1 AND toward = ?2",
    )?;
    status_notices::mark_stale(tx, id)?;
    Ok(Some(lane))
}

fn earliest(now: Millis) -> Millis {
    let kept_for = i64::try_from(PARKED_FOR.as_millis()).unwrap_or(i64::MAX);
    Millis(now.0.saturating_sub(kept_for))
}

/// Erases the payloads of the oldest failures of a lane where there are too many, and of all that are too old.
fn prune(tx: &Tx<'_>, lane: LaneId, now: Millis) -> Result<(), TxError> {
    let old = retryable(tx, "failed_at < ?1", [earliest(now)])?;
    erase(tx, &old)?;
    let surplus = retryable(
        tx,
        "portal_id = ?1 AND toward = ?2 ORDER BY failed_at DESC, id DESC LIMIT -1 OFFSET ?3",
        params![lane.portal, lane.toward, MAX_PARKED],
    )?;
    erase(tx, &surplus)
}

/// The failures of a lane from a place up to an entry can no longer be retried: portal, direction, place, entry.
pub(crate) fn erase_retryable_until(
    tx: &Tx<'_>,
    theirs: impl rusqlite::Params,
) -> Result<(), TxError> {
    const THEIRS: &str = "portal_id = ?1 AND toward = ?2 AND from_place = ?3 AND entry_id <= ?4";
    erase(tx, &retryable(tx, THEIRS, theirs)?)
}

/// The failures that can be retried and match a condition.
fn retryable(
    tx: &Tx<'_>,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<(DeliveryId, EntryId)>, TxError> {
    Ok(tx
        .sql
        .prepare_cached(&format!(
            "SELECT id, entry_id FROM parked_delivery WHERE retryable = 1 AND {condition}"
        ))?
        .query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?)
}

fn erase(tx: &Tx<'_>, ids: &[(DeliveryId, EntryId)]) -> Result<(), TxError> {
    for (id, entry) in ids {
        tx.sql
            .prepare_cached("UPDATE parked_delivery SET retryable = 0, plan = NULL WHERE id = ?1")?
            .execute([id])?;
        counters::erase_payload_if_unneeded(tx, *entry)?;
    }
    Ok(())
}

/// How many failures of a lane can be retried, and the kind of its last one.
pub(crate) fn count(
    sql: &rusqlite::Connection,
    lane: LaneId,
) -> Result<(u64, Option<String>), TxError> {
    let retryable = sql
        .prepare_cached(
            "SELECT count(*) FROM parked_delivery WHERE portal_id = ?1 AND toward = ?2 AND retryable = 1",
        )?
        .query_row(params![lane.portal, lane.toward], |row| row.get(0))?;
    let kind = sql
        .prepare_cached(
            "SELECT error_kind FROM parked_delivery WHERE portal_id = ?1 AND toward = ?2 AND state = 'failed'
             ORDER BY failed_at DESC, id DESC LIMIT 1",
        )?
        .query_row(params![lane.portal, lane.toward], |row| row.get(0))
        .optional()?;
    Ok((retryable, kind))
}
