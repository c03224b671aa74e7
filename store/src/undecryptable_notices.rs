//! Notices about undecryptable entries: in the places where they do not appear, and in the room where they were sent.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use crate::{
    EntryId, Error, LaneId, Millis, Place, RemoteId, ResolvedGroup, Store, counters,
    database::{Tx, TxError},
    notices,
    portals::PortalGraph,
    undecryptable::{NOTICE_OUTDATED, RESOLVED, resolved_from_row},
};

/// What a notice about undecryptable entries reports.
#[derive(Clone, Debug)]
pub struct UndecryptableNotice {
    /// The entries. Those that do not wait any more, have no pending delivery or were reported before are left out.
    pub entries: Vec<EntryId>,
    /// Where they were sent.
    pub place: Place,
    /// Who sent them.
    pub sender: String,
    /// Why they are undecryptable: a fixed word.
    pub reason: String,
    /// Entries that follow within this span are reported by the same notice.
    pub merge_within: Duration,
    /// Whether the sender is notified, too, because the sender can remove the reason. Then other reasons have notices of their
    /// own.
    pub here: bool,
    /// The device that they come from, where the reason concerns the device.
    pub device: Option<String>,
}

/// Which text about undecryptable entries is needed.
#[derive(Clone, Copy, Debug)]
pub enum UndecryptableText<'a> {
    /// A notice where they do not appear.
    Elsewhere,
    /// An edit of that notice, which has this id.
    ElsewhereEdit(&'a RemoteId),
    /// A notice where they were sent, about the first of them.
    ToSender(&'a RemoteId),
    /// An edit of that notice.
    ToSenderEdit(&'a RemoteId),
    /// A marker on the first of them.
    Marker(&'a RemoteId),
    /// How it ended, for the room where they were sent and that has no notice.
    Resolution,
}

/// Renders a payload.
type Render<'a> = &'a dyn Fn(UndecryptableText<'_>) -> Option<Vec<u8>>;

/// How many senders of one room are notified in a day: whoever invents senders must not use up the account's rate limit.
const MAX_SENDER_NOTICES_PER_DAY: i64 = 6;
/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;

impl Store {
    /// Notifies people of undecryptable entries in every place that has a pending delivery of them. If others of the same sender
    /// were reported a short while ago, nobody is notified. `payload` renders the texts. Returns the lanes to wake.
    pub async fn notify_undecryptable(
        &self,
        notice: UndecryptableNotice,
        payload: impl Fn(UndecryptableText<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        self.transaction("notify of undecryptable entries", move |tx| {
            notify_undecryptable(tx, &notice, &payload, now)
        })
        .await
    }

    /// Tells people how a group ended. `payload` renders the edits of the notices, or a new notice for the room where the entries
    /// were sent if that has none; the notices stay as they are where it renders nothing. Nothing happens if the group has
    /// changed since. Returns the lanes to wake.
    pub async fn notify_resolved(
        &self,
        group: ResolvedGroup,
        payload: impl Fn(UndecryptableText<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        self.transaction("notify of a resolved group", move |tx| {
            let found = tx
                .sql
                .prepare_cached(&format!("{RESOLVED} AND m.id = ?1"))?
                .query_row([group.group], resolved_from_row)
                .optional()?;
            if found.as_ref() != Some(&group) {
                return Ok(Vec::new());
            }
            let graph = PortalGraph::load(tx.sql)?;
            let lanes = edit_notices(
                tx,
                group.group,
                lanes_from(&graph, &group.place),
                &payload,
                now,
            )?;
            let deliveries = lanes.is_empty();
            tx.sql
                .prepare_cached("UPDATE undecryptable_group SET resolved = 1, notice_outdated = ?2 WHERE id = ?1")?
                .execute(params![group.group, deliveries])?;
            let Some(back) = graph.room_lane(&group.place) else {
                return Ok(lanes);
            };
            // Once per number of failures: a group may be opened and resolved again.
            let notice_id = RemoteId(format!("lost-{}-{}", group.group, group.failed));
            let notice_id_of = is_sender_notified(tx, group.group)?;
            let said = match payload(UndecryptableText::Resolution).filter(|_| !notice_id_of) {
                Some(payload) => notices::enqueue_notice(tx, back, &notice_id, &payload, now)?,
                None => None,
            };
            Ok(lanes.into_iter().chain(said).collect())
        })
        .await
    }

    /// The notices of this group no longer apply. `payload` renders their edits. Returns the lanes to wake.
    pub async fn notify_obsolete(
        &self,
        group: ResolvedGroup,
        payload: impl Fn(UndecryptableText<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        self.transaction("edit obsolete notices", move |tx| {
            let stood = tx
                .sql
                .prepare_cached(&format!(
                    "UPDATE undecryptable_group SET notice_outdated = 0, resolved = 1 WHERE id = ?1 AND {NOTICE_OUTDATED}"
                ))?
                .execute([group.group])?;
            if stood == 0 {
                return Ok(Vec::new());
            }
            let graph = PortalGraph::load(tx.sql)?;
            edit_notices(
                tx,
                group.group,
                lanes_from(&graph, &group.place),
                &payload,
                now,
            )
        })
        .await
    }
}

/// The lanes to all other places that portals lead to from here.
fn lanes_from(graph: &PortalGraph, place: &Place) -> Vec<LaneId> {
    let lanes_from = graph.reach(place).into_iter();
    lanes_from.map(|(lane, _)| lane).collect()
}

/// Edits a group's notices at the ends of these lanes, and the one where the entries were sent.
fn edit_notices(
    tx: &Tx<'_>,
    group: i64,
    ends: Vec<LaneId>,
    payload: Render<'_>,
    now: Millis,
) -> Result<Vec<LaneId>, TxError> {
    let mut lanes = Vec::new();
    for lane in ends {
        let notice_id = notice_id_of(group, lane);
        if let Some(payload) = payload(UndecryptableText::ElsewhereEdit(&notice_id)) {
            lanes.extend(notices::edit_notice(tx, &notice_id, &payload, now)?);
        }
    }
    let notice_id = sender_notice_id(group);
    if let Some(payload) = payload(UndecryptableText::ToSenderEdit(&notice_id)) {
        lanes.extend(notices::edit_notice(tx, &notice_id, &payload, now)?);
    }
    Ok(lanes)
}

fn is_sender_notified(tx: &Tx<'_>, group: i64) -> Result<bool, TxError> {
    Ok(tx
        .sql
        .prepare_cached("SELECT 1 FROM undecryptable_group WHERE id = ?1 AND sender_notified = 1")?
        .exists([group])?)
}

/// The notice of a group where its entries were sent.
fn sender_notice_id(group: i64) -> RemoteId {
    RemoteId(format!("unread-{group}-here"))
}

/// The notice of a group in the place that a lane leads to.
fn notice_id_of(group: i64, lane: LaneId) -> RemoteId {
    RemoteId(format!(
        "unread-{group}-{}-{}",
        lane.portal,
        lane.toward.as_str()
    ))
}

fn notify_undecryptable(
    tx: &Tx<'_>,
    notice: &UndecryptableNotice,
    payload: Render<'_>,
    now: Millis,
) -> Result<Vec<LaneId>, TxError> {
    let waiting = unnotified(tx, &notice.entries)?;
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let before = tx
        .sql
        .prepare_cached(
            "SELECT id, resolved, notified_at, notice_outdated AND reason = ?3 FROM undecryptable_group
             WHERE place = ?1 AND sender = ?2 AND sender_can_fix = ?4 AND (reason = ?3 OR sender_can_fix = 0)
             ORDER BY id DESC LIMIT 1",
        )?
        .query_row(
            params![notice.place, notice.sender, notice.reason, notice.here],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .optional()?
        // A moment in the future is from before the clock was put back.
        .filter(|(_, _, at, _): &(i64, bool, Millis, bool)| now.since(*at) < notice.merge_within);
    if let Some((group, closed, _, still_true)) = before {
        add_to_group(tx, group, &waiting)?;
        if !closed {
            return Ok(Vec::new());
        }
        tx.sql
            .prepare_cached(
                "UPDATE undecryptable_group SET resolved = 0, notice_outdated = 0, reason = ?2, device = ?3 WHERE id = ?1",
            )?
            .execute(params![group, notice.reason, notice.device])?;
        if still_true {
            return Ok(Vec::new());
        }
        // An earlier notice says that nothing is missing, and that no longer applies.
        return edit_notices(tx, group, lanes_with_pending(tx, &waiting)?, payload, now);
    }
    let group = open_group(tx, notice, now)?;
    add_to_group(tx, group, &waiting)?;
    let mut lanes = Vec::new();
    for lane in lanes_with_pending(tx, &waiting)? {
        if let Some(payload) = payload(UndecryptableText::Elsewhere) {
            let id = notice_id_of(group, lane);
            let woken = notices::enqueue_notice_about(tx, lane, &notice.place, &id, &payload, now)?;
            lanes.extend(woken);
        }
    }
    if let (true, Some(first)) = (notice.here, waiting.first()) {
        let here = notify_sender(tx, group, *first, &notice.place, payload, now)?;
        lanes.extend(here);
    }
    Ok(lanes)
}

/// A new group. Earlier notices about the same sender stay as they are from now on: only the newest are edited.
fn open_group(tx: &Tx<'_>, notice: &UndecryptableNotice, now: Millis) -> Result<i64, TxError> {
    tx.sql
        .prepare_cached(
            "UPDATE undecryptable_group SET notice_outdated = 0
             WHERE notice_outdated = 1 AND place = ?1 AND sender = ?2 AND reason = ?3",
        )?
        .execute(params![notice.place, notice.sender, notice.reason])?;
    tx.sql
        .prepare_cached(
            "INSERT INTO undecryptable_group (place, sender, reason, notified_at, sender_can_fix, device)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            notice.place,
            notice.sender,
            notice.reason,
            now,
            notice.here,
            notice.device
        ])?;
    Ok(tx.sql.last_insert_rowid())
}

/// Those of these entries that wait, have a pending delivery, and were not reported.
fn unnotified(tx: &Tx<'_>, entries: &[EntryId]) -> Result<Vec<EntryId>, TxError> {
    let mut waiting = Vec::new();
    for entry in entries {
        let unnotified = tx
            .sql
            .prepare_cached(
                "SELECT 1 FROM journal j WHERE id = ?1 AND missing_session IS NOT NULL AND undecryptable_group_id IS NULL
                 AND EXISTS (SELECT 1 FROM outbox WHERE entry_id = j.id)",
            )?
            .exists([entry])?;
        if unnotified {
            waiting.push(*entry);
        }
    }
    Ok(waiting)
}

/// The lanes with a pending delivery of these entries.
fn lanes_with_pending(tx: &Tx<'_>, entries: &[EntryId]) -> Result<Vec<LaneId>, TxError> {
    let mut lanes = Vec::new();
    for entry in entries {
        for pending in counters::pending_of_entry(tx.sql, *entry)? {
            if !lanes.contains(&pending.lane) {
                lanes.push(pending.lane);
            }
        }
    }
    Ok(lanes)
}

/// Tells the sender of an entry that it is undecryptable, and puts a marker on it.
fn notify_sender(
    tx: &Tx<'_>,
    group: i64,
    first: EntryId,
    place: &Place,
    payload: Render<'_>,
    now: Millis,
) -> Result<Vec<LaneId>, TxError> {
    let Some(lane) = PortalGraph::load(tx.sql)?.room_lane(place) else {
        return Ok(Vec::new());
    };
    let notice_id_of: i64 = tx
        .sql
        .prepare_cached(
            "SELECT count(*) FROM undecryptable_group WHERE place = ?1 AND sender_notified = 1 AND notified_at > ?2",
        )?
        .query_row(params![place, Millis(now.0 - DAY_MS)], |row| row.get(0))?;
    if notice_id_of >= MAX_SENDER_NOTICES_PER_DAY {
        return Ok(Vec::new());
    }
    let first: RemoteId = tx
        .sql
        .prepare_cached("SELECT event_id FROM journal WHERE id = ?1")?
        .query_row([first], |row| row.get(0))?;
    tx.sql
        .prepare_cached("UPDATE undecryptable_group SET sender_notified = 1 WHERE id = ?1")?
        .execute([group])?;
    let mut lanes = Vec::new();
    let mark = RemoteId(format!("unread-{group}-mark"));
    for (notice_id, payload) in [
        (mark, payload(UndecryptableText::Marker(&first))),
        (
            sender_notice_id(group),
            payload(UndecryptableText::ToSender(&first)),
        ),
    ] {
        if let Some(payload) = payload {
            lanes.extend(notices::enqueue_notice(
                tx, lane, &notice_id, &payload, now,
            )?);
        }
    }
    Ok(lanes)
}

fn add_to_group(tx: &Tx<'_>, group: i64, entries: &[EntryId]) -> Result<(), TxError> {
    for entry in entries {
        tx.sql
            .prepare_cached("UPDATE journal SET undecryptable_group_id = ?2 WHERE id = ?1")?
            .execute(params![entry, group])?;
    }
    Ok(())
}
