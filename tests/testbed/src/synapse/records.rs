//! What the homeserver has stored: events read from its database, not through its APIs.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

/// One event as Synapse stores it.
#[derive(Clone)]
pub struct StoredEvent {
    /// `$…`
    pub event_id: String,
    /// Its outer type; of an encrypted event the server knows only `m.room.encrypted`.
    pub event_type: String,
    /// Full user id.
    pub sender: String,
    /// The whole event.
    pub json: Value,
}

/// All events of one room in the order the server accepted them. Blocks.
pub(super) fn events(database: &Path, room: &str) -> anyhow::Result<Vec<StoredEvent>> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .context("cannot open the database of Synapse")?;
    connection.busy_timeout(Duration::from_secs(20))?;
    let mut statement = connection.prepare(
        "SELECT event_id, type, sender, json FROM events JOIN event_json USING (event_id)
         WHERE events.room_id = ?1 ORDER BY stream_ordering",
    )?;
    let rows = statement.query_map([room], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, String>(3)?,
        ))
    })?;
    let mut events = Vec::new();
    for row in rows {
        let (event_id, event_type, sender, json) = row?;
        let json = serde_json::from_str(&json)
            .with_context(|| format!("{event_id} is not stored as JSON"))?;
        events.push(StoredEvent {
            event_id,
            event_type,
            sender,
            json,
        });
    }
    Ok(events)
}

/// Deletes the server's record of the transactions that it received; returns how many there were. Blocks. The server
/// must not run, because it keeps recent ones in memory as well.
pub(super) fn forget_transactions(database: &Path) -> anyhow::Result<usize> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .context("cannot open the database of Synapse")?;
    Ok(connection.execute("DELETE FROM event_txn_id_device_id", [])?)
}
