//! How often a bridge started with this store: a number that only grows, and that is on the disk before anybody else learns
//! it. A copy of the directory has the number of the copy, and is recognised by that.

use rusqlite::{OptionalExtension, params};

use crate::{
    Error, Store,
    database::{Tx, TxError},
};

const NAME: &str = "epoch";

impl Store {
    /// The present number; 0 in a new store.
    pub async fn epoch(&self) -> Result<u64, Error> {
        self.read("read the epoch", read).await
    }

    /// Increases the number above itself and above `known`; returns the new one. It is on the disk by then.
    pub async fn raise_epoch(&self, known: u64) -> Result<u64, Error> {
        self.transaction("raise the epoch", move |tx| {
            let epoch = read(tx)?.max(known).saturating_add(1);
            tx.sql.execute(
                "INSERT INTO meta (name, value) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                params![NAME, epoch.to_be_bytes().as_slice()],
            )?;
            Ok(epoch)
        })
        .await
    }
}

fn read(tx: &Tx<'_>) -> Result<u64, TxError> {
    let kept: Option<Vec<u8>> = tx
        .sql
        .query_row("SELECT value FROM meta WHERE name = ?1", [NAME], |row| {
            row.get(0)
        })
        .optional()?;
    let Some(kept) = kept else { return Ok(0) };
    <[u8; 8]>::try_from(kept.as_slice())
        .map(u64::from_be_bytes)
        .map_err(|_| TxError::CorruptRow {
            table: "meta",
            row: 0,
        })
}
