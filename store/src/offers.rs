//! Files that can be fetched by a link: until it expires, or until the message is taken back.

use rusqlite::{OptionalExtension, params};

use crate::{EntryId, Error, Millis, Store, database::Desk, seal::Cell};

impl Store {
    /// Offers a file of this entry, which `letter` describes, and answers the token that stands in the link. What is
    /// `which` is offered once, and keeps its token as long as that lasts.
    pub async fn offer(
        &self,
        entry: EntryId,
        which: &str,
        letter: Vec<u8>,
        until: Millis,
        now: Millis,
    ) -> Result<String, Error> {
        let which = which.to_owned();
        self.transaction("offer a file", move |desk| {
            desk.sql
                .prepare_cached("DELETE FROM offer WHERE expires_at <= ?1")?
                .execute([now])?;
            let which = desk.seal.offer_key(&which);
            let made = desk
                .sql
                .prepare_cached(
                    "INSERT INTO offer (which, entry_id, letter, expires_at) VALUES (?1, ?2, x'', ?3)
                     ON CONFLICT (which) DO NOTHING",
                )?
                .execute(params![which, entry, until])?;
            let (row, until) = desk
                .sql
                .prepare_cached("SELECT id, expires_at FROM offer WHERE which = ?1")?
                .query_row([&which], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if made > 0 {
                let letter = desk.seal.seal(cell(row), &letter)?;
                desk.sql
                    .prepare_cached("UPDATE offer SET letter = ?2 WHERE id = ?1")?
                    .execute(params![row, letter])?;
            }
            Ok(token(desk, row, until))
        })
        .await
    }

    /// What is offered by this token, if it is one of ours, has not expired, and the message is still there.
    pub async fn offered(&self, given: &str, now: Millis) -> Result<Option<Vec<u8>>, Error> {
        let given = given.to_owned();
        self.read("look for an offered file", move |desk| {
            let Some(row) = given
                .split('-')
                .next()
                .and_then(|row| row.parse::<i64>().ok())
            else {
                return Ok(None);
            };
            let found: Option<(Vec<u8>, Millis)> = desk
                .sql
                .prepare_cached("SELECT letter, expires_at FROM offer WHERE id = ?1")?
                .query_row([row], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((letter, until)) = found else {
                return Ok(None);
            };
            // Hashed once more, how long the comparison takes tells nothing of the token.
            let same = desk.seal.offer_key(&given) == desk.seal.offer_key(&token(desk, row, until));
            if !same || until <= now {
                return Ok(None);
            }
            Ok(Some(desk.seal.open(cell(row), &letter)?))
        })
        .await
    }

    /// Of the files of this entry those are offered no more that an edit took away: `is_gone` is asked with the letter of each.
    pub async fn withdraw_where(
        &self,
        entry: EntryId,
        is_gone: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.transaction("withdraw files of an edited message", move |desk| {
            let offers: Vec<(i64, Vec<u8>)> = desk
                .sql
                .prepare_cached("SELECT id, letter FROM offer WHERE entry_id = ?1")?
                .query_map([entry], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            for (row, letter) in offers {
                if is_gone(&desk.seal.open(cell(row), &letter)?) {
                    desk.sql
                        .prepare_cached("DELETE FROM offer WHERE id = ?1")?
                        .execute([row])?;
                }
            }
            Ok(())
        })
        .await
    }

    /// The files of this entry are offered no more.
    pub async fn withdraw(&self, entry: EntryId) -> Result<(), Error> {
        self.transaction("withdraw offered files", move |desk| {
            desk.sql
                .prepare_cached("DELETE FROM offer WHERE entry_id = ?1")?
                .execute([entry])?;
            Ok(())
        })
        .await
    }
}

/// The row, and what only we can say of it.
fn token(desk: &Desk<'_>, row: i64, until: Millis) -> String {
    format!(
        "{row}-{}",
        desk.seal.offer_key(&format!("{row} {}", until.0))
    )
}

fn cell(row: i64) -> Cell {
    Cell {
        table: "offer",
        column: "letter",
        row,
    }
}
