//! Devices that came before: the one that must still be logged out, and what was found that they had sent.

use rusqlite::{OptionalExtension, params};

use crate::{
    AccountFace, Error, Millis, Place, RemoteId, Secret, Store,
    database::{Desk, Fault},
    seal::Cell,
};

/// A device that must still be logged out.
#[derive(Clone, Debug)]
pub struct Retired {
    /// The device.
    pub device_id: String,
    /// The homeserver's base URL.
    pub homeserver: String,
    /// Its session.
    pub session: Secret,
    /// Whether its encryption store is still where that of the present device belongs.
    pub in_place: bool,
}

/// Something that a former device had sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerSend {
    /// Where.
    pub place: Place,
    /// The key of the delivery; empty for what could not be read.
    pub key: String,
    /// The message.
    pub remote: RemoteId,
    /// When.
    pub sent_at: Millis,
}

const SESSION: Cell = Cell {
    table: "retired",
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
    /// Puts a new device in the place of the present one, which is retired with what was found that it had sent: all
    /// or nothing. The recovery key, the queue, the links and the places in the streams stay.
    pub async fn replace_device(
        &self,
        face: &AccountFace,
        session: &Secret,
        found: &[FormerSend],
        now: Millis,
    ) -> Result<(), Error> {
        let (face, session, found) = (face.clone(), session.clone(), found.to_vec());
        self.transaction("replace the device", move |desk| {
            let old: Option<(String, String, Vec<u8>)> = desk
                .sql
                .query_row(
                    "SELECT device_id, homeserver, session FROM account",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .optional()?;
            if let Some((device, homeserver, sealed)) = old {
                let opened = desk.seal.open(crate::accounts::cell("session"), &sealed)?;
                desk.sql.execute(
                    "INSERT OR REPLACE INTO retired (id, device_id, homeserver, session, in_place)
                     VALUES (1, ?1, ?2, ?3, 1)",
                    params![device, homeserver, desk.seal.seal(SESSION, &opened)?],
                )?;
            }
            desk.sql.execute(
                "UPDATE account SET user_id = ?1, device_id = ?2, homeserver = ?3, ed25519 = NULL,
                        master_key = NULL, session = ?4, saved_at = ?5 WHERE id = 1",
                params![
                    face.user_id,
                    face.device_id,
                    face.homeserver,
                    desk.seal
                        .seal(crate::accounts::cell("session"), &session.0)?,
                    now.0,
                ],
            )?;
            remember(desk, &found)?;
            desk.erased();
            Ok(())
        })
        .await
    }

    /// Forgets the account after its device was logged out, and keeps what was found that it had sent, and the
    /// recovery key for the next login. Queue, links and places in the streams stay.
    pub async fn sign_out(&self, found: &[FormerSend]) -> Result<(), Error> {
        let found = found.to_vec();
        self.transaction("sign out", move |desk| {
            let key: Option<Vec<u8>> = desk
                .sql
                .query_row("SELECT recovery_key FROM account", [], |row| row.get(0))
                .optional()?
                .flatten();
            if let Some(sealed) = key {
                let key = desk
                    .seal
                    .open(crate::accounts::cell("recovery_key"), &sealed)?;
                desk.sql.execute(
                    "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)",
                    params![KEPT_KEY, desk.seal.seal(RECOVERY_KEY, &key)?],
                )?;
            }
            desk.sql.execute("DELETE FROM account", [])?;
            remember(desk, &found)?;
            desk.erased();
            Ok(())
        })
        .await
    }

    /// The recovery key that the last account left here.
    pub async fn left_recovery_key(&self) -> Result<Option<Secret>, Error> {
        self.read("read the recovery key", |desk| {
            let sealed: Option<Vec<u8>> = desk
                .sql
                .query_row(
                    "SELECT value FROM meta WHERE name = ?1",
                    [KEPT_KEY],
                    |row| row.get(0),
                )
                .optional()?;
            sealed
                .map(|sealed| desk.seal.open(RECOVERY_KEY, &sealed).map(Secret))
                .transpose()
        })
        .await
    }

    /// The device that must still be logged out, if there is one.
    pub async fn retired(&self) -> Result<Option<Retired>, Error> {
        self.read("read the retired device", |desk| {
            let row: Option<(String, String, Vec<u8>, bool)> = desk
                .sql
                .query_row(
                    "SELECT device_id, homeserver, session, in_place FROM retired",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
                )
                .optional()?;
            row.map(|(device_id, homeserver, sealed, in_place)| {
                Ok(Retired {
                    device_id,
                    homeserver,
                    session: Secret(desk.seal.open(SESSION, &sealed)?),
                    in_place,
                })
            })
            .transpose()
        })
        .await
    }

    /// The retired device's encryption store was put away.
    pub async fn retired_put_away(&self) -> Result<(), Error> {
        self.transaction("put the retired device away", |desk| {
            desk.sql.execute("UPDATE retired SET in_place = 0", [])?;
            Ok(())
        })
        .await
    }

    /// The retired device was logged out.
    pub async fn forget_retired(&self) -> Result<(), Error> {
        self.transaction("forget the retired device", |desk| {
            desk.sql.execute("DELETE FROM retired", [])?;
            desk.erased();
            Ok(())
        })
        .await
    }

    /// What a former device had sent for this delivery, if it was found.
    pub async fn former_send(
        &self,
        place: &Place,
        key: &str,
    ) -> Result<Option<(RemoteId, Millis)>, Error> {
        let (place, key) = (place.clone(), key.to_owned());
        self.read("look for a former send", move |desk| {
            Ok(desk
                .sql
                .query_row(
                    "SELECT remote, sent_at FROM former_send WHERE place = ?1 AND key = ?2",
                    params![place, key],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?)
        })
        .await
    }
}

fn remember(desk: &Desk<'_>, found: &[FormerSend]) -> Result<(), Fault> {
    let mut statement = desk.sql.prepare_cached(
        "INSERT OR REPLACE INTO former_send (place, key, remote, sent_at) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for one in found {
        statement.execute(params![one.place, one.key, one.remote, one.sent_at])?;
    }
    Ok(())
}
