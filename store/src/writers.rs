//! Authors: an edit counts only when it comes from the author of its message. Users are kept as keyed hashes, another one for
//! each message.

use rusqlite::{OptionalExtension, params};

use crate::{
    Error, Place, RemoteId, Store,
    database::{Tx, TxError},
};

impl Store {
    /// Whether this user wrote the message; `None` when that is not known.
    pub async fn is_author(
        &self,
        place: &Place,
        message: &RemoteId,
        user: &str,
    ) -> Result<Option<bool>, Error> {
        let (place, message, user) = (place.clone(), message.clone(), user.to_owned());
        self.read("look for the author of a message", move |tx| {
            let writer: Option<String> = tx
                .sql
                .prepare_cached("SELECT author_hash FROM link WHERE place = ?1 AND remote_id = ?2")?
                .query_row(params![place, message], |row| row.get(0))
                .optional()?
                .flatten();
            Ok(writer
                .map(|writer| writer == tx.seal.author_of_message_hash(&place, &message, &user)))
        })
        .await
    }
}

/// Notes the author of a message. The first author noted stays; a copy has no author here, whatever account shows it.
pub(crate) fn save(
    tx: &Tx<'_>,
    place: &Place,
    message: &RemoteId,
    user: &str,
) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE link SET author_hash = ?3 WHERE place = ?1 AND remote_id = ?2 AND author_hash IS NULL
             AND EXISTS (SELECT 1 FROM journal j WHERE j.id = entry_id AND j.place = ?1)",
        )?
        .execute(params![
            place,
            message,
            tx.seal.author_of_message_hash(place, message, user)
        ])?;
    Ok(())
}
