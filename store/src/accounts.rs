//! Our Matrix account: one user on one device, with its sealed session.

use rusqlite::{Connection, OptionalExtension, Row, params};
use zeroize::Zeroize;

use crate::{
    Error, Millis, Store,
    database::{Desk, Fault},
    seal::Cell,
};

/// A secret in memory: wiped when dropped, prints nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The public part of our account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFace {
    /// `@bridge:example.org`
    pub user_id: String,
    /// The device we are.
    pub device_id: String,
    /// The homeserver's base URL.
    pub homeserver: String,
    /// The device's Ed25519 fingerprint key, unpadded base64.
    pub ed25519: Option<String>,
    /// The account's public cross-signing master key, unpadded base64.
    pub master_key: Option<String>,
}

/// The account with its secrets opened.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who it is.
    pub face: AccountFace,
    /// The session as the Matrix side wrote it.
    pub session: Secret,
    /// The recovery key, once there is one.
    pub recovery_key: Option<Secret>,
    /// When this device was kept here.
    pub since: Millis,
}

impl Store {
    /// The account, if one is logged in.
    pub async fn account(&self) -> Result<Option<Account>, Error> {
        self.read("read the account", open_account).await
    }

    /// Keeps a fresh login. There can be only one account: a second is an error of the caller and replaces
    /// nothing (returns `false`).
    pub async fn save_account(
        &self,
        face: &AccountFace,
        session: &Secret,
        now: Millis,
    ) -> Result<bool, Error> {
        let (face, session) = (face.clone(), session.clone());
        self.transaction("keep the account", move |desk| {
            let rows = desk.sql.execute(
                "INSERT INTO account (id, user_id, device_id, homeserver, ed25519, master_key, session, saved_at)
                 VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING",
                params![
                    face.user_id,
                    face.device_id,
                    face.homeserver,
                    face.ed25519,
                    face.master_key,
                    desk.seal.seal(cell("session"), &session.0)?,
                    now.0,
                ],
            )?;
            Ok(rows == 1)
        })
        .await
    }

    /// Keeps a refreshed session.
    pub async fn save_session(&self, session: &Secret) -> Result<(), Error> {
        let session = session.clone();
        self.transaction("keep the session", move |desk| {
            let sealed = desk.seal.seal(cell("session"), &session.0)?;
            desk.sql
                .execute("UPDATE account SET session = ?1 WHERE id = 1", [sealed])?;
            desk.erased();
            Ok(())
        })
        .await
    }

    /// Keeps a refreshed session before this returns, on the thread of the caller: for where nothing can be awaited.
    pub fn save_session_now(&self, session: &Secret) -> Result<(), Error> {
        self.database.transaction("keep the session", |desk| {
            let sealed = desk.seal.seal(cell("session"), &session.0)?;
            desk.sql
                .execute("UPDATE account SET session = ?1 WHERE id = 1", [sealed])?;
            desk.erased();
            Ok(())
        })
    }

    /// Keeps the recovery key.
    pub async fn save_recovery_key(&self, key: &Secret) -> Result<(), Error> {
        let key = key.clone();
        self.transaction("keep the recovery key", move |desk| {
            let sealed = desk.seal.seal(cell("recovery_key"), &key.0)?;
            desk.sql.execute(
                "UPDATE account SET recovery_key = ?1 WHERE id = 1",
                [sealed],
            )?;
            desk.erased();
            Ok(())
        })
        .await
    }

    /// Keeps what `device show` prints.
    pub async fn save_fingerprints(
        &self,
        ed25519: &str,
        master_key: Option<&str>,
    ) -> Result<(), Error> {
        let (ed25519, master_key) = (ed25519.to_owned(), master_key.map(str::to_owned));
        self.transaction("keep the fingerprints", move |desk| {
            desk.sql.execute(
                "UPDATE account SET ed25519 = ?1, master_key = ?2 WHERE id = 1",
                params![ed25519, master_key],
            )?;
            Ok(())
        })
        .await
    }

    /// Forgets the account (after logout). Journal, outbox and links stay.
    pub async fn forget_account(&self) -> Result<(), Error> {
        self.transaction("forget the account", |desk| {
            desk.sql.execute("DELETE FROM account", [])?;
            desk.erased();
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

const FACE: &str = "SELECT user_id, device_id, homeserver, ed25519, master_key FROM account";

/// The public part, for which no key is needed.
pub(crate) fn face(sql: &Connection) -> Result<Option<AccountFace>, Fault> {
    Ok(sql.query_row(FACE, [], face_from_row).optional()?)
}

fn face_from_row(row: &Row<'_>) -> rusqlite::Result<AccountFace> {
    Ok(AccountFace {
        user_id: row.get(0)?,
        device_id: row.get(1)?,
        homeserver: row.get(2)?,
        ed25519: row.get(3)?,
        master_key: row.get(4)?,
    })
}

fn open_account(desk: &Desk<'_>) -> Result<Option<Account>, Fault> {
    let Some(face) = face(desk.sql)? else {
        return Ok(None);
    };
    let (session, recovery_key, since): (Vec<u8>, Option<Vec<u8>>, Millis) = desk.sql.query_row(
        "SELECT session, recovery_key, saved_at FROM account",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let open = |column, sealed: &[u8]| desk.seal.open(cell(column), sealed).map(Secret);
    Ok(Some(Account {
        face,
        session: open("session", &session)?,
        recovery_key: recovery_key
            .map(|sealed| open("recovery_key", &sealed))
            .transpose()?,
        since,
    }))
}
