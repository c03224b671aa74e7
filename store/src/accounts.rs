//! The Matrix accounts: each one user on one device, with its sealed session.

use rusqlite::{Connection, OptionalExtension, Row, params};
use zeroize::Zeroize;

use crate::{
    AccountId, Error, Millis, Store,
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

/// Whom an account speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountRole {
    /// Everyone.
    Relay,
    /// The person whose account it is.
    Personal,
}

impl AccountRole {
    fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Personal => "personal",
        }
    }
}

/// The public part of an account.
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

/// An account with its secrets decrypted.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
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
    /// The relay account, if one is logged in.
    pub async fn relay_account(&self) -> Result<Option<Account>, Error> {
        self.read("read the relay account", |tx| match relay_id(tx.sql)? {
            Some(id) => open_account(tx, id),
            None => Ok(None),
        })
        .await
    }

    /// An account that is logged in.
    pub async fn account(&self, id: AccountId) -> Result<Option<Account>, Error> {
        self.read("read an account", move |tx| open_account(tx, id))
            .await
    }

    /// Saves a new login. `None` where the user is logged in already, or for a relay where there is one: nothing is replaced then.
    /// A user that was logged out keeps the id and the recovery key.
    pub async fn save_account(
        &self,
        role: AccountRole,
        info: &AccountInfo,
        session: &SecretBytes,
        now: Millis,
    ) -> Result<Option<AccountId>, Error> {
        let (info, session) = (info.clone(), session.clone());
        self.transaction("save an account", move |tx| {
            if role == AccountRole::Relay && relay_id(tx.sql)?.is_some() {
                return Ok(None);
            }
            let id: Option<AccountId> = tx
                .sql
                .query_row(
                    "INSERT INTO account (role, state, user_id, device_id, homeserver, ed25519, master_key, logged_in_at)
                     VALUES (?1, 'active', ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT (user_id) DO UPDATE SET role = excluded.role, state = 'active',
                         device_id = excluded.device_id, homeserver = excluded.homeserver, ed25519 = excluded.ed25519,
                         master_key = excluded.master_key, logged_in_at = excluded.logged_in_at
                     WHERE account.state = 'signed-out' RETURNING id",
                    params![
                        role.as_str(),
                        info.user_id,
                        info.device_id,
                        info.homeserver,
                        info.ed25519,
                        info.master_key,
                        now,
                    ],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(id) = id {
                write_session(tx, id, &session)?;
            }
            Ok(id)
        })
        .await
    }

    /// Saves a refreshed session.
    pub async fn save_session(&self, id: AccountId, session: &SecretBytes) -> Result<(), Error> {
        let session = session.clone();
        self.transaction("save a session", move |tx| write_session(tx, id, &session))
            .await
    }

    /// Saves a refreshed session on the caller's thread before it returns: for callers that cannot await.
    pub fn save_session_now(&self, id: AccountId, session: &SecretBytes) -> Result<(), Error> {
        self.database
            .transaction("save a session", |tx| write_session(tx, id, session))
    }

    /// Saves the recovery key.
    pub async fn save_recovery_key(&self, id: AccountId, key: &SecretBytes) -> Result<(), Error> {
        let key = key.clone();
        self.transaction("save a recovery key", move |tx| {
            let sealed = tx.seal.seal(cell("recovery_key", id), &key.0)?;
            tx.sql.execute(
                "UPDATE account SET recovery_key = ?2 WHERE id = ?1",
                params![id, sealed],
            )?;
            tx.mark_erased();
            Ok(())
        })
        .await
    }

    /// Saves what `device show` prints.
    pub async fn save_fingerprints(
        &self,
        id: AccountId,
        ed25519: &str,
        master_key: Option<&str>,
    ) -> Result<(), Error> {
        let (ed25519, master_key) = (ed25519.to_owned(), master_key.map(str::to_owned));
        self.transaction("save the fingerprints", move |tx| {
            tx.sql.execute(
                "UPDATE account SET ed25519 = ?2, master_key = ?3 WHERE id = ?1",
                params![id, ed25519, master_key],
            )?;
            Ok(())
        })
        .await
    }
}

pub(crate) fn cell(column: &'static str, id: AccountId) -> Cell {
    Cell {
        table: "account",
        column,
        row: id.0,
    }
}

/// Overwrites the session of an account.
pub(crate) fn write_session(
    tx: &Tx<'_>,
    id: AccountId,
    session: &SecretBytes,
) -> Result<(), TxError> {
    let sealed = tx.seal.seal(cell("session", id), &session.0)?;
    tx.sql.execute(
        "UPDATE account SET session = ?2 WHERE id = ?1",
        params![id, sealed],
    )?;
    tx.mark_erased();
    Ok(())
}

fn relay_id(sql: &Connection) -> Result<Option<AccountId>, TxError> {
    const RELAY: &str =
        "SELECT id FROM account WHERE role = 'relay' AND state = 'active' ORDER BY id LIMIT 1";
    Ok(sql.query_row(RELAY, [], |row| row.get(0)).optional()?)
}

/// The public part of the relay account, for which no key is needed.
pub(crate) fn relay_info(sql: &Connection) -> Result<Option<AccountInfo>, TxError> {
    match relay_id(sql)? {
        Some(id) => info(sql, id),
        None => Ok(None),
    }
}

fn info(sql: &Connection, id: AccountId) -> Result<Option<AccountInfo>, TxError> {
    Ok(sql
        .query_row(
            "SELECT user_id, device_id, homeserver, ed25519, master_key FROM account
             WHERE id = ?1 AND state = 'active'",
            [id],
            info_from_row,
        )
        .optional()?)
}

fn info_from_row(row: &Row<'_>) -> rusqlite::Result<AccountInfo> {
    Ok(AccountInfo {
        user_id: row.get(0)?,
        device_id: row.get(1)?,
        homeserver: row.get(2)?,
        ed25519: row.get(3)?,
        master_key: row.get(4)?,
    })
}

fn open_account(tx: &Tx<'_>, id: AccountId) -> Result<Option<Account>, TxError> {
    let Some(info) = info(tx.sql, id)? else {
        return Ok(None);
    };
    let (session, recovery_key, since): (Vec<u8>, Option<Vec<u8>>, Millis) = tx.sql.query_row(
        "SELECT session, recovery_key, logged_in_at FROM account WHERE id = ?1",
        [id],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let open = |column, sealed: &[u8]| tx.seal.open(cell(column, id), sealed).map(SecretBytes);
    Ok(Some(Account {
        id,
        info,
        session: open("session", &session)?,
        recovery_key: recovery_key
            .map(|sealed| open("recovery_key", &sealed))
            .transpose()?,
        since,
    }))
}
