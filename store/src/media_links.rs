//! Media links: files that people fetch by a link, until it expires or the message is deleted.

use rusqlite::{OptionalExtension, params};

use crate::{EntryId, Error, Millis, Store, database::Tx, seal::Cell};

impl Store {
    /// Creates a link to a file of this entry, which `payload` describes, and returns the token of the link. The same `lookup`
    /// has one link, which keeps its token until it expires.
    pub async fn create_media_link(
        &self,
        entry: EntryId,
        lookup: &str,
        payload: Vec<u8>,
        until: Millis,
        now: Millis,
    ) -> Result<String, Error> {
        let lookup = lookup.to_owned();
        self.transaction("create a media link", move |tx| {
            tx.sql
                .prepare_cached("DELETE FROM media_link WHERE expires_at <= ?1")?
                .execute([now])?;
            let lookup = tx.seal.media_link_hash(&lookup);
            let created = tx
                .sql
                .prepare_cached(
                    "INSERT INTO media_link (lookup_hash, entry_id, payload, expires_at) VALUES (?1, ?2, x'', ?3)
                     ON CONFLICT (lookup_hash) DO NOTHING",
                )?
                .execute(params![lookup, entry, until])?;
            let (row, until) = tx
                .sql
                .prepare_cached("SELECT id, expires_at FROM media_link WHERE lookup_hash = ?1")?
                .query_row([&lookup], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if created > 0 {
                let payload = tx.seal.seal(cell(row), &payload)?;
                tx.sql
                    .prepare_cached("UPDATE media_link SET payload = ?2 WHERE id = ?1")?
                    .execute(params![row, payload])?;
            }
            Ok(token(tx, row, until))
        })
        .await
    }

    /// The payload of this token's link, if the token is valid and not expired, and the message was not deleted.
    pub async fn resolve_media_link(
        &self,
        given: &str,
        now: Millis,
    ) -> Result<Option<Vec<u8>>, Error> {
        let given = given.to_owned();
        self.read("look for a media link", move |tx| {
            let Some(row) = given
                .split('-')
                .next()
                .and_then(|row| row.parse::<i64>().ok())
            else {
                return Ok(None);
            };
            let found: Option<(Vec<u8>, Millis)> = tx
                .sql
                .prepare_cached("SELECT payload, expires_at FROM media_link WHERE id = ?1")?
                .query_row([row], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((payload, until)) = found else {
                return Ok(None);
            };
            // Hashed once more, the duration of the comparison reveals nothing of the token.
            let same =
                tx.seal.media_link_hash(&given) == tx.seal.media_link_hash(&token(tx, row, until));
            if !same || until <= now {
                return Ok(None);
            }
            Ok(Some(tx.seal.open(cell(row), &payload)?))
        })
        .await
    }

    /// Deletes the links to those files of this entry that an edit removed: `is_gone` decides by the payload of each.
    pub async fn revoke_media_links_where(
        &self,
        entry: EntryId,
        is_gone: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.transaction("revoke media links of an edited message", move |tx| {
            let links: Vec<(i64, Vec<u8>)> = tx
                .sql
                .prepare_cached("SELECT id, payload FROM media_link WHERE entry_id = ?1")?
                .query_map([entry], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            for (row, payload) in links {
                if is_gone(&tx.seal.open(cell(row), &payload)?) {
                    tx.sql
                        .prepare_cached("DELETE FROM media_link WHERE id = ?1")?
                        .execute([row])?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Deletes the links to the files of this entry.
    pub async fn revoke_media_links(&self, entry: EntryId) -> Result<(), Error> {
        self.transaction("revoke media links", move |tx| {
            tx.sql
                .prepare_cached("DELETE FROM media_link WHERE entry_id = ?1")?
                .execute([entry])?;
            Ok(())
        })
        .await
    }
}

/// The row, and a keyed hash that only the bridge can compute.
fn token(tx: &Tx<'_>, row: i64, until: Millis) -> String {
    format!(
        "{row}-{}",
        tx.seal.media_link_hash(&format!("{row} {}", until.0))
    )
}

fn cell(row: i64) -> Cell {
    Cell {
        table: "media_link",
        column: "payload",
        row,
    }
}
