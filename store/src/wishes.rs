//! Wishes: portals that somebody asked for in a chat. One is granted when a code that only the asker was told stands
//! in the channel, and, where the room is encrypted, when the room has agreed. And portals that the operator wants.

use rusqlite::{Row, params};

use crate::{Error, Millis, Place, PortalSpec, RemoteId, Store, database::Fault};

/// A portal that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its row.
    pub id: i64,
    /// The names of its ends.
    pub spec: PortalSpec,
    /// The room.
    pub room: Place,
    /// The channel.
    pub channel: Place,
    /// Who asked.
    pub asked_by: String,
    /// Where, and so where the answer is read.
    pub asked_in: Place,
    /// What is to be posted in the channel.
    pub code: String,
    /// When it is forgotten.
    pub expires_at: Millis,
    /// When the code was heard.
    pub proven_at: Option<Millis>,
}

const COLUMNS: &str =
    "id, room_place, channel_place, room, silo, channel, asked_by, asked_in, code,
    expires_at, proven_at";

fn wish(row: &Row<'_>) -> rusqlite::Result<Wish> {
    Ok(Wish {
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
        proven_at: row.get(10)?,
    })
}

impl Store {
    /// The code that belongs to a question: the same whenever it is asked for, and nobody can guess it.
    pub async fn code_of(&self, place: &Place, question: &RemoteId) -> Result<String, Error> {
        let (place, question) = (place.clone(), question.clone());
        self.read("make a code", move |desk| {
            Ok(desk.seal.code(&place, &question))
        })
        .await
    }

    /// A key for naming what a network gives no id: the same after every restart, another one for each purpose. What it is used
    /// on can be known again by it, and not guessed without it.
    pub async fn naming_key(&self, purpose: &'static str) -> Result<String, Error> {
        self.read("make a key", move |desk| Ok(desk.seal.naming_key(purpose)))
            .await
    }

    /// Keeps a wish. One for the same room and channel takes the place of an earlier one.
    pub async fn wish(&self, new: Wish) -> Result<(), Error> {
        self.transaction("keep a wish", move |desk| {
            desk.sql
                .prepare_cached(
                    "INSERT INTO wish (room_place, channel_place, room, silo, channel, asked_by, asked_in, code,
                                       expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                     ON CONFLICT (room_place, channel_place) DO UPDATE SET room = excluded.room,
                         silo = excluded.silo, channel = excluded.channel, asked_by = excluded.asked_by,
                         asked_in = excluded.asked_in, expires_at = excluded.expires_at,
                         proven_at = iif(wish.code = excluded.code, wish.proven_at, NULL),
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

    /// All wishes, oldest first.
    pub async fn wishes(&self) -> Result<Vec<Wish>, Error> {
        self.read("read the wishes", |desk| {
            Ok(desk
                .sql
                .prepare_cached(&format!("SELECT {COLUMNS} FROM wish ORDER BY id"))?
                .query_map([], wish)?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The code of a wish was heard; it waits until `expires_at` for what is still missing.
    pub async fn proven(&self, id: i64, expires_at: Millis, now: Millis) -> Result<(), Error> {
        self.transaction("note that a code was heard", move |desk| {
            desk.sql
                .prepare_cached(
                    "UPDATE wish SET proven_at = coalesce(proven_at, ?2), expires_at = ?3 WHERE id = ?1",
                )?
                .execute(params![id, now, expires_at])?;
            Ok(())
        })
        .await
    }

    /// A wish will not come true.
    pub async fn forget_wish(&self, id: i64) -> Result<(), Error> {
        self.transaction("forget a wish", move |desk| {
            desk.sql
                .prepare_cached("DELETE FROM wish WHERE id = ?1")?
                .execute([id])?;
            Ok(())
        })
        .await
    }

    /// The operator wants this portal. Answers whether that is news.
    pub async fn want(&self, spec: &PortalSpec, now: Millis) -> Result<bool, Error> {
        let spec = spec.clone();
        self.transaction("keep a wanted portal", move |desk| {
            let rows = desk
                .sql
                .prepare_cached(
                    "INSERT INTO wanted (room, silo, channel, added_at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (room, silo, channel) DO NOTHING",
                )?
                .execute(params![spec.room, spec.silo, spec.channel, now])?;
            Ok(rows > 0)
        })
        .await
    }

    /// The operator no longer wants this portal. Answers whether it was wanted.
    pub async fn unwant(&self, spec: &PortalSpec) -> Result<bool, Error> {
        let spec = spec.clone();
        self.transaction("forget a wanted portal", move |desk| {
            let rows = desk
                .sql
                .prepare_cached(
                    "DELETE FROM wanted WHERE room = ?1 AND silo = ?2 AND channel = ?3",
                )?
                .execute(params![spec.room, spec.silo, spec.channel])?;
            Ok(rows > 0)
        })
        .await
    }

    /// The portals that the operator wants.
    pub async fn wanted(&self) -> Result<Vec<PortalSpec>, Error> {
        self.read("read the wanted portals", |desk| wanted(desk.sql))
            .await
    }
}

/// See [`Store::wanted`].
pub(crate) fn wanted(sql: &rusqlite::Connection) -> Result<Vec<PortalSpec>, Fault> {
    Ok(sql
        .prepare_cached("SELECT room, silo, channel FROM wanted ORDER BY added_at, room, channel")?
        .query_map([], |row| {
            Ok(PortalSpec {
                room: row.get(0)?,
                silo: row.get(1)?,
                channel: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}
