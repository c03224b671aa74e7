//! Whom we believe: the identity by which each user was first believed, and entries that wait until somebody in charge
//! has looked at a changed one. They are waited for without end.

use rusqlite::{OptionalExtension, params};

use crate::{
    Batch, EntryId, Error, Millis, Place, RemoteId, Store, Waiting,
    database::{Desk, Fault},
    journal,
};

impl Store {
    /// The identity by which a user is believed: a public key.
    pub async fn pinned(&self, user: &str) -> Result<Option<String>, Error> {
        let user = user.to_owned();
        self.read("read whom we believe", move |desk| {
            Ok(desk
                .sql
                .prepare_cached("SELECT master_key FROM pin WHERE user = ?1")?
                .query_row([&user], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// Believes a user by this identity from now on, whatever was believed before. For somebody in charge only.
    pub async fn repin(&self, user: &str, master_key: &str, now: Millis) -> Result<(), Error> {
        let (user, master_key) = (user.to_owned(), master_key.to_owned());
        self.transaction("believe a changed identity", move |desk| {
            desk.sql
                .prepare_cached(
                    "INSERT INTO pin (user, master_key, pinned_at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (user) DO UPDATE
                     SET master_key = excluded.master_key, pinned_at = excluded.pinned_at",
                )?
                .execute(params![user, master_key, now])?;
            Ok(())
        })
        .await
    }

    /// An entry that waits does so until somebody in charge has looked at this user's identity.
    pub async fn hold(&self, entry: EntryId, user: &str) -> Result<(), Error> {
        let user = user.to_owned();
        self.transaction("hold an entry", move |desk| {
            desk.sql
                .prepare_cached(
                    "INSERT INTO held (entry_id, user)
                     SELECT id, ?2 FROM journal WHERE id = ?1 AND session IS NOT NULL
                     ON CONFLICT (entry_id) DO NOTHING",
                )?
                .execute(params![entry, user])?;
            Ok(())
        })
        .await
    }

    /// Whose entries are held, and how many of each.
    pub async fn held(&self) -> Result<Vec<(String, u64)>, Error> {
        self.read("read whose entries are held", |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT h.user, count(*) FROM held h JOIN journal j ON j.id = h.entry_id
                     WHERE j.session IS NOT NULL GROUP BY h.user ORDER BY h.user",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The entries of a user that are held, oldest first.
    pub async fn held_of(&self, user: &str) -> Result<Vec<Waiting>, Error> {
        let user = user.to_owned();
        self.read("read what of a user is held", move |desk| {
            let mut held = desk
                .sql
                .prepare_cached(
                    "SELECT j.id, j.place, j.fact, j.session, j.payload
                     FROM held h JOIN journal j ON j.id = h.entry_id
                     WHERE h.user = ?1 AND j.session IS NOT NULL ORDER BY j.id",
                )?
                .query_map([&user], journal::waiting_from_row)?
                .collect::<Result<Vec<_>, _>>()?;
            for one in &mut held {
                one.raw = desk.seal.open(journal::letter_cell(one.entry), &one.raw)?;
            }
            Ok(held)
        })
        .await
    }
}

/// Writes down what a batch says of whom we believe, once its arrivals are.
pub(crate) fn keep(desk: &Desk<'_>, batch: &Batch, now: Millis) -> Result<(), Fault> {
    for (user, master_key) in &batch.pins {
        desk.sql
            .prepare_cached(
                "INSERT INTO pin (user, master_key, pinned_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (user) DO NOTHING",
            )?
            .execute(params![user, master_key, now])?;
    }
    for (place, fact, user) in &batch.held {
        keep_held(desk, place, fact, user)?;
    }
    Ok(())
}

fn keep_held(desk: &Desk<'_>, place: &Place, fact: &RemoteId, user: &str) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "INSERT INTO held (entry_id, user)
             SELECT id, ?3 FROM journal WHERE place = ?1 AND fact = ?2 AND session IS NOT NULL
             ON CONFLICT (entry_id) DO NOTHING",
        )?
        .execute(params![place, fact, user])?;
    Ok(())
}

/// An entry is held no longer.
pub(crate) fn release(desk: &Desk<'_>, entry: EntryId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached("DELETE FROM held WHERE entry_id = ?1")?
        .execute([entry])?;
    Ok(())
}
