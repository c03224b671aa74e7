//! Which account sends a delivery, which owns a copy, and which events of a place the bridge's accounts have sent. Personal
//! accounts are named; where none is, it is the relay account.

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    AccountId, AccountRole, DeliveryId, EntryId, Error, Millis, Place, RemoteId, Store,
    database::{Tx, TxError},
    links, outbox, removal,
};

/// An account of the bridge, as far as its events are recognised by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAccount {
    /// Its id.
    pub id: AccountId,
    /// Whom it speaks for.
    pub role: AccountRole,
    /// Its Matrix user.
    pub user_id: String,
    /// Its present device, or the last one.
    pub device_id: String,
    /// Whether it is logged in.
    pub is_active: bool,
    /// When its device logged in.
    pub since: Millis,
}

/// Which account attempts a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChosenSender {
    /// No personal account is concerned, or none was chosen yet: what was tried, the relay has tried.
    #[default]
    Open,
    /// The relay, although a personal account is concerned.
    Relay,
    /// This personal account.
    Personal(AccountId),
}

impl ChosenSender {
    /// The personal account, if one was chosen.
    #[must_use]
    pub fn account(self) -> Option<AccountId> {
        match self {
            Self::Personal(account) => Some(account),
            Self::Open | Self::Relay => None,
        }
    }
}

impl Store {
    /// All accounts that are or were logged in.
    pub async fn own_accounts(&self) -> Result<Vec<OwnAccount>, Error> {
        self.read("read the accounts", |tx| {
            let mut query = tx.sql.prepare(
                "SELECT id, role, user_id, device_id, state = 'active', logged_in_at FROM account ORDER BY id",
            )?;
            let rows = query.query_map([], own_from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// This account attempts the present step of a delivery from here on; `None`: the relay. Saved before the first attempt.
    pub async fn set_sender(
        &self,
        delivery: DeliveryId,
        sender: Option<AccountId>,
    ) -> Result<(), Error> {
        self.transaction("set the sender of a delivery", move |tx| {
            let rows = tx
                .sql
                .prepare_cached("UPDATE outbox SET sender_id = ?2 WHERE id = ?1")?
                .execute(params![delivery, sender])?;
            outbox::log_if_settled(rows, delivery);
            Ok(())
        })
        .await
    }

    /// The relay attempts this delivery, although a personal account is concerned. Saved before the first attempt.
    pub async fn choose_relay(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("set the sender of a delivery", move |tx| {
            let rows = tx
                .sql
                .prepare_cached("UPDATE outbox SET relay_chosen = 1 WHERE id = ?1")?
                .execute([delivery])?;
            outbox::log_if_settled(rows, delivery);
            Ok(())
        })
        .await
    }

    /// The account that was to send this delivery cannot, and certainly has not sent its present step: the relay sends it. It is
    /// planned again where no step is done, because the plan does not name the author.
    pub async fn release_sender(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("release a delivery from its sender", move |tx| {
            let rows = tx
                .sql
                .prepare_cached(
                    "UPDATE outbox SET sender_id = NULL, relay_chosen = 1, plan = iif(steps_done = 0, NULL, plan),
                         outcome_unknown_since = NULL, unanswered_since = NULL, retry_at = 0
                     WHERE id = ?1",
                )?
                .execute([delivery])?;
            outbox::log_if_settled(rows, delivery);
            tx.mark_erased();
            removal::end_if_no_route(tx, delivery)
        })
        .await
    }

    /// The personal account that sent a copy, if one did.
    pub async fn owner_of(
        &self,
        place: &Place,
        copy: &RemoteId,
    ) -> Result<Option<AccountId>, Error> {
        let (place, copy) = (place.clone(), copy.clone());
        self.read("look for the owner of a copy", move |tx| {
            let owner = tx
                .sql
                .prepare_cached(
                    "SELECT owner_id FROM link WHERE place = ?1 AND remote_id = ?2 LIMIT 1",
                )?
                .query_row(params![place, copy], |row| row.get(0))
                .optional()?;
            Ok(owner.flatten())
        })
        .await
    }

    /// The personal account that reacts in a place for a person: for the one whose reaction `entry` is, or, with a reactor (see
    /// [`crate::ReactionChange`]), for that one's reaction to the message `entry`.
    pub async fn owner_of_reaction(
        &self,
        entry: EntryId,
        to: &Place,
        reactor: Option<&str>,
    ) -> Result<Option<AccountId>, Error> {
        let (to, reactor) = (to.clone(), reactor.map(ToOwned::to_owned));
        self.read("look for the owner of a reaction", move |tx| {
            let owner = match &reactor {
                Some(reactor) => tx
                    .sql
                    .prepare_cached(
                        "SELECT owner_id FROM reaction
                         WHERE target_id = ?1 AND to_place = ?2 AND reactor_hash = ?3",
                    )?
                    .query_row(params![entry, to, tx.seal.reactor_hash(reactor)], |row| {
                        row.get(0)
                    })
                    .optional()?,
                None => tx
                    .sql
                    .prepare_cached(
                        "SELECT owner_id FROM reaction WHERE entry_id = ?1 AND to_place = ?2",
                    )?
                    .query_row(params![entry, to], |row| row.get(0))
                    .optional()?,
            };
            Ok(owner.flatten())
        })
        .await
    }

    /// Whether a personal account has sent this event for a delivery: it is known as a copy, or `mark`, the transaction key in its
    /// content, is that of a pending delivery of the account.
    pub async fn was_sent_by(
        &self,
        account: AccountId,
        place: &Place,
        event: &RemoteId,
        mark: &str,
    ) -> Result<bool, Error> {
        let (place, event, mark) = (place.clone(), event.clone(), mark.to_owned());
        self.read("look for the delivery of an event", move |tx| {
            if links::entry_of(tx.sql, &place, &event)?.is_some() {
                return Ok(true);
            }
            let shown = tx.seal.reaction_event_hash(&place, &event);
            if tx
                .sql
                .prepare_cached("SELECT 1 FROM reaction WHERE to_place = ?1 AND shown_hash = ?2")?
                .exists(params![place, shown])?
            {
                return Ok(true);
            }
            // The key of a step is that of its delivery with a suffix.
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT 1 FROM outbox WHERE sender_id = ?1 AND to_place = ?2
                     AND substr(?3, 1, length(transaction_key) + 1) = transaction_key || '.'",
                )?
                .exists(params![account, place, mark])?)
        })
        .await
    }
}

fn own_from_row(row: &Row<'_>) -> rusqlite::Result<OwnAccount> {
    let role: String = row.get(1)?;
    Ok(OwnAccount {
        id: row.get(0)?,
        role: match role.as_str() {
            "personal" => AccountRole::Personal,
            _ => AccountRole::Relay,
        },
        user_id: row.get(2)?,
        device_id: row.get(3)?,
        is_active: row.get(4)?,
        since: row.get(5)?,
    })
}

/// The copy belongs to the account that attempts, or attempted, the delivery of this entry to its place.
pub(crate) fn set_owner(
    tx: &Tx<'_>,
    entry: EntryId,
    to: &Place,
    copy: &RemoteId,
) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE link SET owner_id = coalesce(
                 (SELECT sender_id FROM outbox WHERE entry_id = ?1 AND to_place = ?2),
                 (SELECT sender_id FROM parked_delivery WHERE entry_id = ?1 AND to_place = ?2
                  AND NOT EXISTS (SELECT 1 FROM outbox WHERE entry_id = ?1 AND to_place = ?2)))
             WHERE place = ?2 AND remote_id = ?3 AND owner_id IS NULL",
        )?
        .execute(params![entry, to, copy])?;
    Ok(())
}
