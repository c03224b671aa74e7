//! What people ask of the bridge. A question is a fact like any message, written down before anything is done
//! about it; its answer is a debt to the place where it was asked, made once.

use rusqlite::params;

use crate::{
    EntryId, Error, LaneId, Millis, Place, RemoteId, Store,
    database::{Desk, Fault},
    journal, notices,
    portals::Graph,
    settle,
};

/// A question that has no answer yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The entry.
    pub entry: EntryId,
    /// Where it was asked.
    pub place: Place,
    /// Its id there.
    pub fact: RemoteId,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// What was asked, opened.
    pub letter: Vec<u8>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command")
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// What was asked and has no answer, oldest first.
    pub async fn commands(&self) -> Result<Vec<Command>, Error> {
        self.read("read the open questions", |desk| {
            let mut open = desk
                .sql
                .prepare_cached(
                    "SELECT c.entry_id, j.place, j.fact, j.accepted_at FROM command c
                     JOIN journal j ON j.id = c.entry_id ORDER BY c.entry_id",
                )?
                .query_map([], |row| {
                    Ok(Command {
                        entry: row.get(0)?,
                        place: row.get(1)?,
                        fact: row.get(2)?,
                        accepted_at: row.get(3)?,
                        letter: Vec::new(),
                    })
                })?
                .collect::<Result<Vec<_>, _>>()?;
            for command in &mut open {
                command.letter = journal::open_letter(desk, command.entry)?.unwrap_or_default();
            }
            Ok(open)
        })
        .await
    }

    /// The question has its answer, or needs none: it is closed, and `answer` is owed to where it was asked.
    /// Answered already, nothing happens. Answers the lane to ring.
    pub async fn answer(
        &self,
        question: EntryId,
        answer: Option<Vec<u8>>,
        now: Millis,
    ) -> Result<Option<LaneId>, Error> {
        self.transaction("answer a question", move |desk| {
            if !close(desk, question)? {
                return Ok(None);
            }
            let place: Place = desk
                .sql
                .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
                .query_row([question], |row| row.get(0))?;
            let lane = Graph::load(desk.sql)?.lane_to(&place);
            let Some((letter, lane)) = answer.as_ref().zip(lane) else {
                return Ok(None);
            };
            let fact = RemoteId(format!("answer-{question}"));
            let rung = notices::notice(desk, lane, &fact, letter, now)?;
            if rung.is_some() {
                notices::hurry(desk)?;
            }
            Ok(rung)
        })
        .await
    }
}

/// The entry is a question that waits for its answer.
pub(crate) fn ask(desk: &Desk<'_>, entry: EntryId) -> Result<(), Fault> {
    desk.sql
        .prepare_cached("INSERT INTO command (entry_id) VALUES (?1)")?
        .execute(params![entry])?;
    Ok(())
}

/// The question is closed. Answers whether it was open.
pub(crate) fn close(desk: &Desk<'_>, question: EntryId) -> Result<bool, Fault> {
    let open = desk
        .sql
        .prepare_cached("DELETE FROM command WHERE entry_id = ?1")?
        .execute([question])?;
    if open > 0 {
        settle::erase_unneeded(desk, question)?;
    }
    Ok(open > 0)
}
