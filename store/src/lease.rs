//! How often this store was taken up: a number that only grows and is written down before anybody else hears of
//! it. A copy of the directory keeps the number it had, and is known by that.

use rusqlite::{OptionalExtension, params};

use crate::{
    Error, Store,
    database::{Desk, Fault},
};

const NAME: &str = "epoch";

impl Store {
    /// The number now; 0 in a store that was never taken up.
    pub async fn epoch(&self) -> Result<u64, Error> {
        self.read("read the epoch", read).await
    }

    /// Raises the number above itself and above `known`; answers what it is now. It is on the disk by then.
    pub async fn raise_epoch(&self, known: u64) -> Result<u64, Error> {
        self.transaction("raise the epoch", move |desk| {
            let epoch = read(desk)?.max(known).saturating_add(1);
            desk.sql.execute(
                "INSERT INTO meta (name, value) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                params![NAME, epoch.to_be_bytes().as_slice()],
            )?;
            Ok(epoch)
        })
        .await
    }
}

fn read(desk: &Desk<'_>) -> Result<u64, Fault> {
    let kept: Option<Vec<u8>> = desk
        .sql
        .query_row("SELECT value FROM meta WHERE name = ?1", [NAME], |row| {
            row.get(0)
        })
        .optional()?;
    let Some(kept) = kept else { return Ok(0) };
    <[u8; 8]>::try_from(kept.as_slice())
        .map(u64::from_be_bytes)
        .map_err(|_| Fault::Corrupt {
            table: "meta",
            row: 0,
        })
}
