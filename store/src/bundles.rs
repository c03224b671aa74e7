//! Bundles: several deliveries of one lane that one message carries. They are bundled before the first attempt and settled
//! together.

use std::collections::{BTreeSet, HashSet};

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, Delivery, DeliveryId, EntryId, Error, FailureNotice, LaneId, Millis, Place, RemoteId,
    SkipRule, Store,
    counters::{self, DeliveryEnd, PendingDelivery},
    database::{Tx, TxError},
    edits, links, outbox, parked, queue, redacted_edits, rewritten, senders,
};

/// Deliveries that one message will carry.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The plan of the first of them, which sends the message.
    pub plan: Vec<u8>,
    /// All of them in the order of their positions in the message, the first included.
    pub members: Vec<DeliveryId>,
    /// What pending edits make of some of them: the plan has the edited text.
    pub merged: Vec<MergedMessage>,
    /// Deliveries that are settled when the bundle is made, each as skipped by a rule: edits that the plan includes, and redacted
    /// edits.
    pub included: Vec<(DeliveryId, SkipRule)>,
}

/// A message that was not attempted yet, with the pending edits that wait behind it.
#[derive(Clone, PartialEq, Eq)]
pub struct MergedMessage {
    /// The message.
    pub message: DeliveryId,
    /// The edits that it includes, oldest first, each with the message's payload as of that edit.
    pub edits: Vec<(DeliveryId, Vec<u8>)>,
}

impl std::fmt::Debug for MergedMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MergedMessage")
            .field("message", &self.message)
            .field("edits", &self.edits.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The deliveries of a lane from this one on, at most `limit`, as far as they can be decrypted: in the order of the lane, up
    /// to the first at which the lane waits, without those that are on hold, or that wait for a room key and let others pass.
    pub async fn lookahead(
        &self,
        lane: LaneId,
        from: DeliveryId,
        limit: usize,
        now: Millis,
    ) -> Result<Vec<Delivery>, Error> {
        self.read("read the queue of a lane", move |tx| {
            queue::lookahead(tx, lane, from, limit, now)
        })
        .await
    }

    /// Bundles deliveries before the first attempt. Returns whether all of them were still pending and none of the included edits
    /// was redacted meanwhile; otherwise nothing changes.
    pub async fn create_bundle(&self, bundle: Bundle) -> Result<bool, Error> {
        self.transaction("create a bundle", move |tx| {
            let (Some(bundle_leader), included) =
                (bundle.members.first().copied(), &bundle.included)
            else {
                return Ok(false);
            };
            for id in bundle
                .members
                .iter()
                .chain(included.iter().map(|(id, _)| id))
            {
                if counters::pending(tx.sql, *id)?.is_none() {
                    return Ok(false);
                }
            }
            if !all_unchanged(tx, &bundle.merged)? {
                return Ok(false);
            }
            // If the bundle is split later, each delivery still has the text that the plan has.
            for merged in &bundle.merged {
                write_merged(tx, merged)?;
            }
            outbox::write_plan(tx, bundle_leader, &bundle.plan)?;
            for (slot, id) in (0_u32..).zip(&bundle.members) {
                tx.sql
                    .prepare_cached(
                        "UPDATE outbox SET bundle_leader_id = ?2, bundle_slot = ?3 WHERE id = ?1",
                    )?
                    .execute(params![
                        id,
                        (*id != bundle_leader).then_some(bundle_leader),
                        slot
                    ])?;
            }
            skip_included(tx, included)?;
            Ok(true)
        })
        .await
    }

    /// Whether a message in the place of this delivery is known as another message than the one that the delivery would create.
    pub async fn is_copy_of_another(
        &self,
        delivery: DeliveryId,
        remote: &RemoteId,
    ) -> Result<bool, Error> {
        let remote = remote.clone();
        self.read("look whether an id is known", move |tx| {
            is_copy_of_another(tx, delivery, &remote)
        })
        .await
    }

    /// The bundled message certainly does not exist: the network rejected it as a whole, or it was looked for, or never
    /// attempted, and part of it may no longer be sent. Each delivery is attempted by itself, and none is bundled again.
    pub async fn split_bundle(&self, bundle_leader: DeliveryId) -> Result<(), Error> {
        self.transaction("split a bundle", move |tx| split_bundle(tx, bundle_leader))
            .await
    }

    /// Writes the new payload of a message that was not attempted yet, and settles the edits that it includes and the redacted
    /// ones. Returns whether the message was still pending and none of its edits was redacted meanwhile; otherwise nothing
    /// changes.
    pub async fn include_edits(
        &self,
        merged: MergedMessage,
        included: Vec<(DeliveryId, SkipRule)>,
    ) -> Result<bool, Error> {
        self.transaction("include edits in a message", move |tx| {
            if !all_unchanged(tx, std::slice::from_ref(&merged))? {
                return Ok(false);
            }
            write_merged(tx, &merged)?;
            skip_included(tx, &included)?;
            Ok(true)
        })
        .await
    }

    /// The present step removed the part `slot` from a bundled message, by the event `by` that replaces its text. Settles like
    /// [`Store::complete_step`].
    pub async fn complete_part_removal(
        &self,
        delivery: DeliveryId,
        remote: &RemoteId,
        slot: u32,
        by: &Copy,
        last: bool,
    ) -> Result<(), Error> {
        let (remote, by) = (remote.clone(), by.clone());
        self.transaction("settle the removal of a part", move |tx| {
            let Some(pending) = counters::pending(tx.sql, delivery)? else {
                return Ok(());
            };
            let home = links::entry_of(tx.sql, &pending.to, &remote)?.unwrap_or(pending.entry);
            let text_of = Some(pending.entry);
            links::link_created(tx.sql, home, text_of, &pending.to, &by, Some(&remote))?;
            tx.sql
                .prepare_cached(
                    "UPDATE link SET deleted = 1 WHERE place = ?1 AND remote_id = ?2 AND bundle_slot = ?3",
                )?
                .execute(params![pending.to, remote, slot])?;
            outbox::advance_plan(tx, &pending, last)
        })
        .await
    }
}

pub(crate) fn split_bundle(tx: &Tx<'_>, bundle_leader: DeliveryId) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE outbox SET bundle_leader_id = NULL, bundle_slot = NULL, attempts = attempts + 1,
             unanswered_since = NULL, plan = iif(id = ?1, NULL, plan) WHERE id = ?1 OR bundle_leader_id = ?1",
        )?
        .execute([bundle_leader])?;
    tx.mark_erased();
    Ok(())
}

/// Whether the present step of a delivery may have happened.
pub(crate) fn was_tried(tx: &Tx<'_>, delivery: DeliveryId) -> Result<bool, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT 1 FROM outbox WHERE id = ?1
             AND (steps_done > 0 OR outcome_unknown_since IS NOT NULL OR unanswered_since IS NOT NULL)",
        )?
        .exists([delivery])?)
}

/// A part of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundlePart {
    /// The transaction key of the bundle's leader.
    pub key: String,
    /// Which part.
    pub slot: u32,
}

/// The bundle that a delivery belongs to.
pub(crate) fn bundle_of(tx: &Tx<'_>, delivery: DeliveryId) -> Result<Option<BundlePart>, TxError> {
    let part = tx
        .sql
        .prepare_cached(
            "SELECT l.transaction_key, o.bundle_slot FROM outbox o
             JOIN outbox l ON l.id = coalesce(o.bundle_leader_id, o.id)
             WHERE o.id = ?1 AND o.bundle_slot IS NOT NULL",
        )?
        .query_row([delivery], |row| {
            Ok(BundlePart {
                key: row.get(0)?,
                slot: row.get(1)?,
            })
        })
        .optional()?;
    Ok(part)
}

/// Links a part of a bundle, unless it is known, or the message is no bundle.
pub(crate) fn link_late_part(
    sql: &rusqlite::Connection,
    entry: EntryId,
    place: &Place,
    created: &Copy,
    slot: u32,
) -> Result<(), TxError> {
    let is_known = sql
        .prepare_cached(
            "SELECT 1 FROM link WHERE place = ?1 AND remote_id = ?2 AND bundle_slot IN (?3, ?4)",
        )?
        .exists(params![place, created.remote, slot, links::WHOLE])?;
    if !is_known {
        links::link_part(sql, entry, place, created, Some(i64::from(slot)))?;
    }
    Ok(())
}

/// These deliveries are about to end. The others of their bundles are attempted by themselves, or, where it is unknown whether
/// the bundled message arrived, end as failed: sent by themselves they might arrive twice.
pub(crate) fn split_bundles_of(
    tx: &Tx<'_>,
    ending: &[PendingDelivery],
    now: Millis,
) -> Result<(), TxError> {
    const SPLIT_REASON: &str = "it was sent together with messages of a portal that was removed, and it is unknown \
                       whether it arrived";
    let ids: HashSet<DeliveryId> = ending.iter().map(|pending| pending.id).collect();
    let mut leaders = BTreeSet::new();
    for id in &ids {
        let bundle_leader: Option<DeliveryId> = tx
            .sql
            .prepare_cached(
                "SELECT coalesce(bundle_leader_id, id) FROM outbox WHERE id = ?1 AND bundle_slot IS NOT NULL",
            )?
            .query_row([id], |row| row.get(0))
            .optional()?;
        leaders.extend(bundle_leader.map(|bundle_leader| bundle_leader.0));
    }
    for bundle_leader in leaders.into_iter().map(DeliveryId) {
        let members = counters::members_of(tx.sql, bundle_leader)?.into_iter();
        let members = members.map(|(member, _)| member);
        let members: Vec<PendingDelivery> = counters::pending(tx.sql, bundle_leader)?
            .into_iter()
            .chain(members)
            .collect();
        if members.iter().all(|member| ids.contains(&member.id)) {
            continue;
        }
        let tried = was_tried(tx, bundle_leader)?;
        let mut others = Vec::new();
        for other in members.iter().filter(|member| !ids.contains(&member.id)) {
            others.push((other, bundle_of(tx, other.id)?));
        }
        split_bundle(tx, bundle_leader)?;
        for (other, bundle) in others.into_iter().filter(|_| tried) {
            let why = parked::FailureReason {
                kind: "unlinked",
                reason: SPLIT_REASON,
                about: None,
                bundle: bundle.as_ref(),
            };
            parked::park(tx, other, &why, FailureNotice::ToSender, now)?;
        }
    }
    Ok(())
}

/// Whether these messages and their edits are pending, and none of the edits was redacted.
fn all_unchanged(tx: &Tx<'_>, merged: &[MergedMessage]) -> Result<bool, TxError> {
    for one in merged {
        if counters::pending(tx.sql, one.message)?.is_none() {
            return Ok(false);
        }
        for (edit, _) in &one.edits {
            let Some(edit) = counters::pending(tx.sql, *edit)? else {
                return Ok(false);
            };
            if redacted_edits::is_redacted(tx, edit.entry)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Writes the payload of a message with its edits.
fn write_merged(tx: &Tx<'_>, one: &MergedMessage) -> Result<(), TxError> {
    let Some(message) = counters::pending(tx.sql, one.message)? else {
        return Ok(());
    };
    for (edit, payload) in &one.edits {
        if let Some(edit) = counters::pending(tx.sql, *edit)? {
            rewritten::save(tx, message.entry, &message.to, edit.entry, payload)?;
        }
    }
    Ok(())
}

fn skip_included(tx: &Tx<'_>, included: &[(DeliveryId, SkipRule)]) -> Result<(), TxError> {
    for (id, rule) in included {
        if let Some(pending) = counters::pending(tx.sql, *id)? {
            edits::note_included(tx, pending.entry, &pending.to)?;
            counters::settle(tx, &pending, DeliveryEnd::Skipped(*rule))?;
        }
    }
    Ok(())
}

/// Links the message that a step created to the entry, or to the entries of all bundled deliveries. Those are settled here,
/// except the leader.
pub(crate) fn link_created(
    tx: &Tx<'_>,
    pending: &PendingDelivery,
    created: &Copy,
) -> Result<(), TxError> {
    let slot: Option<i64> = tx
        .sql
        .prepare_cached("SELECT bundle_slot FROM outbox WHERE id = ?1")?
        .query_row([pending.id], |row| row.get(0))?;
    let is_new = !is_copy_of_another(tx, pending.id, &created.remote)?;
    if is_new {
        link_copy(tx, pending, created, slot)?;
    } else {
        tracing::error!(delivery.id = %pending.id, "The other side answered with the id of another message");
    }
    for (member, slot) in counters::members_of(tx.sql, pending.id)? {
        if is_new {
            link_copy(tx, &member, created, Some(slot))?;
        }
        counters::settle(tx, &member, DeliveryEnd::Delivered)?;
    }
    Ok(())
}

/// Whether a message in the place of this delivery is the original or a copy of another entry than those it delivers.
fn is_copy_of_another(
    tx: &Tx<'_>,
    delivery: DeliveryId,
    remote: &RemoteId,
) -> Result<bool, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT 1 FROM outbox o JOIN link l ON l.place = o.to_place AND l.remote_id = ?2
             WHERE o.id = ?1 AND l.entry_id NOT IN (
                 SELECT entry_id FROM outbox WHERE id = ?1 OR bundle_leader_id = ?1)",
        )?
        .exists(params![delivery, remote])?)
}

fn link_copy(
    tx: &Tx<'_>,
    pending: &PendingDelivery,
    created: &Copy,
    slot: Option<i64>,
) -> Result<(), TxError> {
    let (entry, to) = (pending.entry, &pending.to);
    links::link_part(tx.sql, entry, to, created, slot)?;
    senders::set_owner(tx, entry, to, &created.remote)?;
    let text_of = rewritten::text_of(tx, entry, to)?;
    links::set_text_of(tx.sql, entry, to, &created.remote, text_of)
}
