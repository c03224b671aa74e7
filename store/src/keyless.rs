//! Senders of whom no room key ever came: their clients may not know of our device.

use rusqlite::Connection;

use crate::{Error, Millis, Place, Store, database::Fault};

/// So many are told of.
const MOST: u32 = 50;

/// Somebody who wrote, encrypted, and of whom no room key has ever come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyless {
    /// The room.
    pub place: Place,
    /// Who.
    pub sender: String,
    /// Since when people know that something of theirs is missing.
    pub since: Millis,
}

impl Store {
    /// Who wrote in an encrypted room although no room key of theirs has ever come, longest known first.
    pub async fn keyless(&self) -> Result<Vec<Keyless>, Error> {
        self.read("look for senders without keys", |desk| keyless(desk.sql))
            .await
    }
}

/// See [`Store::keyless`]. Whose identity is known has sent a key before; so has whose message came late.
pub(crate) fn keyless(sql: &Connection) -> Result<Vec<Keyless>, Fault> {
    Ok(sql
        .prepare_cached(
            "SELECT m.place, m.sender, min(m.told_at) FROM missing m
             WHERE m.reason = 'no-key' AND (m.closed = 0 OR m.failed > 0)
               AND NOT EXISTS (SELECT 1 FROM pin WHERE pin.user = m.sender)
               AND NOT EXISTS (SELECT 1 FROM missing late
                               WHERE late.place = m.place AND late.sender = m.sender AND late.arrived > 0)
             GROUP BY m.place, m.sender ORDER BY 3, 1, 2 LIMIT ?1",
        )?
        .query_map([MOST], |row| {
            Ok(Keyless {
                place: row.get(0)?,
                sender: row.get(1)?,
                since: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}
