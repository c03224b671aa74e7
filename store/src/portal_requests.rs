//! Portal requests: portals that somebody requested in a chat. One is approved when a code that only the requester knows is
//! posted in the channel, and, where the room is encrypted, when the room consents. And portals that the operator added.

use rusqlite::{Row, params};

use crate::{Error, Millis, Place, PortalSpec, RemoteId, Store, database::TxError};

/// A portal that somebody requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalRequest {
    /// Its row.
    pub id: i64,
    /// The names of its ends.
    pub spec: PortalSpec,
    /// The room.
    pub room: Place,
    /// The channel.
    pub channel: Place,
    /// Who requested it.
    pub asked_by: String,
    /// Where, and so where the answer is read.
    pub asked_in: Place,
    /// What must be posted in the channel.
    pub code: String,
    /// When it expires.
    pub expires_at: Millis,
    /// When the code was seen.
    pub confirmed_at: Option<Millis>,
}

const COLUMNS: &str =
    "id, room_place, channel_place, room, silo, channel, requested_by, requested_in, code,
    expires_at, confirmed_at";

fn request_from_row(row: &Row<'_>) -> rusqlite::Result<PortalRequest> {
    Ok(PortalRequest {
        id: row.get(0)?,
        room: row.get(1)?,
        channel: row.get(2)?,
        spec: PortalSpec {
            room: row.get(3)?,
            silo: row.get(4)?,
            channel: row.get(5)?,
        },
        asked_by: row.get(6)?,
        asked_in: row.get(7)?,
        code: row.get(8)?,
        expires_at: row.get(9)?,
        confirmed_at: row.get(10)?,
    })
}

impl Store {
    /// The confirmation code of a command: the same whenever it is asked for, and nobody can guess it.
    pub async fn confirmation_code(
        &self,
        place: &Place,
        question: &RemoteId,
    ) -> Result<String, Error> {
        let (place, question) = (place.clone(), question.clone());
        self.read("make a code", move |tx| Ok(tx.seal.code(&place, &question)))
            .await
    }

    /// A key for naming what a network gives no id: the same after every restart, another one for each purpose. A name made with
    /// it can be recognised, and not guessed without it.
    pub async fn naming_key(&self, purpose: &'static str) -> Result<String, Error> {
        self.read("make a key", move |tx| Ok(tx.seal.naming_key(purpose)))
            .await
    }

    /// Saves a portal request. It replaces an earlier one for the same room and channel.
    pub async fn add_portal_request(&self, new: PortalRequest) -> Result<(), Error> {
        self.transaction("save a portal request", move |tx| {
            tx.sql
                .prepare_cached(
                    "INSERT INTO portal_request (room_place, channel_place, room, silo, channel, requested_by, requested_in, code,
                                       expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                     ON CONFLICT (room_place, channel_place) DO UPDATE SET room = excluded.room,
                         silo = excluded.silo, channel = excluded.channel, requested_by = excluded.requested_by,
                         requested_in = excluded.requested_in, expires_at = excluded.expires_at,
                         confirmed_at = iif(portal_request.code = excluded.code, portal_request.confirmed_at, NULL),
                         code = excluded.code",
                )?
                .execute(params![
                    new.room,
                    new.channel,
                    new.spec.room,
                    new.spec.silo,
                    new.spec.channel,
                    new.asked_by,
                    new.asked_in,
                    new.code,
                    new.expires_at
                ])?;
            Ok(())
        })
        .await
    }

    /// All portal requests, oldest first.
    pub async fn portal_requests(&self) -> Result<Vec<PortalRequest>, Error> {
        self.read("read the portal requests", |tx| {
            Ok(tx
                .sql
                .prepare_cached(&format!("SELECT {COLUMNS} FROM portal_request ORDER BY id"))?
                .query_map([], request_from_row)?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The code of a portal request was seen; the request waits until `expires_at` for what is still missing.
    pub async fn confirm_portal_request(
        &self,
        id: i64,
        expires_at: Millis,
        now: Millis,
    ) -> Result<(), Error> {
        self.transaction("confirm a portal request", move |tx| {
            tx.sql
                .prepare_cached(
                    "UPDATE portal_request SET confirmed_at = coalesce(confirmed_at, ?2), expires_at = ?3 WHERE id = ?1",
                )?
                .execute(params![id, now, expires_at])?;
            Ok(())
        })
        .await
    }

    /// A portal request ends without a portal.
    pub async fn delete_portal_request(&self, id: i64) -> Result<(), Error> {
        self.transaction("delete a portal request", move |tx| {
            tx.sql
                .prepare_cached("DELETE FROM portal_request WHERE id = ?1")?
                .execute([id])?;
            Ok(())
        })
        .await
    }

    /// The operator adds this portal. Returns whether it is new.
    pub async fn add_operator_portal(&self, spec: &PortalSpec, now: Millis) -> Result<bool, Error> {
        let spec = spec.clone();
        self.transaction("add an operator portal", move |tx| {
            let rows = tx
                .sql
                .prepare_cached(
                    "INSERT INTO operator_portal (room, silo, channel, added_at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (room, silo, channel) DO NOTHING",
                )?
                .execute(params![spec.room, spec.silo, spec.channel, now])?;
            Ok(rows > 0)
        })
        .await
    }

    /// The operator removes this portal. Returns whether it was there.
    pub async fn remove_operator_portal(&self, spec: &PortalSpec) -> Result<bool, Error> {
        let spec = spec.clone();
        self.transaction("remove an operator portal", move |tx| {
            let rows = tx
                .sql
                .prepare_cached(
                    "DELETE FROM operator_portal WHERE room = ?1 AND silo = ?2 AND channel = ?3",
                )?
                .execute(params![spec.room, spec.silo, spec.channel])?;
            Ok(rows > 0)
        })
        .await
    }

    /// The portals that the operator added.
    pub async fn operator_portals(&self) -> Result<Vec<PortalSpec>, Error> {
        self.read("read the operator portals", |tx| operator_portals(tx.sql))
            .await
    }
}

/// See [`Store::operator_portals`].
pub(crate) fn operator_portals(sql: &rusqlite::Connection) -> Result<Vec<PortalSpec>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT room, silo, channel FROM operator_portal ORDER BY added_at, room, channel",
        )?
        .query_map([], |row| {
            Ok(PortalSpec {
                room: row.get(0)?,
                silo: row.get(1)?,
                channel: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}
