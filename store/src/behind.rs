//! Deliveries that depend on another pending delivery: they wait behind it, or both end. And copies that were made although their
//! delivery had ended.

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, DeliveryId, EntryId, Error, Place, SkipRule, Store, bundles,
    counters::{self, DeliveryEnd},
    database::{Tx, TxError},
    failed_sends, links, reactions, rewritten, senders,
};

impl Store {
    /// A message that is still pending was redacted by its author or a moderator: neither it nor the redaction is sent, and both
    /// end by this rule. Returns whether that happened. If the message may have been sent already, its redaction waits behind it;
    /// if it may have been sent before it failed and was retried, only the message ends, and its redaction looks for what arrived.
    pub async fn cancel_pending(
        &self,
        target: DeliveryId,
        deletion: DeliveryId,
        rule: SkipRule,
    ) -> Result<bool, Error> {
        self.transaction("cancel a pending delivery", move |tx| {
            let bundle_leader: Option<DeliveryId> = tx
                .sql
                .prepare_cached(
                    "SELECT coalesce(bundle_leader_id, id) FROM outbox WHERE id = ?1 AND bundle_slot IS NOT NULL",
                )?
                .query_row([target], |row| row.get(0))
                .optional()?;
            if bundles::was_tried(tx, bundle_leader.unwrap_or(target))? {
                if move_behind(tx, deletion, target)? {
                    return Ok(false);
                }
            } else if let Some(bundle_leader) = bundle_leader {
                bundles::split_bundle(tx, bundle_leader)?;
            }
            let deletion = failed_sends::of(tx, target)?.is_none().then_some(deletion);
            for id in [Some(target), deletion].into_iter().flatten() {
                if let Some(pending) = counters::pending(tx.sql, id)? {
                    reactions::forget_unshown(tx, pending.entry, &pending.to)?;
                    counters::settle(tx, &pending, DeliveryEnd::Skipped(rule))?;
                }
            }
            Ok(true)
        })
        .await
    }

    /// A delivery that depends on another one waits behind that, if it comes from another place and so may not be on hold with
    /// it. Returns whether it does.
    pub async fn queue_behind(
        &self,
        delivery: DeliveryId,
        target: DeliveryId,
    ) -> Result<bool, Error> {
        self.transaction("queue a delivery behind another", move |tx| {
            move_behind(tx, delivery, target)
        })
        .await
    }

    /// A step created a message although its delivery ended meanwhile: the message is linked as a copy of the entry, so that it
    /// does not count as somebody's message.
    pub async fn link_late_copy(
        &self,
        entry: EntryId,
        to: &Place,
        created: &Copy,
    ) -> Result<(), Error> {
        self.link_late_part(entry, to, created, None)
            .await
            .map(drop)
    }

    /// The same for a message that is this part of a bundle, if it is one. Returns whether the message is a copy of the entry now;
    /// it is not if it is known as another message.
    pub async fn link_late_part(
        &self,
        entry: EntryId,
        to: &Place,
        created: &Copy,
        slot: Option<u32>,
    ) -> Result<bool, Error> {
        let (to, created) = (to.clone(), created.clone());
        self.transaction("link a late copy", move |tx| {
            if let Some(slot) = slot {
                bundles::link_late_part(tx.sql, entry, &to, &created, slot)?;
            } else {
                let text_of = rewritten::text_of(tx, entry, &to)?;
                links::link_created(tx.sql, entry, text_of, &to, &created, None)?;
                senders::set_owner(tx, entry, &to, &created.remote)?;
            }
            links::is_copy_of(tx.sql, entry, &to, &created.remote)
        })
        .await
    }
}

/// From now on a delivery is on hold and ends like another one, and uses its lane. Returns whether that changed anything.
fn move_behind(tx: &Tx<'_>, delivery: DeliveryId, target: DeliveryId) -> Result<bool, TxError> {
    let (Some(pending), Some(before)) = (
        counters::pending(tx.sql, delivery)?,
        counters::pending(tx.sql, target)?,
    ) else {
        return Ok(false);
    };
    if pending.lane != before.lane {
        // The old lane counts it as skipped and the new one as accepted, so that both keep adding up.
        counters::move_to_lane(tx, &pending, before.lane, SkipRule::MovedToAnotherLane)?;
        tx.sql
            .prepare_cached(
                "UPDATE outbox SET bundle_leader_id = NULL, bundle_slot = NULL, from_place = ?2 WHERE id = ?1",
            )?
            .execute(params![delivery, before.from])?;
        return Ok(true);
    }
    let rows = tx
        .sql
        .prepare_cached(
            "UPDATE outbox SET from_place = (SELECT from_place FROM outbox WHERE id = ?2)
             WHERE id = ?1 AND from_place <> (SELECT from_place FROM outbox WHERE id = ?2)",
        )?
        .execute(params![delivery, target])?;
    Ok(rows > 0)
}
