//! Messages that go with one that we delete: where the other side deletes a thread with its first message, nobody but us has
//! deleted the answers.

use rusqlite::{Connection, params};

use crate::{DeliveryId, Error, Millis, Place, RemoteId, Store, database::Fault};

/// What goes with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Along {
    /// The message that is deleted.
    pub root: RemoteId,
    /// Those that go with it.
    pub others: Vec<RemoteId>,
    /// When the last of them was written, by the clock of its network: whatever is written later goes with it, too.
    pub until: Millis,
}

impl Store {
    /// This delivery is about to delete a message: what goes with it is ours, and nothing else that did so before.
    pub async fn takes_along(
        &self,
        delivery: DeliveryId,
        place: &Place,
        along: Along,
    ) -> Result<(), Error> {
        let place = place.clone();
        self.transaction("note what goes with a message", move |desk| {
            desk.sql
                .prepare_cached("DELETE FROM along WHERE place = ?1 AND root = ?2")?
                .execute(params![place, along.root])?;
            let mut note = desk.sql.prepare_cached(
                "INSERT INTO along (place, root, remote, until, delivery_id)
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            )?;
            for remote in std::iter::once(&along.root).chain(&along.others) {
                note.execute(params![place, along.root, remote, along.until, delivery])?;
            }
            Ok(())
        })
        .await
    }

    /// The message that this delivery was about to delete stands there still: nothing went with it.
    pub async fn takes_nothing(&self, delivery: DeliveryId) -> Result<(), Error> {
        self.transaction("forget what goes with a message", move |desk| {
            forget(desk.sql, delivery)
        })
        .await
    }

    /// Whether a message that is gone is `root`, which we deleted or are about to, or went with it. `written_at` is by the
    /// clock of its network.
    pub async fn goes_along(
        &self,
        place: &Place,
        root: &RemoteId,
        (remote, written_at): (&RemoteId, Millis),
    ) -> Result<bool, Error> {
        let (place, root, remote) = (place.clone(), root.clone(), remote.clone());
        self.read("look for what went with a message", move |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT 1 FROM along WHERE place = ?1 AND root = ?2
                     AND (remote = ?3 OR (remote = ?2 AND until < ?4))",
                )?
                .exists(params![place, root, remote, written_at])?)
        })
        .await
    }
}

/// A delivery ends and has deleted nothing.
pub(crate) fn forget(sql: &Connection, delivery: DeliveryId) -> Result<(), Fault> {
    sql.prepare_cached("DELETE FROM along WHERE delivery_id = ?1")?
        .execute([delivery])?;
    Ok(())
}
