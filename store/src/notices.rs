//! What the bridge itself has to say: a notice is a debt like any other, and can be changed later. Each has a
//! fact of its own, by which it is said once, whatever is killed when.
//!
//! A change is an edit of the notice: its letter names the notice's fact as what it edits.

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, Error, LaneId, Millis, Payload, Place, RemoteId, Side, Store, columns,
    database::{Desk, Fault},
    journal, links, settle,
};

/// The network of what the bridge itself has to say. No portal leads to it.
const BRIDGE: &str = "bridge";

/// Where all notices come from.
pub(crate) fn home() -> Place {
    Place::new(BRIDGE, "notice")
}

impl Store {
    /// Owes a notice to the place the lane leads to. Answers the lane to ring; none if this fact was said
    /// before, or if the portal is no longer active.
    pub async fn notice(
        &self,
        lane: LaneId,
        fact: &RemoteId,
        letter: &[u8],
        now: Millis,
    ) -> Result<Option<LaneId>, Error> {
        let (fact, letter) = (fact.clone(), letter.to_owned());
        self.transaction("owe a notice", move |desk| {
            notice(desk, lane, &fact, &letter, now)
        })
        .await
    }

    /// Owes a change of a notice: `letter` edits the message whose id is `fact`. Answers the lane to ring; none
    /// if there is no such notice, or if its portal is no longer active.
    pub async fn change_notice(
        &self,
        fact: &RemoteId,
        letter: &[u8],
        now: Millis,
    ) -> Result<Option<LaneId>, Error> {
        let (fact, letter) = (fact.clone(), letter.to_owned());
        self.transaction("owe a changed notice", move |desk| {
            change_notice(desk, &fact, &letter, now)
        })
        .await
    }
}

/// See [`Store::notice`].
pub(crate) fn notice(
    desk: &Desk<'_>,
    lane: LaneId,
    fact: &RemoteId,
    letter: &[u8],
    now: Millis,
) -> Result<Option<LaneId>, Fault> {
    notice_about(desk, lane, &home(), (fact, letter), now)
}

/// The same about what was said in a place: the notice, and every change of it, is held up and ends like what was said
/// there.
pub(crate) fn notice_about(
    desk: &Desk<'_>,
    lane: LaneId,
    about: &Place,
    (fact, letter): (&RemoteId, &[u8]),
    now: Millis,
) -> Result<Option<LaneId>, Fault> {
    let Some(to) = end_of(desk, lane)? else {
        return Ok(None);
    };
    let new = desk
        .sql
        .prepare_cached(
            "INSERT INTO notice (fact, portal_id, toward, about_place) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (fact) DO NOTHING",
        )?
        .execute(params![fact, lane.portal, lane.toward, about])?;
    if new == 0 {
        return Ok(None);
    }
    owe(desk, (about, (lane, &to)), fact, letter, now)?;
    Ok(Some(lane))
}

/// See [`Store::change_notice`].
pub(crate) fn change_notice(
    desk: &Desk<'_>,
    fact: &RemoteId,
    letter: &[u8],
    now: Millis,
) -> Result<Option<LaneId>, Fault> {
    let said = desk
        .sql
        .prepare_cached(
            "UPDATE notice SET changes = changes + 1 WHERE fact = ?1
             RETURNING portal_id, toward, changes, about_place",
        )?
        .query_row([fact], |row| {
            let change: i64 = row.get("changes")?;
            Ok((columns::lane(row)?, change, row.get("about_place")?))
        })
        .optional()?;
    let Some((lane, change, about)): Option<(LaneId, i64, Place)> = said else {
        return Ok(None);
    };
    let Some(to) = end_of(desk, lane)? else {
        return Ok(None);
    };
    let change = RemoteId(format!("{fact}.{change}"));
    owe(desk, (&about, (lane, &to)), &change, letter, now)?;
    Ok(Some(lane))
}

/// What was owed last in this transaction goes before the backlog of its lane.
pub(crate) fn hurry(desk: &Desk<'_>) -> Result<(), Fault> {
    desk.sql
        .prepare_cached("UPDATE outbox SET urgent = 1 WHERE id = (SELECT max(id) FROM outbox)")?
        .execute([])?;
    Ok(())
}

/// Where the lane of an active portal leads to.
fn end_of(desk: &Desk<'_>, lane: LaneId) -> Result<Option<Place>, Fault> {
    let end = match lane.toward {
        Side::Matrix => "SELECT room_place FROM portal WHERE id = ?1 AND active = 1",
        Side::Silo => "SELECT channel_place FROM portal WHERE id = ?1 AND active = 1",
    };
    Ok(desk
        .sql
        .prepare_cached(end)?
        .query_row([lane.portal], |row| row.get(0))
        .optional()?)
}

fn owe(
    desk: &Desk<'_>,
    debt: (&Place, (LaneId, &Place)),
    fact: &RemoteId,
    letter: &[u8],
    now: Millis,
) -> Result<(), Fault> {
    let place = home();
    let entry = journal::write_fact(desk, &place, fact, now)?;
    journal::write_letter(desk, entry, &Payload::Ready(letter.to_owned()))?;
    // By this link a change finds the copy that was made of the notice.
    let original = Copy {
        remote: fact.clone(),
        thread: None,
        sent_at: now,
        file: None,
    };
    links::link(desk.sql, entry, &place, &original)?;
    settle::owe_about(desk, entry, (&place, fact), debt, now)
}
