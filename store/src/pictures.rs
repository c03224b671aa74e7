//! Where pictures of people lie that were uploaded once, so that they are not uploaded again.

use rusqlite::{OptionalExtension, params};

use crate::{Error, Millis, Store, seal::Cell};

/// How many are kept; beyond that the oldest are forgotten, and uploaded again when they are wanted.
const MOST: i64 = 20_000;

impl Store {
    /// What was kept of this picture.
    pub async fn picture(&self, which: &str) -> Result<Option<Vec<u8>>, Error> {
        let which = which.to_owned();
        self.read("look for a picture", move |desk| {
            let found: Option<(i64, Vec<u8>)> = desk
                .sql
                .prepare_cached("SELECT id, letter FROM picture WHERE which = ?1")?
                .query_row([desk.seal.picture_key(&which)], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            found
                .map(|(row, letter)| desk.seal.open(cell(row), &letter))
                .transpose()
        })
        .await
    }

    /// Keeps what is to be known of this picture.
    pub async fn keep_picture(
        &self,
        which: &str,
        letter: Vec<u8>,
        now: Millis,
    ) -> Result<(), Error> {
        let which = which.to_owned();
        self.transaction("keep a picture", move |desk| {
            let row: i64 = desk
                .sql
                .prepare_cached(
                    "INSERT INTO picture (which, letter, kept_at) VALUES (?1, x'', ?2)
                     ON CONFLICT (which) DO UPDATE SET kept_at = ?2 RETURNING id",
                )?
                .query_row(params![desk.seal.picture_key(&which), now], |row| {
                    row.get(0)
                })?;
            let letter = desk.seal.seal(cell(row), &letter)?;
            desk.sql
                .prepare_cached("UPDATE picture SET letter = ?2 WHERE id = ?1")?
                .execute(params![row, letter])?;
            desk.sql
                .prepare_cached("DELETE FROM picture WHERE id <= ?1")?
                .execute([row - MOST])?;
            Ok(())
        })
        .await
    }
}

fn cell(row: i64) -> Cell {
    Cell {
        table: "picture",
        column: "letter",
        row,
    }
}
