//! What a failed delivery may have left in its place: its step may have happened by itself, or in a bundle.

use rusqlite::{OptionalExtension, params};

use crate::{
    AccountId, DeliveryId, Error, Store,
    bundles::BundlePart,
    database::{Tx, TxError},
};

/// How a failed delivery may have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedSend {
    /// Whether its present step may have happened, with its own transaction key.
    pub outcome_unknown: bool,
    /// The bundle that it may have arrived with.
    pub bundle: Option<BundlePart>,
    /// The personal account that was to send it; `None`: the relay.
    pub sender: Option<AccountId>,
}

impl Store {
    /// How this delivery may have arrived before it failed and was retried.
    pub async fn failed_send(&self, delivery: DeliveryId) -> Result<Option<FailedSend>, Error> {
        self.read("read how a failed delivery may have arrived", move |tx| {
            of(tx, delivery)
        })
        .await
    }

    /// A delivery that failed and is retried certainly did not arrive before.
    pub async fn forget_failed_send(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("forget a failed send", move |tx| {
            settle(tx, delivery, false)
        })
        .await
    }

    /// The first step of a delivery that failed and is retried did happen: the retry adopts it, as an attempt without an answer.
    pub async fn adopt_failed_send(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("adopt a failed send", move |tx| settle(tx, delivery, true))
            .await
    }
}

/// Nobody can tell whether a failed delivery arrived, and it is sent with another text: under another transaction key.
pub(crate) fn change_key(tx: &Tx<'_>, delivery: DeliveryId) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE outbox SET transaction_key = transaction_key || '.again' WHERE id = ?1",
        )?
        .execute([delivery])?;
    settle(tx, delivery, false)
}

fn settle(tx: &Tx<'_>, delivery: DeliveryId, happened: bool) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE parked_delivery SET outcome_unknown = 0, bundle_key = NULL, bundle_slot = NULL
             WHERE id = ?1",
        )?
        .execute([delivery])?;
    tx.sql
        .prepare_cached(
            "UPDATE outbox SET unanswered_since = iif(?2, accepted_at, NULL) WHERE id = ?1",
        )?
        .execute(params![delivery, happened])?;
    Ok(())
}

/// How a failed delivery may have arrived; `None` if it certainly did not, or never failed.
pub(crate) fn of(tx: &Tx<'_>, delivery: DeliveryId) -> Result<Option<FailedSend>, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT outcome_unknown, bundle_key, bundle_slot, sender_id FROM parked_delivery
             WHERE id = ?1 AND (outcome_unknown = 1 OR bundle_key IS NOT NULL)",
        )?
        .query_row([delivery], |row| {
            let bundle = match (row.get(1)?, row.get(2)?) {
                (Some(key), Some(slot)) => Some(BundlePart { key, slot }),
                _ => None,
            };
            Ok(FailedSend {
                outcome_unknown: row.get(0)?,
                bundle,
                sender: row.get(3)?,
            })
        })
        .optional()?)
}
