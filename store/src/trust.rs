//! Whom we believe: the identity by which each user was first believed, other identities that were seen since, and
//! entries that wait until somebody in charge has accepted the one under which their room keys came. However long that
//! takes; of each user the newest are kept.

use rusqlite::{OptionalExtension, params};

use crate::{
    Batch, EntryId, Error, Millis, Place, RemoteId, Store, Waiting,
    database::{Desk, Fault},
    journal, missing,
};

/// How many other identities of one user are remembered, the newest.
const MOST_OTHERS: i64 = 8;
/// How many entries of one user are held, the newest.
const MOST_HELD: i64 = 1_000;
/// Why an older one ends.
const TOO_MANY: &str = "it was held, and too many newer ones are";

/// For whose identity an entry is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The sender.
    pub user: String,
    /// The public master key of the identity under which the room key came; `None` where no identity has signed it.
    pub master_key: Option<String>,
}

impl Store {
    /// The identities by which users are believed: user, public master key.
    pub async fn pins(&self) -> Result<Vec<(String, String)>, Error> {
        self.read("read whom we believe", |desk| {
            Ok(desk
                .sql
                .prepare_cached("SELECT user, master_key FROM pin")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Believes a user by this identity from now on unless another one already is. Answers the one that is.
    pub async fn pin(&self, user: &str, master_key: &str, now: Millis) -> Result<String, Error> {
        let (user, master_key) = (user.to_owned(), master_key.to_owned());
        self.transaction("believe the first identity of a user", move |desk| {
            desk.sql
                .prepare_cached(
                    "INSERT INTO pin (user, master_key, pinned_at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (user) DO NOTHING",
                )?
                .execute(params![user, master_key, now])?;
            Ok(desk
                .sql
                .prepare_cached("SELECT master_key FROM pin WHERE user = ?1")?
                .query_row([&user], |row| row.get(0))?)
        })
        .await
    }

    /// Believes a user by this identity from now on, whatever was believed before, and forgets the others that were
    /// seen. For somebody in charge only.
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
            desk.sql
                .prepare_cached("DELETE FROM other_identity WHERE user = ?1")?
                .execute([&user])?;
            Ok(())
        })
        .await
    }

    /// Another identity of a user was seen than the one by which the user is believed.
    pub async fn note_other(&self, user: &str, master_key: &str, now: Millis) -> Result<(), Error> {
        let (user, master_key) = (user.to_owned(), master_key.to_owned());
        self.transaction("note another identity", move |desk| {
            note_other(desk, &user, &master_key, now)
        })
        .await
    }

    /// Other identities that were seen of users, oldest first: user, public master key.
    pub async fn others(&self) -> Result<Vec<(String, String)>, Error> {
        self.read("read which identities have changed", |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT user, master_key FROM other_identity ORDER BY user, seen_at, master_key",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Other identities of this user that were seen, or under which entries are held, with how many of them are.
    pub async fn others_of(&self, user: &str) -> Result<Vec<(String, u64)>, Error> {
        let user = user.to_owned();
        self.read("read which identities of a user are known", move |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "WITH waiting AS (
                         SELECT h.master_key FROM held h JOIN journal j ON j.id = h.entry_id
                         WHERE h.user = ?1 AND j.session IS NOT NULL AND h.master_key IS NOT NULL)
                     SELECT k.master_key,
                            (SELECT count(*) FROM waiting w WHERE w.master_key = k.master_key)
                     FROM (SELECT master_key FROM other_identity WHERE user = ?1
                           UNION SELECT master_key FROM waiting) k
                     WHERE NOT EXISTS (SELECT 1 FROM pin p
                                       WHERE p.user = ?1 AND p.master_key = k.master_key)
                     ORDER BY k.master_key",
                )?
                .query_map([&user], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// An entry that waits does so until somebody in charge has looked at this identity.
    pub async fn hold(&self, entry: EntryId, suspect: &Suspect, now: Millis) -> Result<(), Error> {
        let suspect = suspect.clone();
        self.transaction("hold an entry", move |desk| {
            desk.sql
                .prepare_cached(
                    "INSERT INTO held (entry_id, user, master_key)
                     SELECT id, ?2, ?3 FROM journal WHERE id = ?1 AND session IS NOT NULL
                     ON CONFLICT (entry_id) DO UPDATE SET master_key = excluded.master_key",
                )?
                .execute(params![entry, suspect.user, suspect.master_key])?;
            end_oldest(desk, &suspect.user, now)?;
            note_suspect(desk, &suspect, now)
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

    /// Entries that are held and may not have to be any longer, oldest first: under the identity by which their sender
    /// is believed, or under none that was known when they were looked at.
    pub async fn releasable(&self) -> Result<Vec<Waiting>, Error> {
        self.read("read what need not be held", |desk| {
            let mut held = desk
                .sql
                .prepare_cached(
                    "SELECT j.id, j.place, j.fact, j.session, j.payload
                     FROM held h JOIN journal j ON j.id = h.entry_id
                     WHERE j.session IS NOT NULL
                     AND (h.master_key IS NULL OR EXISTS (
                         SELECT 1 FROM pin p WHERE p.user = h.user AND p.master_key = h.master_key))
                     ORDER BY j.id",
                )?
                .query_map([], journal::waiting_from_row)?
                .collect::<Result<Vec<_>, _>>()?;
            for one in &mut held {
                one.raw = desk.seal.open(journal::letter_cell(one.entry), &one.raw)?;
            }
            Ok(held)
        })
        .await
    }
}

/// Writes down what a batch says of whom we do not believe, once its arrivals are.
pub(crate) fn keep(desk: &Desk<'_>, batch: &Batch, now: Millis) -> Result<(), Fault> {
    for (place, fact, suspect) in &batch.held {
        keep_held(desk, place, fact, suspect)?;
        end_oldest(desk, &suspect.user, now)?;
        note_suspect(desk, suspect, now)?;
    }
    Ok(())
}

fn keep_held(
    desk: &Desk<'_>,
    place: &Place,
    fact: &RemoteId,
    suspect: &Suspect,
) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "INSERT INTO held (entry_id, user, master_key)
             SELECT id, ?3, ?4 FROM journal WHERE place = ?1 AND fact = ?2 AND session IS NOT NULL
             ON CONFLICT (entry_id) DO NOTHING",
        )?
        .execute(params![place, fact, suspect.user, suspect.master_key])?;
    Ok(())
}

/// Ends what is held of a user beyond the newest [`MOST_HELD`]: whoever is not believed decides how much there is.
fn end_oldest(desk: &Desk<'_>, user: &str, now: Millis) -> Result<(), Fault> {
    let oldest: Option<EntryId> = desk
        .sql
        .prepare_cached(
            "SELECT entry_id FROM held WHERE user = ?1 ORDER BY entry_id DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![user, MOST_HELD], |row| row.get(0))
        .optional()?;
    let Some(oldest) = oldest else {
        return Ok(());
    };
    let ended: Vec<EntryId> = desk
        .sql
        .prepare_cached("SELECT entry_id FROM held WHERE user = ?1 AND entry_id <= ?2")?
        .query_map(params![user, oldest], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for entry in ended {
        release(desk, entry)?;
        missing::end(desk, entry, TOO_MANY, now)?;
    }
    Ok(())
}

fn note_suspect(desk: &Desk<'_>, suspect: &Suspect, now: Millis) -> Result<(), Fault> {
    match &suspect.master_key {
        Some(key) => note_other(desk, &suspect.user, key, now),
        None => Ok(()),
    }
}

fn note_other(desk: &Desk<'_>, user: &str, master_key: &str, now: Millis) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "INSERT INTO other_identity (user, master_key, seen_at)
             SELECT ?1, ?2, ?3
             WHERE NOT EXISTS (SELECT 1 FROM pin WHERE user = ?1 AND master_key = ?2)
             ON CONFLICT (user, master_key) DO UPDATE SET seen_at = max(seen_at, excluded.seen_at)",
        )?
        .execute(params![user, master_key, now])?;
    // Whoever can show one identity can show any number.
    desk.sql
        .prepare_cached(
            "DELETE FROM other_identity WHERE user = ?1 AND master_key NOT IN (
                 SELECT master_key FROM other_identity WHERE user = ?1
                 ORDER BY seen_at DESC, master_key LIMIT ?2)",
        )?
        .execute(params![user, MOST_OTHERS])?;
    Ok(())
}

/// An entry is held no longer.
pub(crate) fn release(desk: &Desk<'_>, entry: EntryId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached("DELETE FROM held WHERE entry_id = ?1")?
        .execute([entry])?;
    Ok(())
}
