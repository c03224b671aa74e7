//! Senders of whom no room key ever arrived: their clients may not know the bridge's device.

use rusqlite::Connection;

use crate::{Error, Millis, Place, Store, database::TxError};

/// How many are listed.
const MAX_LISTED: u32 = 50;

/// Somebody who sent encrypted messages and of whom no room key has ever arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderWithoutKeys {
    /// The room.
    pub place: Place,
    /// Who.
    pub sender: String,
    /// Since when people are notified that their messages are missing.
    pub since: Millis,
}

impl Store {
    /// Who sent messages in an encrypted room although no room key of theirs has ever arrived, the longest known first.
    pub async fn senders_without_keys(&self) -> Result<Vec<SenderWithoutKeys>, Error> {
        self.read("look for senders without keys", |tx| {
            senders_without_keys(tx.sql)
        })
        .await
    }
}

/// See [`Store::senders_without_keys`]. A user whose identity is pinned has sent a key before; so has one whose message was
/// decrypted late.
pub(crate) fn senders_without_keys(sql: &Connection) -> Result<Vec<SenderWithoutKeys>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT m.place, m.sender, min(m.notified_at) FROM undecryptable_group m
             WHERE m.reason = 'no-key' AND (m.resolved = 0 OR m.failed > 0)
               AND NOT EXISTS (SELECT 1 FROM pinned_identity WHERE pinned_identity.user = m.sender)
               AND NOT EXISTS (SELECT 1 FROM undecryptable_group late
                               WHERE late.place = m.place AND late.sender = m.sender AND late.decrypted > 0)
             GROUP BY m.place, m.sender ORDER BY 3, 1, 2 LIMIT ?1",
        )?
        .query_map([MAX_LISTED], |row| {
            Ok(SenderWithoutKeys {
                place: row.get(0)?,
                sender: row.get(1)?,
                since: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}
