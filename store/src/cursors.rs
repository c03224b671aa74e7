//! How far each listener has read: cursors, gaps, and the permanent flags of places.

use rusqlite::{OptionalExtension, params};

use crate::{
    Batch, Error, Millis, Place, RemoteId, Store,
    database::{Tx, TxError},
};

/// Events of a place that must still be fetched: everything after `stop`, up to the position `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub place: Place,
    /// The newest event that the sync returned, where it returned one; else its position.
    pub from: String,
    /// The newest event already fetched; `None` when there is none.
    pub stop: Option<RemoteId>,
}

/// A permanent property of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// The room is or was end-to-end encrypted.
    EverEncrypted,
    /// The history that was read of the room includes encrypted events.
    HistoryReachesEncrypted,
}

impl Flag {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::EverEncrypted => "ever-encrypted",
            Self::HistoryReachesEncrypted => "read-encrypted",
        }
    }
}

/// Forgets how far a place was read: the cursors named after it, alone or with a slash behind, its gap, and its claims.
pub(crate) fn forget(tx: &Tx<'_>, place: &Place) -> Result<(), TxError> {
    tx.sql.execute(
        "DELETE FROM cursor WHERE name = ?1 OR substr(name, 1, length(?1) + 1) = ?1 || '/'",
        [place],
    )?;
    for forget in [
        "DELETE FROM gap WHERE place = ?1",
        "DELETE FROM peer_account WHERE place = ?1",
    ] {
        tx.sql.execute(forget, [place])?;
    }
    Ok(())
}

impl Store {
    /// A cursor's value.
    pub async fn cursor(&self, name: &str) -> Result<Option<String>, Error> {
        let name = name.to_owned();
        self.read("read a cursor", move |tx| {
            Ok(tx
                .sql
                .prepare_cached("SELECT value FROM cursor WHERE name = ?1")?
                .query_row([&name], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// Saves a cursor by itself. Those of events move with their batch.
    pub async fn save_cursor(&self, name: &str, value: &str) -> Result<(), Error> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.transaction("save a cursor", move |tx| {
            tx.sql.execute(
                "INSERT INTO cursor (name, value) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [&name, &value],
            )?;
            Ok(())
        })
        .await
    }

    /// The open gaps of a network.
    pub async fn gaps(&self, network: &str) -> Result<Vec<Gap>, Error> {
        let network = network.to_owned();
        self.read("read the gaps", move |tx| {
            let mut gaps = tx
                .sql
                .prepare_cached("SELECT place, from_position, until_event FROM gap ORDER BY place")?
                .query_map([], |row| {
                    Ok(Gap {
                        place: row.get(0)?,
                        from: row.get(1)?,
                        stop: row.get(2)?,
                    })
                })?
                .collect::<Result<Vec<_>, _>>()?;
            gaps.retain(|gap| gap.place.network() == network);
            Ok(gaps)
        })
        .await
    }

    /// When a flag was set; `None` while it is not set.
    pub async fn raised_at(&self, place: &Place, flag: Flag) -> Result<Option<Millis>, Error> {
        let place = place.clone();
        self.read("read when a flag was set", move |tx| {
            Ok(tx
                .sql
                .prepare_cached("SELECT set_at FROM place_flag WHERE place = ?1 AND flag = ?2")?
                .query_row(params![place, flag.as_str()], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// Whether a flag is set.
    pub async fn flag(&self, place: &Place, flag: Flag) -> Result<bool, Error> {
        let place = place.clone();
        self.read("read a flag", move |tx| {
            Ok(tx
                .sql
                .prepare_cached("SELECT 1 FROM place_flag WHERE place = ?1 AND flag = ?2")?
                .exists(params![place, flag.as_str()])?)
        })
        .await
    }
}

/// Writes the cursors, gaps and flags of a batch.
pub(crate) fn save(tx: &Tx<'_>, batch: &Batch, now: Millis) -> Result<(), TxError> {
    for (name, value) in &batch.cursors {
        tx.sql
            .prepare_cached(
                "INSERT INTO cursor (name, value) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![name, value])?;
    }
    // Filled gaps first: a gap that this same batch opens for the place is a new one.
    for gap in &batch.filled {
        tx.sql
            .prepare_cached(
                "DELETE FROM gap WHERE place = ?1 AND from_position = ?2 AND until_event IS ?3",
            )?
            .execute(params![gap.place, gap.from, gap.stop])?;
    }
    for gap in &batch.gaps {
        tx.sql
            .prepare_cached(
                "INSERT INTO gap (place, from_position, until_event) VALUES (?1, ?2, ?3)
                 ON CONFLICT (place) DO UPDATE SET from_position = excluded.from_position",
            )?
            .execute(params![gap.place, gap.from, gap.stop])?;
    }
    for (place, flag) in &batch.flags {
        tx.sql
            .prepare_cached(
                "INSERT INTO place_flag (place, flag, set_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (place, flag) DO NOTHING",
            )?
            .execute(params![place, flag.as_str(), now])?;
    }
    Ok(())
}
