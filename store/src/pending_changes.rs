//! Edits and deletions of messages that are still pending: the lane finds them before it sends the message. Where an edit stays
//! in its room, it keeps the message there too.

use std::collections::HashSet;

use rusqlite::params;

use crate::{
    Arrival, Batch, Delivery, DeliveryId, EntryId, Error, LaneId, MessageRef, Millis, Place,
    RemoteId, SkipRule, Store, bundles,
    counters::{self, DeliveryEnd, PendingDelivery},
    database::{Tx, TxError},
    links, queue, redacted_edits, status_notices,
};

/// What an arrival edits or deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub place: Place,
    /// The arrival.
    pub event_id: RemoteId,
    /// The message that it edits or deletes; `None` for what can only remove a reaction.
    pub target: Option<RemoteId>,
    /// Whether it is a redaction, without a text.
    pub is_retraction: bool,
    /// Whether its author does not want its text to be relayed.
    pub stays: bool,
}

/// What a batch says about the order and the targets of its arrivals.
pub(crate) struct ArrivalContext<'a> {
    out_of_order: HashSet<(&'a Place, &'a RemoteId)>,
    changes: &'a [Change],
}

/// The same for one arrival.
#[derive(Clone, Copy)]
pub(crate) struct ArrivalFacts<'a> {
    /// When it was sent, if events that were sent after it were accepted before.
    pub out_of_order_at: Option<Millis>,
    /// What it edits or deletes.
    pub change: Option<&'a Change>,
}

impl<'a> ArrivalContext<'a> {
    pub fn of_batch(batch: &'a Batch) -> Self {
        let out_of_order = batch.late.iter().chain(&batch.out_of_order);
        Self {
            out_of_order: out_of_order
                .map(|(place, event_id)| (place, event_id))
                .collect(),
            changes: &batch.changes,
        }
    }

    pub fn of(&self, arrival: &Arrival) -> ArrivalFacts<'a> {
        let is_older = self
            .out_of_order
            .contains(&(&arrival.place, &arrival.event_id));
        let mut changes = self.changes.iter();
        ArrivalFacts {
            out_of_order_at: is_older.then_some(arrival.sent_at),
            change: changes.find(|change| {
                change.event_id == arrival.event_id && change.place == arrival.place
            }),
        }
    }
}

impl Store {
    /// The pending edits and deletions of a message in its lane, as far as they are decrypted, oldest first; of each, whether it
    /// was redacted itself.
    pub async fn pending_changes(
        &self,
        message: DeliveryId,
    ) -> Result<Vec<(DeliveryId, bool)>, Error> {
        self.read("look for pending changes of a message", move |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT c.id, EXISTS (
                         SELECT 1 FROM edit_event r
                         WHERE r.place = j.place AND r.event_id = j.event_id AND r.redacted = 1)
                     FROM outbox o
                     JOIN journal m ON m.id = o.entry_id
                     JOIN link l ON l.entry_id = m.id AND l.place = m.place
                     JOIN journal j ON j.place = m.place AND j.target = l.remote_id
                     JOIN outbox c ON c.entry_id = j.id
                     WHERE o.id = ?1 AND c.portal_id = o.portal_id AND c.toward = o.toward
                     AND c.to_place = o.to_place AND j.missing_session IS NULL ORDER BY c.id",
                )?
                .query_map([message], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// A pending delivery that is decrypted.
    pub async fn pending_delivery(
        &self,
        lane: LaneId,
        delivery: DeliveryId,
    ) -> Result<Option<Delivery>, Error> {
        self.read("read a pending delivery", move |tx| {
            queue::open_pending(tx, lane, delivery)
        })
        .await
    }
}

/// The room key of an edit arrived: its target is known now. Where the edit was not to leave its room, the pending deliveries of
/// the target stay there too.
pub(crate) fn note_decrypted_edit(
    tx: &Tx<'_>,
    edit: EntryId,
    target: &RemoteId,
    sent_at: Millis,
    now: Millis,
) -> Result<(), TxError> {
    let (place, event_id): (Place, RemoteId) = tx
        .sql
        .prepare_cached("SELECT place, event_id FROM journal WHERE id = ?1")?
        .query_row([edit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    note_target(tx, edit, target)?;
    redacted_edits::note_edit(tx, &place, &event_id, target, sent_at)?;
    let kept = tx
        .sql
        .prepare_cached("SELECT to_place, rule FROM skipped_delivery WHERE entry_id = ?1")?
        .query_map([edit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(Place, SkipRule)>, _>>()?;
    let message = MessageRef {
        place: &place,
        id: target,
    };
    for (to, rule) in kept {
        cancel_if_untried(tx, message, &to, rule, now)?;
    }
    Ok(())
}

/// This entry edits or redacts that message.
pub(crate) fn note_target(tx: &Tx<'_>, entry: EntryId, target: &RemoteId) -> Result<(), TxError> {
    tx.sql
        .prepare_cached("UPDATE journal SET target = ?2 WHERE id = ?1 AND payload IS NOT NULL")?
        .execute(params![entry, target])?;
    Ok(())
}

/// The author edited a message, and the new text is not relayed: neither is the old one, unless it may have been sent already.
pub(crate) fn cancel_if_untried(
    tx: &Tx<'_>,
    message: MessageRef<'_>,
    to: &Place,
    rule: SkipRule,
    now: Millis,
) -> Result<(), TxError> {
    const CANCEL_REASON: &str = "its author edited it before it could be relayed";
    let Some(entry) = links::entry_of(tx.sql, message.place, message.id)? else {
        return Ok(());
    };
    cancel_failed(
        tx,
        entry,
        Some(message),
        to,
        Cancelled::Texts,
        CANCEL_REASON,
    )?;
    let deliveries = counters::pending_of_entry(tx.sql, entry)?.into_iter();
    for pending in deliveries.filter(|pending| pending.to == *to) {
        let bundle_leader: DeliveryId = tx
            .sql
            .prepare_cached("SELECT coalesce(bundle_leader_id, id) FROM outbox WHERE id = ?1")?
            .query_row([pending.id], |row| row.get(0))?;
        if bundles::was_tried(tx, bundle_leader)? {
            continue;
        }
        let ending: [PendingDelivery; 1] = [pending];
        bundles::split_bundles_of(tx, &ending, now)?;
        for pending in &ending {
            counters::settle(tx, pending, DeliveryEnd::Skipped(rule))?;
        }
    }
    Ok(())
}

/// Which failed deliveries can no longer be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// Those of a message, of its edits, and of the redactions of those.
    All,
    /// Those with an older text. The redaction of an edit still deletes what contains that edit's text.
    Texts,
}

/// Where the delivery of a message, or of an edit of it, to a place failed, it can no longer be retried. Edits are found by the
/// id of the message in its own place (`edited`). Returns whether there was one.
pub(crate) fn cancel_failed(
    tx: &Tx<'_>,
    entry: EntryId,
    edited: Option<MessageRef<'_>>,
    to: &Place,
    which: Cancelled,
    why: &str,
) -> Result<bool, TxError> {
    let (place, target) = edited.map(|message| (message.place, message.id)).unzip();
    let ended: Vec<(DeliveryId, EntryId)> = tx
        .sql
        .prepare_cached(
            "UPDATE parked_delivery SET unreported = 0, retryable = 0, plan = NULL, reason = ?3
             WHERE to_place = ?2 AND retryable = 1 AND (entry_id = ?1 OR (
                 target = ?5 AND entry_id IN (
                     SELECT j.id FROM journal j WHERE j.place = ?4 AND (?6 OR j.place NOT LIKE 'matrix:%' OR EXISTS (
                         SELECT 1 FROM edit_event r WHERE r.place = j.place AND r.event_id = j.event_id)))))
             RETURNING id, entry_id",
        )?
        .query_map(
            params![entry, to, why, place, target, which == Cancelled::All],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .collect::<Result<_, _>>()?;
    for (id, entry) in &ended {
        counters::erase_payload_if_unneeded(tx, *entry)?;
        status_notices::mark_stale(tx, *id)?;
    }
    Ok(!ended.is_empty())
}
