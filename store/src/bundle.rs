//! Several debts of one lane paid by one message: bound together before the first try, settled together.

use std::collections::{BTreeSet, HashSet};

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, Delivery, DeliveryId, Error, LaneId, Millis, RemoteId, Store, Tell,
    database::{Desk, Fault},
    edits, head, links, outbox, parked, revisions, rewritten,
    settle::{self, Debt, End},
};

/// Debts that one message will pay.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The plan of the first of them, which makes the message.
    pub plan: Vec<u8>,
    /// All of them in the order of their places in the message, the first included.
    pub members: Vec<DeliveryId>,
    /// What edits that wait behind some of them make of these: so the plan says it.
    pub rewritten: Vec<Rewritten>,
    /// Debts that are settled with the binding, each as skipped by a rule: edits that are in the plan, or were redacted.
    pub included: Vec<(DeliveryId, String)>,
}

/// A message that was not tried yet, as it reads with edits that wait behind it.
#[derive(Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The message.
    pub message: DeliveryId,
    /// The edits in it, oldest first, each with the message as it reads with that edit.
    pub edits: Vec<(DeliveryId, Vec<u8>)>,
}

impl std::fmt::Debug for Rewritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rewritten")
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
    /// The debts of a lane from this one on, at most `limit`, as far as they can be read: in the order of the
    /// lane, up to the first that the lane would hold at, without those that are held up, or wait for a key and let
    /// others pass.
    pub async fn line(
        &self,
        lane: LaneId,
        from: DeliveryId,
        limit: usize,
        now: Millis,
    ) -> Result<Vec<Delivery>, Error> {
        self.read("read the line of a lane", move |desk| {
            head::line(desk, lane, from, limit, now)
        })
        .await
    }

    /// Binds debts together, before the first try. Answers whether all of them were still owed, and none of the edits in them
    /// was redacted meanwhile; otherwise nothing is changed.
    pub async fn bind(&self, bundle: Bundle) -> Result<bool, Error> {
        self.transaction("bind debts together", move |desk| {
            let (Some(leader), included) = (bundle.members.first().copied(), &bundle.included)
            else {
                return Ok(false);
            };
            for id in bundle
                .members
                .iter()
                .chain(included.iter().map(|(id, _)| id))
            {
                if settle::debt(desk.sql, *id)?.is_none() {
                    return Ok(false);
                }
            }
            if !still_stand(desk, &bundle.rewritten)? {
                return Ok(false);
            }
            // Taken apart, each of them says by itself what the plan says.
            for rewritten in &bundle.rewritten {
                rewrite(desk, rewritten)?;
            }
            outbox::write_plan(desk, leader, &bundle.plan)?;
            for (slot, id) in (0_u32..).zip(&bundle.members) {
                desk.sql
                    .prepare_cached("UPDATE outbox SET leader = ?2, slot = ?3 WHERE id = ?1")?
                    .execute(params![id, (*id != leader).then_some(leader), slot])?;
            }
            skip_all(desk, included)?;
            Ok(true)
        })
        .await
    }

    /// The message certainly is not there: it was refused as a whole, or looked for, or never tried, and part of it may not
    /// go any more. Each debt is tried by itself, none of them bound again.
    pub async fn unbind(&self, leader: DeliveryId) -> Result<(), Error> {
        self.transaction("take bound debts apart", move |desk| unbind(desk, leader))
            .await
    }

    /// Writes the new letter of a message that was not tried yet, and settles the debts whose changes are in it, or were
    /// redacted. Answers whether the message was still owed, and none of its edits was redacted meanwhile; otherwise nothing is
    /// changed.
    pub async fn include(
        &self,
        rewritten: Rewritten,
        included: Vec<(DeliveryId, String)>,
    ) -> Result<bool, Error> {
        self.transaction("include changes in a message", move |desk| {
            if !still_stand(desk, std::slice::from_ref(&rewritten))? {
                return Ok(false);
            }
            rewrite(desk, &rewritten)?;
            skip_all(desk, &included)?;
            Ok(true)
        })
        .await
    }

    /// The present step took one part out of a shared message, by the event `by` that replaces its text. Settles like
    /// [`Store::step_done`].
    pub async fn struck(
        &self,
        delivery: DeliveryId,
        (remote, slot): (&RemoteId, u32),
        by: &Copy,
        last: bool,
    ) -> Result<(), Error> {
        let (remote, by) = (remote.clone(), by.clone());
        self.transaction("settle a part that was taken out", move |desk| {
            let Some(debt) = settle::debt(desk.sql, delivery)? else {
                return Ok(());
            };
            let home = links::entry(desk.sql, &debt.to, &remote)?.unwrap_or(debt.entry);
            links::link_made(desk.sql, (home, debt.entry), &debt.to, (&by, Some(&remote)))?;
            desk.sql
                .prepare_cached(
                    "UPDATE link SET gone = 1 WHERE place = ?1 AND remote = ?2 AND slot = ?3",
                )?
                .execute(params![debt.to, remote, slot])?;
            outbox::advance(desk, &debt, last)
        })
        .await
    }
}

pub(crate) fn unbind(desk: &Desk<'_>, leader: DeliveryId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "UPDATE outbox SET leader = NULL, slot = NULL, attempts = attempts + 1,
             unanswered_since = NULL, plan = iif(id = ?1, NULL, plan) WHERE id = ?1 OR leader = ?1",
        )?
        .execute([leader])?;
    desk.erased();
    Ok(())
}

/// Whether the present step of a delivery may have happened.
pub(crate) fn was_tried(desk: &Desk<'_>, delivery: DeliveryId) -> Result<bool, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT 1 FROM outbox WHERE id = ?1
             AND (steps_done > 0 OR unsure_since IS NOT NULL OR unanswered_since IS NOT NULL)",
        )?
        .exists([delivery])?)
}

/// These debts are about to end. What one message was to pay besides is tried by itself, or, where nobody knows whether
/// that message arrived, ends as failed: sent by itself it might be there twice.
pub(crate) fn take_apart(desk: &Desk<'_>, ending: &[Debt], now: Millis) -> Result<(), Fault> {
    const WHY: &str = "it was sent together with messages of a portal that was removed, and nobody knows whether it \
                       arrived";
    let ids: HashSet<DeliveryId> = ending.iter().map(|debt| debt.id).collect();
    let mut leaders = BTreeSet::new();
    for id in &ids {
        let leader: Option<DeliveryId> = desk
            .sql
            .prepare_cached(
                "SELECT coalesce(leader, id) FROM outbox WHERE id = ?1 AND slot IS NOT NULL",
            )?
            .query_row([id], |row| row.get(0))
            .optional()?;
        leaders.extend(leader.map(|leader| leader.0));
    }
    for leader in leaders.into_iter().map(DeliveryId) {
        let riders = settle::led_by(desk.sql, leader)?.into_iter();
        let riders = riders.map(|(rider, _)| rider);
        let members: Vec<Debt> = settle::debt(desk.sql, leader)?
            .into_iter()
            .chain(riders)
            .collect();
        if members.iter().all(|member| ids.contains(&member.id)) {
            continue;
        }
        let tried = was_tried(desk, leader)?;
        unbind(desk, leader)?;
        let others = members.iter().filter(|member| !ids.contains(&member.id));
        for other in others.filter(|_| tried) {
            let why = parked::Why {
                kind: "unlinked",
                reason: WHY,
                about: None,
            };
            parked::park(desk, other, &why, Tell::Sender, now)?;
        }
    }
    Ok(())
}

/// Whether these messages are owed, and the edits in them, too, none of which was redacted.
fn still_stand(desk: &Desk<'_>, rewritten: &[Rewritten]) -> Result<bool, Fault> {
    for one in rewritten {
        if settle::debt(desk.sql, one.message)?.is_none() {
            return Ok(false);
        }
        for (edit, _) in &one.edits {
            let Some(edit) = settle::debt(desk.sql, *edit)? else {
                return Ok(false);
            };
            if revisions::is_gone(desk, edit.entry)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Writes down what a message says with its edits.
fn rewrite(desk: &Desk<'_>, one: &Rewritten) -> Result<(), Fault> {
    let Some(message) = settle::debt(desk.sql, one.message)? else {
        return Ok(());
    };
    for (edit, letter) in &one.edits {
        if let Some(edit) = settle::debt(desk.sql, *edit)? {
            rewritten::keep(desk, (message.entry, &message.to), edit.entry, letter)?;
        }
    }
    Ok(())
}

fn skip_all(desk: &Desk<'_>, included: &[(DeliveryId, String)]) -> Result<(), Fault> {
    for (id, rule) in included {
        if let Some(debt) = settle::debt(desk.sql, *id)? {
            edits::is_there(desk, &debt)?;
            settle::settle(desk, &debt, End::Skipped(rule))?;
        }
    }
    Ok(())
}

/// Links the message that a step made: to the entry, or to the entries of all debts that it pays, which are
/// settled here but for the leader.
pub(crate) fn link_made(desk: &Desk<'_>, debt: &Debt, made: &Copy) -> Result<(), Fault> {
    let slot: Option<i64> = desk
        .sql
        .prepare_cached("SELECT slot FROM outbox WHERE id = ?1")?
        .query_row([debt.id], |row| row.get(0))?;
    links::link_part(desk.sql, debt.entry, &debt.to, made, slot)?;
    for (rider, slot) in settle::led_by(desk.sql, debt.id)? {
        links::link_part(desk.sql, rider.entry, &rider.to, made, Some(slot))?;
        settle::settle(desk, &rider, End::Delivered)?;
    }
    Ok(())
}
