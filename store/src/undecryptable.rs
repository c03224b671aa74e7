//! Undecryptable entries: which ones people were notified of, how long their room keys have been waited for, and how that ended.

use std::time::Duration;

use rusqlite::{Row, params};

use crate::{
    EntryId, Error, Millis, Place, Store,
    counters::{self, DeliveryEnd},
    database::{Tx, TxError},
    parked,
};

/// An entry that waits for its room key, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWait {
    /// The entry.
    pub entry: EntryId,
    /// The session whose room key is missing.
    pub session: String,
    /// For how long its room key has been waited for, by the clock or by the time that the bridge ran: the longer.
    pub age: Duration,
    /// For how long the bridge ran while the room key was waited for.
    pub waited: Duration,
    /// Whether people were notified of it.
    pub has_notice: bool,
}

/// Entries of one sender that one set of notices reports. None of them waits any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedGroup {
    /// Its id.
    pub group: i64,
    /// Where they were sent.
    pub place: Place,
    /// Who sent them.
    pub sender: String,
    /// The fixed word for the reason.
    pub reason: String,
    /// Entries whose room keys arrived.
    pub decrypted: u64,
    /// Entries that were decrypted and are not relayed.
    pub skipped: u64,
    /// Entries that the bridge no longer waits for.
    pub failed: u64,
}

impl Store {
    /// The entries that wait for a room key. First adds `ran`, the time that the bridge ran since the last call, to the time that
    /// each has waited. No entry has waited for longer than it exists, and one on trust hold does not age.
    pub async fn age_key_waits(&self, ran: Duration, now: Millis) -> Result<Vec<KeyWait>, Error> {
        self.transaction("age the undecryptable entries", move |tx| {
            tx.sql
                .prepare_cached(
                    "UPDATE journal SET key_waited_ms = key_waited_ms + max(0, min(?1, ?2 - accepted_at))
                     WHERE missing_session IS NOT NULL
                     AND NOT EXISTS (SELECT 1 FROM trust_hold WHERE entry_id = journal.id)",
                )?
                .execute(params![Millis::default().plus(ran), now])?;
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT id, missing_session, accepted_at, key_waited_ms, undecryptable_group_id FROM journal
                     INDEXED BY journal_missing_session WHERE missing_session IS NOT NULL ORDER BY id",
                )?
                .query_map([], |row| key_wait_from_row(row, now))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The room key of an entry is not expected any more: its deliveries end as failed. Returns whether it still waited.
    pub async fn fail_key_wait(&self, entry: EntryId, now: Millis) -> Result<bool, Error> {
        self.transaction("fail an undecryptable entry", move |tx| {
            let waits = tx
                .sql
                .prepare_cached(
                    "SELECT 1 FROM journal WHERE id = ?1 AND missing_session IS NOT NULL",
                )?
                .exists([entry])?;
            if !waits {
                return Ok(false);
            }
            end(tx, entry, "its key never arrived", now)?;
            Ok(true)
        })
        .await
    }

    /// Groups without a waiting entry, without a notice about that yet.
    pub async fn resolved_groups(&self) -> Result<Vec<ResolvedGroup>, Error> {
        self.read("look for resolved groups", |tx| {
            Ok(tx
                .sql
                .prepare_cached(&format!("{RESOLVED} ORDER BY m.id"))?
                .query_map([], resolved_from_row)?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Groups whose notices still say that events are undecryptable although none of them waits any more: each with its device.
    pub async fn outdated_groups(&self) -> Result<Vec<(ResolvedGroup, Option<String>)>, Error> {
        self.read("look for outdated notices", |tx| {
            Ok(tx
                .sql
                .prepare_cached(&format!(
                    "SELECT id, place, sender, reason, decrypted, skipped, failed, device
                     FROM undecryptable_group WHERE {NOTICE_OUTDATED} ORDER BY id"
                ))?
                .query_map([], |row| Ok((resolved_from_row(row)?, row.get(7)?)))?
                .collect::<Result<_, _>>()?)
        })
        .await
    }
}
/// The pending deliveries of an entry that waits end as failed, for this reason.
pub(crate) fn end(tx: &Tx<'_>, entry: EntryId, why: &str, now: Millis) -> Result<(), TxError> {
    count(tx, entry, KeyWaitEnd::Failed)?;
    for pending in counters::pending_of_entry(tx.sql, entry)? {
        parked::record_failure(tx, &pending, why, now)?;
        counters::settle(tx, &pending, DeliveryEnd::Failed)?;
    }
    counters::erase_payload_if_unneeded(tx, entry)
}

/// How the wait of an entry ends.
#[derive(Clone, Copy)]
pub(crate) enum KeyWaitEnd {
    Decrypted,
    Skipped,
    Failed,
}

/// Counts the end of a wait, if people were notified of it.
pub(crate) fn count(tx: &Tx<'_>, entry: EntryId, ending: KeyWaitEnd) -> Result<(), TxError> {
    let update = match ending {
        KeyWaitEnd::Decrypted => "UPDATE undecryptable_group SET decrypted = decrypted + 1",
        KeyWaitEnd::Skipped => "UPDATE undecryptable_group SET skipped = skipped + 1",
        KeyWaitEnd::Failed => "UPDATE undecryptable_group SET failed = failed + 1",
    };
    tx.sql
        .prepare_cached(&format!(
            "{update} WHERE id = (SELECT undecryptable_group_id FROM journal WHERE id = ?1)"
        ))?
        .execute([entry])?;
    Ok(())
}

/// Whether nothing of a group waits and its notices were not edited.
pub(crate) const NOTICE_OUTDATED: &str = "
    (notice_outdated = 1 OR resolved = 0 AND NOT EXISTS (
        SELECT 1 FROM journal j WHERE j.undecryptable_group_id = undecryptable_group.id AND j.missing_session IS NOT NULL))";

pub(crate) const RESOLVED: &str = "
    SELECT m.id, m.place, m.sender, m.reason, m.decrypted, m.skipped, m.failed FROM undecryptable_group m
    WHERE m.resolved = 0 AND NOT EXISTS (
        SELECT 1 FROM journal j WHERE j.undecryptable_group_id = m.id AND j.missing_session IS NOT NULL)";

pub(crate) fn resolved_from_row(row: &Row<'_>) -> rusqlite::Result<ResolvedGroup> {
    Ok(ResolvedGroup {
        group: row.get(0)?,
        place: row.get(1)?,
        sender: row.get(2)?,
        reason: row.get(3)?,
        decrypted: row.get(4)?,
        skipped: row.get(5)?,
        failed: row.get(6)?,
    })
}

fn key_wait_from_row(row: &Row<'_>, now: Millis) -> rusqlite::Result<KeyWait> {
    let accepted_at: Millis = row.get(2)?;
    let waited = row.get::<_, Millis>(3)?.since(Millis::default());
    Ok(KeyWait {
        entry: row.get(0)?,
        session: row.get(1)?,
        age: now.since(accepted_at).max(waited),
        waited,
        has_notice: row.get::<_, Option<i64>>(4)?.is_some(),
    })
}
