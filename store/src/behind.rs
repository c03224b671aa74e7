//! What is about a message that is still owed: it waits behind that, or ends both. And the copy that was made although its
//! delivery had ended.

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, DeliveryId, EntryId, Error, Place, Store, bundle,
    database::{Desk, Fault},
    links, reactions,
    settle::{self, End},
};

impl Store {
    /// The author of a message, or somebody who may, takes it back while it is still owed: neither it nor its taking back
    /// is seen, and both end by this rule. Answers whether that was so. If it may have been sent already, its taking back
    /// waits behind it.
    pub async fn take_back_owed(
        &self,
        owed: DeliveryId,
        deletion: DeliveryId,
        rule: &str,
    ) -> Result<bool, Error> {
        let rule = rule.to_owned();
        self.transaction("take back a message that is owed", move |desk| {
            let leader: Option<DeliveryId> = desk
                .sql
                .prepare_cached(
                    "SELECT coalesce(leader, id) FROM outbox WHERE id = ?1 AND slot IS NOT NULL",
                )?
                .query_row([owed], |row| row.get(0))
                .optional()?;
            if bundle::was_tried(desk, leader.unwrap_or(owed))? {
                if put_behind(desk, deletion, owed)? {
                    return Ok(false);
                }
            } else if let Some(leader) = leader {
                bundle::unbind(desk, leader)?;
            }
            for id in [owed, deletion] {
                if let Some(debt) = settle::debt(desk.sql, id)? {
                    reactions::forget_unshown(desk, debt.entry, &debt.to)?;
                    settle::settle(desk, &debt, End::Skipped(&rule))?;
                }
            }
            Ok(true)
        })
        .await
    }

    /// A delivery that is about another one waits behind that, if this was not said in the same place and so may be held
    /// up. Answers whether it does.
    pub async fn wait_behind(&self, delivery: DeliveryId, owed: DeliveryId) -> Result<bool, Error> {
        self.transaction("let a delivery wait behind another", move |desk| {
            put_behind(desk, delivery, owed)
        })
        .await
    }

    /// A step made a message although its delivery had ended while it was under way: it is known as a copy of the entry,
    /// and not as somebody's message.
    pub async fn made_too_late(
        &self,
        entry: EntryId,
        to: &Place,
        made: &Copy,
    ) -> Result<(), Error> {
        let (to, made) = (to.clone(), made.clone());
        self.transaction("note a copy that nobody waits for", move |desk| {
            if links::entry(desk.sql, &to, &made.remote)?.is_none() {
                links::link(desk.sql, entry, &to, &made)?;
            }
            Ok(())
        })
        .await
    }
}

/// The rule for a debt that went on in another lane, where what it is about stands.
const ELSEWHERE: &str = "follows-in-another-lane";

/// A delivery is held up and ends from now on like another one, and goes by its lane. Answers whether that is news.
fn put_behind(desk: &Desk<'_>, delivery: DeliveryId, owed: DeliveryId) -> Result<bool, Fault> {
    let (Some(debt), Some(before)) = (
        settle::debt(desk.sql, delivery)?,
        settle::debt(desk.sql, owed)?,
    ) else {
        return Ok(false);
    };
    if debt.lane != before.lane {
        // In the old lane it has ended, and the other one takes it on: both keep adding up.
        settle::moved(desk, &debt, before.lane, ELSEWHERE)?;
        desk.sql
            .prepare_cached(
                "UPDATE outbox SET leader = NULL, slot = NULL, from_place = ?2 WHERE id = ?1",
            )?
            .execute(params![delivery, before.from])?;
        return Ok(true);
    }
    let rows = desk
        .sql
        .prepare_cached(
            "UPDATE outbox SET from_place = (SELECT from_place FROM outbox WHERE id = ?2)
             WHERE id = ?1 AND from_place <> (SELECT from_place FROM outbox WHERE id = ?2)",
        )?
        .execute(params![delivery, owed])?;
    Ok(rows > 0)
}
