//! Trust: the cross-signing identity that is pinned for each user, other identities that were seen since, and entries that wait
//! until an operator accepts the identity under which their room keys arrived. However long that takes; of each user the newest
//! are kept.

use rusqlite::{OptionalExtension, params};

use crate::{
    Batch, EntryId, Error, Millis, Place, RemoteId, Store, UndecryptableEvent,
    database::{Tx, TxError},
    journal, undecryptable,
};

/// How many other identities of one user are kept, the newest.
const MAX_CHANGED_IDENTITIES: i64 = 8;
/// How many entries of one user are on trust hold, the newest.
const MAX_TRUST_HOLDS: i64 = 1_000;
/// Why an older one ends.
const TOO_MANY: &str = "too many newer messages are held for approval";

/// The identity because of which an entry is on trust hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldIdentity {
    /// The sender.
    pub user: String,
    /// The public master key of the identity under which the room key arrived; `None` where no identity has signed the device.
    pub master_key: Option<String>,
}

impl Store {
    /// The pinned identities: user, public master key.
    pub async fn pinned_identities(&self) -> Result<Vec<(String, String)>, Error> {
        self.read("read the pinned identities", |tx| {
            Ok(tx
                .sql
                .prepare_cached("SELECT user, master_key FROM pinned_identity")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Pins this identity of a user unless another one is pinned. Returns the pinned one.
    pub async fn pin_identity(
        &self,
        user: &str,
        master_key: &str,
        now: Millis,
    ) -> Result<String, Error> {
        let (user, master_key) = (user.to_owned(), master_key.to_owned());
        self.transaction("pin an identity", move |tx| {
            tx.sql
                .prepare_cached(
                    "INSERT INTO pinned_identity (user, master_key, pinned_at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (user) DO NOTHING",
                )?
                .execute(params![user, master_key, now])?;
            Ok(tx
                .sql
                .prepare_cached("SELECT master_key FROM pinned_identity WHERE user = ?1")?
                .query_row([&user], |row| row.get(0))?)
        })
        .await
    }

    /// Pins this identity of a user in place of the one before, and deletes the others that were seen. Only for operators.
    pub async fn replace_pin(
        &self,
        user: &str,
        master_key: &str,
        now: Millis,
    ) -> Result<(), Error> {
        let (user, master_key) = (user.to_owned(), master_key.to_owned());
        self.transaction("replace a pinned identity", move |tx| {
            tx.sql
                .prepare_cached(
                    "INSERT INTO pinned_identity (user, master_key, pinned_at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (user) DO UPDATE
                     SET master_key = excluded.master_key, pinned_at = excluded.pinned_at",
                )?
                .execute(params![user, master_key, now])?;
            tx.sql
                .prepare_cached("DELETE FROM changed_identity WHERE user = ?1")?
                .execute([&user])?;
            Ok(())
        })
        .await
    }

    /// An identity of a user was seen that is not the pinned one.
    pub async fn note_changed_identity(
        &self,
        user: &str,
        master_key: &str,
        now: Millis,
    ) -> Result<(), Error> {
        let (user, master_key) = (user.to_owned(), master_key.to_owned());
        self.transaction("note a changed identity", move |tx| {
            note_changed_identity(tx, &user, &master_key, now)
        })
        .await
    }

    /// Other identities that were seen of users, oldest first: user, public master key.
    pub async fn changed_identities(&self) -> Result<Vec<(String, String)>, Error> {
        self.read("read the changed identities", |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT user, master_key FROM changed_identity ORDER BY user, seen_at, master_key",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Other identities of this user that were seen, or that have entries on trust hold, with the number of these entries.
    pub async fn changed_identities_of(&self, user: &str) -> Result<Vec<(String, u64)>, Error> {
        let user = user.to_owned();
        self.read("read a user's changed identities", move |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "WITH waiting AS (
                         SELECT h.master_key FROM trust_hold h JOIN journal j ON j.id = h.entry_id
                         WHERE h.user = ?1 AND j.missing_session IS NOT NULL AND h.master_key IS NOT NULL)
                     SELECT k.master_key,
                            (SELECT count(*) FROM waiting w WHERE w.master_key = k.master_key)
                     FROM (SELECT master_key FROM changed_identity WHERE user = ?1
                           UNION SELECT master_key FROM waiting) k
                     WHERE NOT EXISTS (SELECT 1 FROM pinned_identity p
                                       WHERE p.user = ?1 AND p.master_key = k.master_key)
                     ORDER BY k.master_key",
                )?
                .query_map([&user], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Puts an entry that waits on trust hold until an operator accepts this identity.
    pub async fn hold_for_trust(
        &self,
        entry: EntryId,
        identity: &HeldIdentity,
        now: Millis,
    ) -> Result<(), Error> {
        let identity = identity.clone();
        self.transaction("put an entry on trust hold", move |tx| {
            tx.sql
                .prepare_cached(
                    "INSERT INTO trust_hold (entry_id, user, master_key)
                     SELECT id, ?2, ?3 FROM journal WHERE id = ?1 AND missing_session IS NOT NULL
                     ON CONFLICT (entry_id) DO UPDATE SET master_key = excluded.master_key",
                )?
                .execute(params![entry, identity.user, identity.master_key])?;
            fail_oldest_trust_holds(tx, &identity.user, now)?;
            note_held_identity(tx, &identity, now)
        })
        .await
    }

    /// Whose entries are on trust hold, and how many of each.
    pub async fn trust_holds(&self) -> Result<Vec<(String, u64)>, Error> {
        self.read("read the trust holds", |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT h.user, count(*) FROM trust_hold h JOIN journal j ON j.id = h.entry_id
                     WHERE j.missing_session IS NOT NULL GROUP BY h.user ORDER BY h.user",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Entries on trust hold that may be released, oldest first: under the identity that is pinned for their sender, or under
    /// none that was known when they were put on hold.
    pub async fn releasable_trust_holds(&self) -> Result<Vec<UndecryptableEvent>, Error> {
        self.read("read the releasable trust holds", |tx| {
            let mut held = tx
                .sql
                .prepare_cached(
                    "SELECT j.id, j.place, j.event_id, j.missing_session, j.payload
                     FROM trust_hold h JOIN journal j ON j.id = h.entry_id
                     WHERE j.missing_session IS NOT NULL
                     AND (h.master_key IS NULL OR EXISTS (
                         SELECT 1 FROM pinned_identity p WHERE p.user = h.user AND p.master_key = h.master_key))
                     ORDER BY j.id",
                )?
                .query_map([], journal::undecryptable_from_row)?
                .collect::<Result<Vec<_>, _>>()?;
            for one in &mut held {
                one.raw = tx.seal.open(journal::payload_cell(one.entry), &one.raw)?;
            }
            Ok(held)
        })
        .await
    }
}

/// Writes the trust holds of a batch, after its arrivals.
pub(crate) fn save(tx: &Tx<'_>, batch: &Batch, now: Millis) -> Result<(), TxError> {
    for (place, event_id, identity) in &batch.trust_holds {
        insert_trust_hold(tx, place, event_id, identity)?;
        fail_oldest_trust_holds(tx, &identity.user, now)?;
        note_held_identity(tx, identity, now)?;
    }
    Ok(())
}

fn insert_trust_hold(
    tx: &Tx<'_>,
    place: &Place,
    event_id: &RemoteId,
    identity: &HeldIdentity,
) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "INSERT INTO trust_hold (entry_id, user, master_key)
             SELECT id, ?3, ?4 FROM journal WHERE place = ?1 AND event_id = ?2 AND missing_session IS NOT NULL
             ON CONFLICT (entry_id) DO NOTHING",
        )?
        .execute(params![place, event_id, identity.user, identity.master_key])?;
    Ok(())
}

/// Ends the trust holds of a user beyond the newest [`MAX_TRUST_HOLDS`]: a sender who is not trusted decides how many there are.
fn fail_oldest_trust_holds(tx: &Tx<'_>, user: &str, now: Millis) -> Result<(), TxError> {
    let oldest: Option<EntryId> = tx
        .sql
        .prepare_cached(
            "SELECT entry_id FROM trust_hold WHERE user = ?1 ORDER BY entry_id DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![user, MAX_TRUST_HOLDS], |row| row.get(0))
        .optional()?;
    let Some(oldest) = oldest else {
        return Ok(());
    };
    let ended: Vec<EntryId> = tx
        .sql
        .prepare_cached("SELECT entry_id FROM trust_hold WHERE user = ?1 AND entry_id <= ?2")?
        .query_map(params![user, oldest], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for entry in ended {
        release_hold(tx, entry)?;
        undecryptable::end(tx, entry, TOO_MANY, now)?;
    }
    Ok(())
}

fn note_held_identity(tx: &Tx<'_>, identity: &HeldIdentity, now: Millis) -> Result<(), TxError> {
    match &identity.master_key {
        Some(key) => note_changed_identity(tx, &identity.user, key, now),
        None => Ok(()),
    }
}

fn note_changed_identity(
    tx: &Tx<'_>,
    user: &str,
    master_key: &str,
    now: Millis,
) -> Result<(), TxError> {
    tx.sql
        .prepare_cached(
            "INSERT INTO changed_identity (user, master_key, seen_at)
             SELECT ?1, ?2, ?3
             WHERE NOT EXISTS (SELECT 1 FROM pinned_identity WHERE user = ?1 AND master_key = ?2)
             ON CONFLICT (user, master_key) DO UPDATE SET seen_at = max(seen_at, excluded.seen_at)",
        )?
        .execute(params![user, master_key, now])?;
    // Who can show one identity can show any number.
    tx.sql
        .prepare_cached(
            "DELETE FROM changed_identity WHERE user = ?1 AND master_key NOT IN (
                 SELECT master_key FROM changed_identity WHERE user = ?1
                 ORDER BY seen_at DESC, master_key LIMIT ?2)",
        )?
        .execute(params![user, MAX_CHANGED_IDENTITIES])?;
    Ok(())
}

/// Ends the trust hold of an entry.
pub(crate) fn release_hold(tx: &Tx<'_>, entry: EntryId) -> Result<(), TxError> {
    tx.sql
        .prepare_cached("DELETE FROM trust_hold WHERE entry_id = ?1")?
        .execute([entry])?;
    Ok(())
}
