//! What events of ours say that are read back before they are changed: keyed digests, by which what the homeserver shows
//! is known again. Nothing of the text stays.

use rusqlite::{OptionalExtension, params};

use crate::{Error, Place, RemoteId, Store};

impl Store {
    /// An event of ours was sent and says this.
    pub async fn note_said(
        &self,
        place: &Place,
        remote: &RemoteId,
        content: &str,
    ) -> Result<(), Error> {
        let (place, remote, content) = (place.clone(), remote.clone(), content.to_owned());
        self.transaction("note what an event says", move |desk| {
            let digest = desk.seal.said_key(&place, &remote, &content);
            desk.sql
                .prepare_cached(
                    "INSERT INTO said (place, remote, digest) VALUES (?1, ?2, ?3)
                     ON CONFLICT (place, remote) DO UPDATE SET digest = ?3, next = NULL",
                )?
                .execute(params![place, remote, digest])?;
            Ok(())
        })
        .await
    }

    /// Whether an event of ours says this, or was about to; `None` where nothing is noted of it.
    pub async fn says(
        &self,
        place: &Place,
        remote: &RemoteId,
        content: &str,
    ) -> Result<Option<bool>, Error> {
        let (place, remote, content) = (place.clone(), remote.clone(), content.to_owned());
        self.read("look up what an event says", move |desk| {
            let digest = desk.seal.said_key(&place, &remote, &content);
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT ?3 IN (digest, coalesce(next, digest)) FROM said
                     WHERE place = ?1 AND remote = ?2",
                )?
                .query_row(params![place, remote, digest], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// An event of ours, which says `now`, is about to be changed and to say `next`. Whether the change arrives is not
    /// known yet, so that both count from now on, and nothing older.
    pub async fn will_say(
        &self,
        place: &Place,
        remote: &RemoteId,
        (now, next): (&str, &str),
    ) -> Result<(), Error> {
        let (place, remote) = (place.clone(), remote.clone());
        let (now, next) = (now.to_owned(), next.to_owned());
        self.transaction("note what an event will say", move |desk| {
            let [now, next] =
                [&now, &next].map(|content| desk.seal.said_key(&place, &remote, content));
            desk.sql
                .prepare_cached(
                    "INSERT INTO said (place, remote, digest, next) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (place, remote) DO UPDATE SET digest = ?3, next = ?4",
                )?
                .execute(params![place, remote, now, next])?;
            Ok(())
        })
        .await
    }
}
