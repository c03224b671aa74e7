//! Invites that were refused because no portal named their rooms. Anybody can invite the account, so only the newest are kept.

use rusqlite::{Connection, params};

use crate::{Error, Millis, Place, Store, database::TxError};

/// How many are kept.
const MAX_REFUSED_INVITES: i64 = 100;

/// An invite that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedInvite {
    /// The room.
    pub room: Place,
    /// When; of several, the last one.
    pub at: Millis,
}

impl Store {
    /// An invite to this room was refused.
    pub async fn note_refused_invite(&self, room: &Place, now: Millis) -> Result<(), Error> {
        let room = room.clone();
        self.transaction("note a refused invite", move |tx| {
            tx.sql
                .prepare_cached(
                    "INSERT INTO refused_invite (room, refused_at) VALUES (?1, ?2)
                     ON CONFLICT (room) DO UPDATE SET refused_at = excluded.refused_at",
                )?
                .execute(params![room, now])?;
            tx.sql
                .prepare_cached(
                    "DELETE FROM refused_invite WHERE room IN
                         (SELECT room FROM refused_invite ORDER BY refused_at DESC, room LIMIT -1 OFFSET ?1)",
                )?
                .execute([MAX_REFUSED_INVITES])?;
            Ok(())
        })
        .await
    }

    /// The bridge is in this room now.
    pub async fn forget_refused_invite(&self, room: &Place) -> Result<(), Error> {
        let room = room.clone();
        self.transaction("forget a refused invite", move |tx| {
            tx.sql
                .prepare_cached("DELETE FROM refused_invite WHERE room = ?1")?
                .execute([&room])?;
            Ok(())
        })
        .await
    }

    /// The invites that were refused last, newest first.
    pub async fn refused_invites(&self) -> Result<Vec<RefusedInvite>, Error> {
        self.read("read which invites were refused", |tx| refused(tx.sql))
            .await
    }
}

/// See [`Store::refused_invites`].
pub(crate) fn refused(sql: &Connection) -> Result<Vec<RefusedInvite>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT room, refused_at FROM refused_invite ORDER BY refused_at DESC, room",
        )?
        .query_map([], |row| {
            Ok(RefusedInvite {
                room: row.get(0)?,
                at: row.get(1)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}
