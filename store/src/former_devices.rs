//! Former devices: those that must still be logged out, and the messages of former devices that were found in rooms.

use rusqlite::{OptionalExtension, params};

use crate::{
    AccountId, AccountInfo, Error, Millis, Place, RemoteId, SecretBytes, Store, accounts,
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

fn session_cell(account: AccountId) -> Cell {
    Cell {
        table: "former_device",
        column: "session",
        row: account.0,
    }
}

impl Store {
    /// Replaces the present device of an account, which becomes the former one, and saves the messages that were found of it: all
    /// or nothing. The recovery key, the queue, the links and the cursors stay.
    pub async fn replace_device(
        &self,
        account: AccountId,
        info: &AccountInfo,
        session: &SecretBytes,
        found: &[FormerSend],
        now: Millis,
    ) -> Result<(), Error> {
        let (info, session, found) = (info.clone(), session.clone(), found.to_vec());
        self.transaction("replace a device", move |tx| {
            let (device, homeserver, sealed): (String, String, Vec<u8>) = tx.sql.query_row(
                "SELECT device_id, homeserver, session FROM account WHERE id = ?1",
                [account],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )?;
            let opened = tx.seal.open(accounts::cell("session", account), &sealed)?;
            let sealed = tx.seal.seal(session_cell(account), &opened)?;
            tx.sql.execute(
                "INSERT OR REPLACE INTO former_device (account_id, device_id, homeserver, session, store_in_place)
                 VALUES (?1, ?2, ?3, ?4, 1)",
                params![account, device, homeserver, sealed],
            )?;
            tx.sql.execute(
                "UPDATE account SET user_id = ?2, device_id = ?3, homeserver = ?4, ed25519 = NULL,
                        master_key = NULL, logged_in_at = ?5 WHERE id = ?1",
                params![account, info.user_id, info.device_id, info.homeserver, now],
            )?;
            accounts::write_session(tx, account, &session)?;
            remember(tx, &found)
        })
        .await
    }

    /// Saves the messages that were found of a device that is about to be logged out.
    pub async fn save_former_sends(&self, found: &[FormerSend]) -> Result<(), Error> {
        let found = found.to_vec();
        self.transaction("save former sends", move |tx| remember(tx, &found))
            .await
    }

    /// Signs an account out after its device was logged out. The recovery key, the queue, the links and the cursors stay.
    pub async fn sign_out_account(&self, account: AccountId) -> Result<(), Error> {
        self.transaction("sign out", move |tx| {
            tx.sql.execute(
                "UPDATE account SET state = 'signed-out', session = NULL WHERE id = ?1",
                [account],
            )?;
            tx.mark_erased();
            Ok(())
        })
        .await
    }

    /// The device of an account that must still be logged out, if there is one.
    pub async fn former_device(&self, account: AccountId) -> Result<Option<FormerDevice>, Error> {
        self.read("read the former device", move |tx| {
            let row: Option<(String, String, Vec<u8>, bool)> = tx
                .sql
                .query_row(
                    "SELECT device_id, homeserver, session, store_in_place FROM former_device WHERE account_id = ?1",
                    [account],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
                )
                .optional()?;
            row.map(|(device_id, homeserver, sealed, store_in_place)| {
                let session = tx.seal.open(session_cell(account), &sealed)?;
                Ok(FormerDevice {
                    device_id,
                    homeserver,
                    session: SecretBytes(session),
                    store_in_place,
                })
            })
            .transpose()
        })
        .await
    }

    /// The crypto store of an account's former device was moved away.
    pub async fn mark_former_store_moved(&self, account: AccountId) -> Result<(), Error> {
        self.transaction("note that a former store was moved", move |tx| {
            tx.sql.execute(
                "UPDATE former_device SET store_in_place = 0 WHERE account_id = ?1",
                [account],
            )?;
            Ok(())
        })
        .await
    }

    /// The former device of an account was logged out.
    pub async fn forget_former_device(&self, account: AccountId) -> Result<(), Error> {
        self.transaction("forget a former device", move |tx| {
            tx.sql
                .execute("DELETE FROM former_device WHERE account_id = ?1", [account])?;
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
