//! Where avatars were uploaded to, so that the bridge uploads each only once.

use rusqlite::{OptionalExtension, params};

use crate::{Error, Millis, Store, seal::Cell};

/// How many rows are kept. The oldest are deleted, and uploaded again when they are needed.
const MAX_AVATARS: i64 = 20_000;

impl Store {
    /// What is stored of this avatar.
    pub async fn uploaded_avatar(&self, which: &str) -> Result<Option<Vec<u8>>, Error> {
        let which = which.to_owned();
        self.read("look for an avatar", move |tx| {
            let found: Option<(i64, Vec<u8>)> = tx
                .sql
                .prepare_cached("SELECT id, payload FROM uploaded_avatar WHERE lookup_hash = ?1")?
                .query_row([tx.seal.avatar_hash(&which)], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            found
                .map(|(row, payload)| tx.seal.open(cell(row), &payload))
                .transpose()
        })
        .await
    }

    /// Saves what is known of this avatar.
    pub async fn save_uploaded_avatar(
        &self,
        which: &str,
        payload: Vec<u8>,
        now: Millis,
    ) -> Result<(), Error> {
        let which = which.to_owned();
        self.transaction("save an avatar", move |tx| {
            let row: i64 = tx
                .sql
                .prepare_cached(
                    "INSERT INTO uploaded_avatar (lookup_hash, payload, saved_at) VALUES (?1, x'', ?2)
                     ON CONFLICT (lookup_hash) DO UPDATE SET saved_at = ?2 RETURNING id",
                )?
                .query_row(params![tx.seal.avatar_hash(&which), now], |row| {
                    row.get(0)
                })?;
            let payload = tx.seal.seal(cell(row), &payload)?;
            tx.sql
                .prepare_cached("UPDATE uploaded_avatar SET payload = ?2 WHERE id = ?1")?
                .execute(params![row, payload])?;
            tx.sql
                .prepare_cached("DELETE FROM uploaded_avatar WHERE id <= ?1")?
                .execute([row - MAX_AVATARS])?;
            Ok(())
        })
        .await
    }
}

fn cell(row: i64) -> Cell {
    Cell {
        table: "uploaded_avatar",
        column: "payload",
        row,
    }
}
