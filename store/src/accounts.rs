//! Our Matrix account: one user on one device, with its sealed session.

use rusqlite::{Connection, OptionalExtension, Row, params};
use zeroize::Zeroize;

use crate::{
    Error, Millis, Store,
    database::{Tx, TxError},
    seal::Cell,
};

/// A secret in memory: overwritten when dropped, prints nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(pub Vec<u8>);

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The public part of our account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountInfo {
    /// `@bridge:example.org`
    pub user_id: String,
    /// The bridge's device.
    pub device_id: String,
    /// The homeserver's base URL.
    pub homeserver: String,
    /// The device's Ed25519 fingerprint key, unpadded base64.
    pub ed25519: Option<String>,
    /// The account's public cross-signing master key, unpadded base64.
    pub master_key: Option<String>,
}

/// The account with its secrets decrypted.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who it is.
    pub info: AccountInfo,
    /// The session as the Matrix side wrote it.
    pub session: SecretBytes,
    /// The recovery key, once there is one.
    pub recovery_key: Option<SecretBytes>,
    /// When this device logged in.
    pub since: Millis,
}

impl Store {
    /// The account, if one is logged in.
    pub async fn account(&self) -> Result<Option<Account>, Error> {
        self.read("read the account", open_account).await
    }

    /// Saves a new login. The store holds one account: where there is one already, nothing is replaced and the answer is `false`.
    pub async fn save_account(
        &self,
        info: &AccountInfo,
        session: &SecretBytes,
        now: Millis,
    ) -> Result<bool, Error> {
        let (info, session) = (info.clone(), session.clone());
        self.transaction("save the account", move |tx| {
            let rows = tx.sql.execute(
                "INSERT INTO account (id, user_id, device_id, homeserver, ed25519, master_key, session, logged_in_at)
                 VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING",
                params![
                    info.user_id,
                    info.device_id,
                    info.homeserver,
                    info.ed25519,
                    info.master_key,
                    tx.seal.seal(cell("session"), &session.0)?,
                    now.0,
                ],
            )?;
            Ok(rows == 1)
        })
        .await
    }

    /// Saves a refreshed session.
    pub async fn save_session(&self, session: &SecretBytes) -> Result<(), Error> {
        let session = session.clone();
        self.transaction("save the session", move |tx| {
            let sealed = tx.seal.seal(cell("session"), &session.0)?;
            tx.sql
                .execute("UPDATE account SET session = ?1 WHERE id = 1", [sealed])?;
            tx.mark_erased();
            Ok(())
        })
        .await
    }

    /// Saves a refreshed session on the caller's thread before it returns: for callers that cannot await.
    pub fn save_session_now(&self, session: &SecretBytes) -> Result<(), Error> {
        self.database.transaction("save the session", |tx| {
            let sealed = tx.seal.seal(cell("session"), &session.0)?;
            tx.sql
                .execute("UPDATE account SET session = ?1 WHERE id = 1", [sealed])?;
            tx.mark_erased();
            Ok(())
        })
    }

    /// Saves the recovery key.
    pub async fn save_recovery_key(&self, key: &SecretBytes) -> Result<(), Error> {
        let key = key.clone();
        self.transaction("save the recovery key", move |tx| {
            let sealed = tx.seal.seal(cell("recovery_key"), &key.0)?;
            tx.sql.execute(
                "UPDATE account SET recovery_key = ?1 WHERE id = 1",
                [sealed],
            )?;
            tx.mark_erased();
            Ok(())
        })
        .await
    }

    /// Saves what `device show` prints.
    pub async fn save_fingerprints(
        &self,
        ed25519: &str,
        master_key: Option<&str>,
    ) -> Result<(), Error> {
        let (ed25519, master_key) = (ed25519.to_owned(), master_key.map(str::to_owned));
        self.transaction("save the fingerprints", move |tx| {
            tx.sql.execute(
                "UPDATE account SET ed25519 = ?1, master_key = ?2 WHERE id = 1",
                params![ed25519, master_key],
            )?;
            Ok(())
        })
        .await
    }
}

pub(crate) fn cell(column: &'static str) -> Cell {
    Cell {
        table: "account",
        column,
        row: 1,
    }
}

const SELECT_INFO: &str = "SELECT user_id, device_id, homeserver, ed25519, master_key FROM account";

/// The public part, for which no key is needed.
pub(crate) fn info(sql: &Connection) -> Result<Option<AccountInfo>, TxError> {
    Ok(sql.query_row(SELECT_INFO, [], face_from_row).optional()?)
}

fn face_from_row(row: &Row<'_>) -> rusqlite::Result<AccountInfo> {
    Ok(AccountInfo {
        user_id: row.get(0)?,
        device_id: row.get(1)?,
        homeserver: row.get(2)?,
        ed25519: row.get(3)?,
        master_key: row.get(4)?,
    })
}

fn open_account(tx: &Tx<'_>) -> Result<Option<Account>, TxError> {
    let Some(info) = info(tx.sql)? else {
        return Ok(None);
    };
    let (session, recovery_key, since): (Vec<u8>, Option<Vec<u8>>, Millis) = tx.sql.query_row(
        "SELECT session, recovery_key, logged_in_at FROM account",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let open = |column, sealed: &[u8]| tx.seal.open(cell(column), sealed).map(SecretBytes);
    Ok(Some(Account {
        info,
        session: open("session", &session)?,
        recovery_key: recovery_key
            .map(|sealed| open("recovery_key", &sealed))
            .transpose()?,
        since,
    }))
}
