//! Content digests of events that the bridge sent and reads back before it edits them. By the digest it recognises what the
//! homeserver shows. No text is kept.

use rusqlite::{OptionalExtension, params};

use crate::{Error, Place, RemoteId, Store};

impl Store {
    /// The bridge sent an event with this content.
    pub async fn save_event_digest(
        &self,
        place: &Place,
        remote: &RemoteId,
        content: &str,
    ) -> Result<(), Error> {
        let (place, remote, content) = (place.clone(), remote.clone(), content.to_owned());
        self.transaction("save the digest of an event", move |tx| {
            let digest = tx.seal.event_content_hash(&place, &remote, &content);
            tx.sql
                .prepare_cached(
                    "INSERT INTO event_digest (place, event_id, digest) VALUES (?1, ?2, ?3)
                     ON CONFLICT (place, event_id) DO UPDATE SET digest = ?3, next_digest = NULL",
                )?
                .execute(params![place, remote, digest])?;
            Ok(())
        })
        .await
    }

    /// Whether an event of the bridge has this content, or was about to get it; `None` where no digest is stored.
    pub async fn matches_event_digest(
        &self,
        place: &Place,
        remote: &RemoteId,
        content: &str,
    ) -> Result<Option<bool>, Error> {
        let (place, remote, content) = (place.clone(), remote.clone(), content.to_owned());
        self.read("read the digest of an event", move |tx| {
            let digest = tx.seal.event_content_hash(&place, &remote, &content);
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT ?3 IN (digest, coalesce(next_digest, digest)) FROM event_digest
                     WHERE place = ?1 AND event_id = ?2",
                )?
                .query_row(params![place, remote, digest], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// An event of the bridge with the content `now` is about to be edited to `next`. Whether the edit arrives is unknown yet, so
    /// both match from now on, and nothing older.
    pub async fn save_next_event_digest(
        &self,
        place: &Place,
        remote: &RemoteId,
        now: &str,
        next: &str,
    ) -> Result<(), Error> {
        let (place, remote) = (place.clone(), remote.clone());
        let (now, next) = (now.to_owned(), next.to_owned());
        self.transaction("save the next digest of an event", move |tx| {
            let [now, next] =
                [&now, &next].map(|content| tx.seal.event_content_hash(&place, &remote, content));
            tx.sql
                .prepare_cached(
                    "INSERT INTO event_digest (place, event_id, digest, next_digest) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (place, event_id) DO UPDATE SET digest = ?3, next_digest = ?4",
                )?
                .execute(params![place, remote, now, next])?;
            Ok(())
        })
        .await
    }
}
