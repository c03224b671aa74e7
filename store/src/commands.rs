//! Commands to the bridge. A command is an event like any message, written down before anything is done about it. Its answer is a
//! delivery to the place of the command, and is made once.

use rusqlite::params;

use crate::{
    EntryId, Error, LaneId, Millis, Place, RemoteId, Store, counters,
    database::{Tx, TxError},
    journal, notices,
    portals::PortalGraph,
};

/// A command that has no answer yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The entry.
    pub entry: EntryId,
    /// Where it was given.
    pub place: Place,
    /// Its id there.
    pub event_id: RemoteId,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// The command, decrypted.
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command")
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The commands that have no answer, oldest first.
    pub async fn commands(&self) -> Result<Vec<Command>, Error> {
        self.read("read the open commands", |tx| {
            let mut open = tx
                .sql
                .prepare_cached(
                    "SELECT c.entry_id, j.place, j.event_id, j.accepted_at FROM command c
                     JOIN journal j ON j.id = c.entry_id ORDER BY c.entry_id",
                )?
                .query_map([], |row| {
                    Ok(Command {
                        entry: row.get(0)?,
                        place: row.get(1)?,
                        event_id: row.get(2)?,
                        accepted_at: row.get(3)?,
                        payload: Vec::new(),
                    })
                })?
                .collect::<Result<Vec<_>, _>>()?;
            for command in &mut open {
                command.payload = journal::open_payload(tx, command.entry)?.unwrap_or_default();
            }
            Ok(open)
        })
        .await
    }

    /// The command is answered, or needs no answer: it is closed, and `answer` is enqueued for its place. Answered already,
    /// nothing happens. Returns the lane to wake.
    pub async fn answer_command(
        &self,
        question: EntryId,
        answer: Option<Vec<u8>>,
        now: Millis,
    ) -> Result<Option<LaneId>, Error> {
        self.transaction("answer a command", move |tx| {
            if !close(tx, question)? {
                return Ok(None);
            }
            let place: Place = tx
                .sql
                .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
                .query_row([question], |row| row.get(0))?;
            let lane = PortalGraph::load(tx.sql)?.lane_to(&place);
            let Some((payload, lane)) = answer.as_ref().zip(lane) else {
                return Ok(None);
            };
            let event_id = RemoteId(format!("answer-{question}"));
            let woken = notices::enqueue_notice(tx, lane, &event_id, payload, now)?;
            if woken.is_some() {
                notices::mark_urgent(tx)?;
            }
            Ok(woken)
        })
        .await
    }
}

/// The entry is a command that waits for its answer.
pub(crate) fn add(tx: &Tx<'_>, entry: EntryId) -> Result<(), TxError> {
    tx.sql
        .prepare_cached("INSERT INTO command (entry_id) VALUES (?1)")?
        .execute(params![entry])?;
    Ok(())
}

/// Closes the command. Returns whether it was open.
pub(crate) fn close(tx: &Tx<'_>, question: EntryId) -> Result<bool, TxError> {
    let open = tx
        .sql
        .prepare_cached("DELETE FROM command WHERE entry_id = ?1")?
        .execute([question])?;
    if open > 0 {
        counters::erase_payload_if_unneeded(tx, question)?;
    }
    Ok(open > 0)
}
