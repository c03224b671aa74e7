//! Messages that are deleted with one that the bridge deletes: where the network deletes a thread with its root, the bridge
//! deleted the replies, and no user did.

use rusqlite::{Connection, params};

use crate::{DeliveryId, Error, Millis, Place, RemoteId, Store, database::TxError};

/// The messages that are deleted with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cascade {
    /// The message that is deleted.
    pub root: RemoteId,
    /// Those that are deleted with it.
    pub others: Vec<RemoteId>,
    /// When the last of them was written, by the clock of its network: messages that are written later are deleted with it, too.
    pub until: Millis,
}

impl Store {
    /// This delivery is about to delete a message: the bridge itself causes the deletions that follow from it, but no earlier
    /// ones.
    pub async fn note_cascade(
        &self,
        delivery: DeliveryId,
        place: &Place,
        cascade: Cascade,
    ) -> Result<(), Error> {
        let place = place.clone();
        self.transaction("note a cascade of deletions", move |tx| {
            tx.sql
                .prepare_cached(
                    "DELETE FROM cascade_deletion WHERE place = ?1 AND thread_root = ?2",
                )?
                .execute(params![place, cascade.root])?;
            let mut note = tx.sql.prepare_cached(
                "INSERT INTO cascade_deletion (place, thread_root, event_id, until, delivery_id)
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            )?;
            for remote in std::iter::once(&cascade.root).chain(&cascade.others) {
                note.execute(params![
                    place,
                    cascade.root,
                    remote,
                    cascade.until,
                    delivery
                ])?;
            }
            Ok(())
        })
        .await
    }

    /// The message that this delivery was about to delete still exists: nothing was deleted with it.
    pub async fn forget_cascade(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("forget a cascade of deletions", move |tx| {
            forget(tx.sql, delivery)
        })
        .await
    }

    /// Whether the deleted message `remote` is `root`, which the bridge deletes, or was deleted with it. `written_at` is by the clock of its
    /// network.
    pub async fn is_cascade_deleted(
        &self,
        place: &Place,
        root: &RemoteId,
        remote: &RemoteId,
        written_at: Millis,
    ) -> Result<bool, Error> {
        let (place, root, remote) = (place.clone(), root.clone(), remote.clone());
        self.read("look for a cascade of deletions", move |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT 1 FROM cascade_deletion WHERE place = ?1 AND thread_root = ?2
                     AND (event_id = ?3 OR (event_id = ?2 AND until < ?4))",
                )?
                .exists(params![place, root, remote, written_at])?)
        })
        .await
    }
}

/// A delivery ends and has deleted nothing.
pub(crate) fn forget(sql: &Connection, delivery: DeliveryId) -> Result<(), TxError> {
    sql.prepare_cached("DELETE FROM cascade_deletion WHERE delivery_id = ?1")?
        .execute([delivery])?;
    Ok(())
}
