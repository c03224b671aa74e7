//! Notices of the bridge: a notice is a delivery like any other, and can be edited later. Each has an id of its own, so that it
//! is sent once, whenever the process is killed.
//!
//! An edit's payload names the notice's id as what it edits.

use rusqlite::{OptionalExtension, params};

use crate::{
    Copy, EntryId, Error, LaneId, Millis, Payload, Place, RemoteId, Side, Store, columns,
    counters::{self, NewDelivery},
    database::{Tx, TxError},
    journal, links,
};

/// The network of the bridge's own notices. No portal leads to it.
const BRIDGE: &str = "bridge";

/// The place of all notices.
pub(crate) fn notice_place() -> Place {
    Place::new(BRIDGE, "notice")
}

/// Whether an entry is one of them, or an edit of one.
pub(crate) fn is_notice(tx: &Tx<'_>, entry: EntryId) -> Result<bool, TxError> {
    let place: Place = tx
        .sql
        .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
        .query_row([entry], |row| row.get(0))?;
    Ok(place == notice_place())
}

impl Store {
    /// Enqueues a notice for the place that the lane leads to. Returns the lane to wake; none if there was a notice with this id
    /// before, or if the portal is no longer active.
    pub async fn enqueue_notice(
        &self,
        lane: LaneId,
        notice_id: &RemoteId,
        payload: &[u8],
        now: Millis,
    ) -> Result<Option<LaneId>, Error> {
        let (notice_id, payload) = (notice_id.clone(), payload.to_owned());
        self.transaction("enqueue a notice", move |tx| {
            enqueue_notice(tx, lane, &notice_id, &payload, now)
        })
        .await
    }

    /// Enqueues an edit of a notice: `payload` edits the message whose id is `notice_id`. Returns the lane to wake; none if there
    /// is no such notice, or if its portal is no longer active.
    pub async fn edit_notice(
        &self,
        notice_id: &RemoteId,
        payload: &[u8],
        now: Millis,
    ) -> Result<Option<LaneId>, Error> {
        let (notice_id, payload) = (notice_id.clone(), payload.to_owned());
        self.transaction("edit a notice", move |tx| {
            edit_notice(tx, &notice_id, &payload, now)
        })
        .await
    }
}

/// See [`Store::enqueue_notice`].
pub(crate) fn enqueue_notice(
    tx: &Tx<'_>,
    lane: LaneId,
    notice_id: &RemoteId,
    payload: &[u8],
    now: Millis,
) -> Result<Option<LaneId>, TxError> {
    enqueue_notice_about(tx, lane, &notice_place(), notice_id, payload, now)
}

/// The same about the messages of a place: the notice and its edits are on hold and end like these.
pub(crate) fn enqueue_notice_about(
    tx: &Tx<'_>,
    lane: LaneId,
    about: &Place,
    notice_id: &RemoteId,
    payload: &[u8],
    now: Millis,
) -> Result<Option<LaneId>, TxError> {
    let Some(to) = end_of(tx, lane)? else {
        return Ok(None);
    };
    let new = tx
        .sql
        .prepare_cached(
            "INSERT INTO bridge_notice (notice_id, portal_id, toward, about_place) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (notice_id) DO NOTHING",
        )?
        .execute(params![notice_id, lane.portal, lane.toward, about])?;
    if new == 0 {
        return Ok(None);
    }
    let place = notice_place();
    let new = NewDelivery {
        entry: write(tx, notice_id, payload, now)?,
        place: &place,
        event_id: notice_id,
        lane,
        to: &to,
        from: about,
    };
    counters::enqueue(tx, new, now)?;
    Ok(Some(lane))
}

/// See [`Store::edit_notice`].
pub(crate) fn edit_notice(
    tx: &Tx<'_>,
    notice_id: &RemoteId,
    payload: &[u8],
    now: Millis,
) -> Result<Option<LaneId>, TxError> {
    let said = tx
        .sql
        .prepare_cached(
            "UPDATE bridge_notice SET edits = edits + 1 WHERE notice_id = ?1
             RETURNING portal_id, toward, edits, about_place",
        )?
        .query_row([notice_id], |row| {
            let change: i64 = row.get("edits")?;
            Ok((columns::lane(row)?, change, row.get("about_place")?))
        })
        .optional()?;
    let Some((lane, change, about)): Option<(LaneId, i64, Place)> = said else {
        return Ok(None);
    };
    let Some(to) = end_of(tx, lane)? else {
        return Ok(None);
    };
    let change = RemoteId(format!("{notice_id}.{change}"));
    let place = notice_place();
    let new = NewDelivery {
        entry: write(tx, &change, payload, now)?,
        place: &place,
        event_id: &change,
        lane,
        to: &to,
        from: &about,
    };
    counters::enqueue(tx, new, now)?;
    Ok(Some(lane))
}

/// The last delivery that this transaction enqueued precedes the backlog of its lane.
pub(crate) fn mark_urgent(tx: &Tx<'_>) -> Result<(), TxError> {
    tx.sql
        .prepare_cached("UPDATE outbox SET urgent = 1 WHERE id = (SELECT max(id) FROM outbox)")?
        .execute([])?;
    Ok(())
}

/// The end that the lane of an active portal leads to.
fn end_of(tx: &Tx<'_>, lane: LaneId) -> Result<Option<Place>, TxError> {
    let end = match lane.toward {
        Side::Matrix => "SELECT room_place FROM portal WHERE id = ?1 AND active = 1",
        Side::Silo => "SELECT channel_place FROM portal WHERE id = ?1 AND active = 1",
    };
    Ok(tx
        .sql
        .prepare_cached(end)?
        .query_row([lane.portal], |row| row.get(0))
        .optional()?)
}

/// Writes a notice, or an edit of one, to the journal.
fn write(
    tx: &Tx<'_>,
    notice_id: &RemoteId,
    payload: &[u8],
    now: Millis,
) -> Result<EntryId, TxError> {
    let place = notice_place();
    let entry = journal::insert_event(tx, &place, notice_id, now)?;
    journal::write_payload(tx, entry, &Payload::Ready(payload.to_owned()))?;
    // By this link an edit finds the copy of the notice.
    let original = Copy {
        remote: notice_id.clone(),
        thread: None,
        sent_at: now,
        file: None,
    };
    links::link(tx.sql, entry, &place, &original)?;
    Ok(entry)
}
