//! How far each listener has read: cursors, the gaps it left behind, and what it learnt of a place for ever.

use rusqlite::{OptionalExtension, params};

use crate::{
    Batch, Error, Millis, Place, RemoteId, Store,
    database::{Desk, Fault},
};

/// Events of a place that must still be fetched: everything after `stop`, up to the position `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub place: Place,
    /// The event that the sync brought last, where it brought one; else its position.
    pub from: String,
    /// The newest event already walked; `None` when there is none.
    pub stop: Option<RemoteId>,
}

/// Something true of a place for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// The room is or was end-to-end encrypted.
    EverEncrypted,
    /// What was read of the room reaches into its encrypted time.
    ReadEncrypted,
}

impl Flag {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::EverEncrypted => "ever-encrypted",
            Self::ReadEncrypted => "read-encrypted",
        }
    }
}

/// Forgets how far a place was read: the cursors that are named by it, alone or with a slash behind, and its gap.
pub(crate) fn forget(desk: &Desk<'_>, place: &Place) -> Result<(), Fault> {
    desk.sql.execute(
        "DELETE FROM cursor WHERE name = ?1 OR substr(name, 1, length(?1) + 1) = ?1 || '/'",
        [place],
    )?;
    for forget in [
        "DELETE FROM gap WHERE place = ?1",
        "DELETE FROM rival WHERE place = ?1",
    ] {
        desk.sql.execute(forget, [place])?;
    }
    Ok(())
}

impl Store {
    /// A cursor's value.
    pub async fn cursor(&self, name: &str) -> Result<Option<String>, Error> {
        let name = name.to_owned();
        self.read("read a cursor", move |desk| {
            Ok(desk
                .sql
                .prepare_cached("SELECT value FROM cursor WHERE name = ?1")?
                .query_row([&name], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// The open gaps of a network.
    pub async fn gaps(&self, network: &str) -> Result<Vec<Gap>, Error> {
        let network = network.to_owned();
        self.read("read the gaps", move |desk| {
            let mut gaps = desk
                .sql
                .prepare_cached("SELECT place, from_pos, stop FROM gap ORDER BY place")?
                .query_map([], |row| {
                    Ok(Gap {
                        place: row.get(0)?,
                        from: row.get(1)?,
                        stop: row.get(2)?,
                    })
                })?
                .collect::<Result<Vec<_>, _>>()?;
            gaps.retain(|gap| gap.place.network() == network);
            Ok(gaps)
        })
        .await
    }

    /// When we learnt what a flag says; `None` while it is not raised.
    pub async fn raised_at(&self, place: &Place, flag: Flag) -> Result<Option<Millis>, Error> {
        let place = place.clone();
        self.read("read when a flag was raised", move |desk| {
            Ok(desk
                .sql
                .prepare_cached("SELECT raised_at FROM flag WHERE place = ?1 AND flag = ?2")?
                .query_row(params![place, flag.as_str()], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// Whether a flag is raised.
    pub async fn flag(&self, place: &Place, flag: Flag) -> Result<bool, Error> {
        let place = place.clone();
        self.read("read a flag", move |desk| {
            Ok(desk
                .sql
                .prepare_cached("SELECT 1 FROM flag WHERE place = ?1 AND flag = ?2")?
                .exists(params![place, flag.as_str()])?)
        })
        .await
    }
}

/// Writes down the progress of a batch.
pub(crate) fn keep(desk: &Desk<'_>, batch: &Batch, now: Millis) -> Result<(), Fault> {
    for (name, value) in &batch.cursors {
        desk.sql
            .prepare_cached(
                "INSERT INTO cursor (name, value) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![name, value])?;
    }
    // First what was filled: a gap that this same batch opens in its place is a new one.
    for gap in &batch.filled {
        desk.sql
            .prepare_cached("DELETE FROM gap WHERE place = ?1 AND from_pos = ?2 AND stop IS ?3")?
            .execute(params![gap.place, gap.from, gap.stop])?;
    }
    for gap in &batch.gaps {
        desk.sql
            .prepare_cached(
                "INSERT INTO gap (place, from_pos, stop) VALUES (?1, ?2, ?3)
                 ON CONFLICT (place) DO UPDATE SET from_pos = excluded.from_pos",
            )?
            .execute(params![gap.place, gap.from, gap.stop])?;
    }
    for (place, flag) in &batch.flags {
        desk.sql
            .prepare_cached(
                "INSERT INTO flag (place, flag, raised_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (place, flag) DO NOTHING",
            )?
            .execute(params![place, flag.as_str(), now])?;
    }
    Ok(())
}
