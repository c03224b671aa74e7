//! Former devices: the one that must still be logged out, and the messages of former devices that were found in rooms.

use rusqlite::{OptionalExtension, params};

use crate::{
    AccountInfo, Error, Millis, Place, RemoteId, SecretBytes, Store,
    database::{Tx, TxError},
    seal::Cell,
};

/// A device that must still be logged out.
#[derive(Clone, Debug)]
pub struct FormerDevice {
    /// The device.
    pub device_id: String,
    /// The homeserver's base URL.
    pub homeserver: String,
    /// Its session.
    pub session: SecretBytes,
    /// Whether its crypto store is still where that of the new device belongs.
    pub store_in_place: bool,
}

/// A message of a former device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerSend {
    /// Where.
    pub place: Place,
    /// The transaction key of the delivery; empty for an event that could not be read.
    pub key: String,
    /// The message.
    pub remote: RemoteId,
    /// When.
    pub sent_at: Millis,
}

const SESSION: Cell = Cell {
    table: "former_device",
    column: "session",
    row: 1,
};
const RECOVERY_KEY: Cell = Cell {
    table: "meta",
    column: "recovery_key",
    row: 1,
};
const KEPT_KEY: &str = "recovery_key";

impl Store {
    /// Replaces the present device, which becomes the former one, and saves the messages that were found of it: all or nothing.
    /// The recovery key, the queue, the links and the cursors stay.
    pub async fn replace_device(
        &self,
        info: &AccountInfo,
        session: &SecretBytes,
        found: &[FormerSend],
        now: Millis,
    ) -> Result<(), Error> {
        let (info, session, found) = (info.clone(), session.clone(), found.to_vec());
        self.transaction("replace the device", move |tx| {
            let old: Option<(String, String, Vec<u8>)> = tx
                .sql
                .query_row(
                    "SELECT device_id, homeserver, session FROM account",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .optional()?;
            if let Some((device, homeserver, sealed)) = old {
                let opened = tx.seal.open(crate::accounts::cell("session"), &sealed)?;
                tx.sql.execute(
                    "INSERT OR REPLACE INTO former_device (id, device_id, homeserver, session, store_in_place)
                     VALUES (1, ?1, ?2, ?3, 1)",
                    params![device, homeserver, tx.seal.seal(SESSION, &opened)?],
                )?;
            }
            tx.sql.execute(
                "UPDATE account SET user_id = ?1, device_id = ?2, homeserver = ?3, ed25519 = NULL,
                        master_key = NULL, session = ?4, logged_in_at = ?5 WHERE id = 1",
                params![
                    info.user_id,
                    info.device_id,
                    info.homeserver,
                    tx.seal
                        .seal(crate::accounts::cell("session"), &session.0)?,
                    now.0,
                ],
            )?;
            remember(tx, &found)?;
            tx.mark_erased();
            Ok(())
        })
        .await
    }

    /// Deletes the account after its device was logged out, and saves the messages that were found of it, and the recovery key
    /// for the next login. Queue, links and cursors stay.
    pub async fn forget_account(&self, found: &[FormerSend]) -> Result<(), Error> {
        let found = found.to_vec();
        self.transaction("sign out", move |tx| {
            let key: Option<Vec<u8>> = tx
                .sql
                .query_row("SELECT recovery_key FROM account", [], |row| row.get(0))
                .optional()?
                .flatten();
            if let Some(sealed) = key {
                let key = tx
                    .seal
                    .open(crate::accounts::cell("recovery_key"), &sealed)?;
                tx.sql.execute(
                    "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)",
                    params![KEPT_KEY, tx.seal.seal(RECOVERY_KEY, &key)?],
                )?;
            }
            tx.sql.execute("DELETE FROM account", [])?;
            remember(tx, &found)?;
            tx.mark_erased();
            Ok(())
        })
        .await
    }

    /// The recovery key of the previous account.
    pub async fn previous_recovery_key(&self) -> Result<Option<SecretBytes>, Error> {
        self.read("read the recovery key", |tx| {
            let sealed: Option<Vec<u8>> = tx
                .sql
                .query_row(
                    "SELECT value FROM meta WHERE name = ?1",
                    [KEPT_KEY],
                    |row| row.get(0),
                )
                .optional()?;
            sealed
                .map(|sealed| tx.seal.open(RECOVERY_KEY, &sealed).map(SecretBytes))
                .transpose()
        })
        .await
    }

    /// The device that must still be logged out, if there is one.
    pub async fn former_device(&self) -> Result<Option<FormerDevice>, Error> {
        self.read("read the former device", |tx| {
            let row: Option<(String, String, Vec<u8>, bool)> = tx
                .sql
                .query_row(
                    "SELECT device_id, homeserver, session, store_in_place FROM former_device",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
                )
                .optional()?;
            row.map(|(device_id, homeserver, sealed, store_in_place)| {
                Ok(FormerDevice {
                    device_id,
                    homeserver,
                    session: SecretBytes(tx.seal.open(SESSION, &sealed)?),
                    store_in_place,
                })
            })
            .transpose()
        })
        .await
    }

    /// The former device's crypto store was moved away.
    pub async fn mark_former_store_moved(&self) -> Result<(), Error> {
        self.transaction("note that the former store was moved", |tx| {
            tx.sql
                .execute("UPDATE former_device SET store_in_place = 0", [])?;
            Ok(())
        })
        .await
    }

    /// The former device was logged out.
    pub async fn forget_former_device(&self) -> Result<(), Error> {
        self.transaction("forget the former device", |tx| {
            tx.sql.execute("DELETE FROM former_device", [])?;
            tx.mark_erased();
            Ok(())
        })
        .await
    }

    /// The message that a former device sent for this delivery, if one was found.
    pub async fn former_send(
        &self,
        place: &Place,
        key: &str,
    ) -> Result<Option<(RemoteId, Millis)>, Error> {
        let (place, key) = (place.clone(), key.to_owned());
        self.read("look for a former send", move |tx| {
            Ok(tx
                .sql
                .query_row(
                    "SELECT event_id, sent_at FROM former_send WHERE place = ?1 AND transaction_key = ?2",
                    params![place, key],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?)
        })
        .await
    }
}

fn remember(tx: &Tx<'_>, found: &[FormerSend]) -> Result<(), TxError> {
    let mut statement = tx.sql.prepare_cached(
        "INSERT OR REPLACE INTO former_send (place, transaction_key, event_id, sent_at) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for one in found {
        statement.execute(params![one.place, one.key, one.remote, one.sent_at])?;
    }
    Ok(())
}
