//! Who wrote what: an edit counts only when it comes from the author. Users are kept as keyed hashes, each message
//! with another one.

use rusqlite::{OptionalExtension, params};

use crate::{
    Error, Place, RemoteId, Store,
    database::{Desk, Fault},
};

impl Store {
    /// Whether this user wrote the message; `None` when that is not known.
    pub async fn wrote(
        &self,
        place: &Place,
        message: &RemoteId,
        user: &str,
    ) -> Result<Option<bool>, Error> {
        let (place, message, user) = (place.clone(), message.clone(), user.to_owned());
        self.read("look for the author of a message", move |desk| {
            let writer: Option<String> = desk
                .sql
                .prepare_cached("SELECT writer FROM link WHERE place = ?1 AND remote = ?2")?
                .query_row(params![place, message], |row| row.get(0))
                .optional()?
                .flatten();
            Ok(writer.map(|writer| writer == desk.seal.writer_key(&place, &message, &user)))
        })
        .await
    }
}

/// Keeps who wrote a message. Who was kept first stays; and what was written elsewhere has no writer here, whoever the
/// copy is shown under.
pub(crate) fn keep(
    desk: &Desk<'_>,
    (place, message, user): &(Place, RemoteId, String),
) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "UPDATE link SET writer = ?3 WHERE place = ?1 AND remote = ?2 AND writer IS NULL
             AND EXISTS (SELECT 1 FROM journal j WHERE j.id = entry_id AND j.place = ?1)",
        )?
        .execute(params![
            place,
            message,
            desk.seal.writer_key(place, message, user)
        ])?;
    Ok(())
}
