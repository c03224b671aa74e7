//! Removal of a portal, at once and completely. Its pending deliveries end and are counted, their payloads are erased, and only
//! ids stay.

use std::collections::{HashMap, HashSet};

use rusqlite::params;

use crate::{
    DeliveryId, EntryId, Error, LaneId, Millis, Place, PortalId, RemoteId, Side, SkipRule, Store,
    bundles, columns, commands,
    counters::{self, DeliveryEnd},
    cursors,
    database::{Tx, TxError},
    management_rooms, notices, parked,
    portals::{self, PortalSource},
    reactions,
    routes::RoutingTable,
};

/// The result of a removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many portals were removed.
    pub portals: usize,
    /// How many pending messages are not sent any more.
    pub dropped: usize,
    /// Lanes to wake.
    pub lanes: Vec<LaneId>,
}

impl Store {
    /// Removes portals. Their rooms become management rooms, in which `notice` (called with the number of dropped messages) is the
    /// notice; with `question` it is that command's answer. Portals that are no longer linked are ignored, and there is no notice
    /// then.
    pub async fn remove_portals(
        &self,
        gone: &[PortalId],
        question: Option<EntryId>,
        notice: impl Fn(usize) -> Option<Vec<u8>> + Send + Sync + 'static,
        now: Millis,
    ) -> Result<Removed, Error> {
        let gone = gone.to_vec();
        self.transaction("unlink a portal", move |tx| {
            let mut removed = Removed::default();
            let mut rooms = Vec::new();
            let mut lanes: Vec<LaneId> = Vec::new();
            for portal in portals::all(tx.sql)? {
                let named = gone.contains(&portal.id) && portal.source != PortalSource::Management;
                if !named || !portal.active {
                    continue;
                }
                // In these lanes deliveries that were bundled with removed ones are sent by themselves now.
                lanes.extend(RoutingTable::load(tx.sql, now)?.affected_lanes(portal.id));
                deactivate(tx, portal.id)?;
                removed.portals += 1;
                rooms.push((portal.id, portal.room));
            }
            if removed.portals == 0 {
                return Ok(removed);
            }
            // Before the removal deletes cursors, so that the cursor of the room stays.
            for (_, room) in &rooms {
                management_rooms::open_management(tx, room, now)?;
            }
            removed.dropped = end_routeless_deliveries(tx, SkipRule::Unlinked, now)?;
            for (portal, room) in &rooms {
                removed
                    .lanes
                    .extend(say(tx, *portal, room, notice(removed.dropped), now)?);
            }
            lanes.retain(|lane| !rooms.iter().any(|(gone, _)| *gone == lane.portal));
            removed.lanes.extend(lanes);
            if let Some(question) = question {
                commands::close(tx, question)?;
            }
            Ok(removed)
        })
        .await
    }
}

/// Sends the notice about the removed portal to the management room.
fn say(
    tx: &Tx<'_>,
    portal: PortalId,
    room: &Place,
    payload: Option<Vec<u8>>,
    now: Millis,
) -> Result<Option<LaneId>, TxError> {
    let Some(payload) = payload else {
        return Ok(None);
    };
    let lane = LaneId {
        portal: management_rooms::open_management(tx, room, now)?,
        toward: Side::Matrix,
    };
    let notice_id = RemoteId(format!("unlinked-{portal}-{}", now.0));
    let woken = notices::enqueue_notice(tx, lane, &notice_id, &payload, now)?;
    if woken.is_some() {
        notices::mark_urgent(tx)?;
    }
    Ok(woken)
}

/// A portal accepts nothing any more, and its consent is void.
pub(crate) fn deactivate(tx: &Tx<'_>, portal: PortalId) -> Result<(), TxError> {
    for forget in [
        "UPDATE portal SET active = 0 WHERE id = ?1",
        "DELETE FROM consent WHERE portal_id = ?1",
        "DELETE FROM portal_hold WHERE portal_id = ?1",
        "DELETE FROM newcomer WHERE portal_id = ?1",
        "DELETE FROM link_barrier WHERE portal_id = ?1",
    ] {
        tx.sql.prepare_cached(forget)?.execute([portal])?;
    }
    Ok(())
}

/// Ends the pending deliveries whose routes need portals that are not linked any more, in the lanes of these portals and in other
/// lanes, erases what could be retried of them, and deletes the cursors of places without an active portal: linked again, they
/// start anew, because the messages of the time between were not written to the bridge. Returns how many messages are not sent
/// any more.
pub(crate) fn end_routeless_deliveries(
    tx: &Tx<'_>,
    rule: SkipRule,
    now: Millis,
) -> Result<usize, TxError> {
    let mut dropped = HashSet::new();
    let ended = counters::pending_without_route(tx.sql)?;
    bundles::split_bundles_of(tx, &ended, now)?;
    for pending in ended {
        if is_message(tx, pending.entry)? {
            dropped.insert(pending.entry);
        }
        reactions::forget_unshown(tx, pending.entry, &pending.to)?;
        counters::settle(tx, &pending, DeliveryEnd::Skipped(rule))?;
    }
    erase_retryable_without_route(tx)?;
    // The media links of a room end with its last portal.
    tx.sql
        .prepare_cached(
            "DELETE FROM media_link WHERE entry_id IN (SELECT id FROM journal WHERE place NOT IN
             (SELECT room_place FROM portal WHERE active = 1 AND source <> 'management'))",
        )?
        .execute([])?;
    let all = portals::all(tx.sql)?;
    let used: HashSet<&Place> = portals::places(all.iter().filter(|portal| portal.active));
    for place in portals::places(all.iter()).difference(&used) {
        cursors::forget(tx, place)?;
    }
    Ok(dropped.len())
}

/// Ends a delivery that no route of linked portals leads to its place any more and whose outcome is not unknown.
pub(crate) fn end_if_no_route(tx: &Tx<'_>, delivery: DeliveryId) -> Result<(), TxError> {
    let Some(pending) = counters::pending(tx.sql, delivery)? else {
        return Ok(());
    };
    let linked = RoutingTable::load(tx.sql, Millis::default())?.linked(pending.lane);
    if !linked.allows(&pending.from, pending.entry) {
        counters::settle(tx, &pending, DeliveryEnd::Skipped(SkipRule::Unlinked))?;
    }
    Ok(())
}

/// A delivery whose place no route of linked portals leads to any more cannot be retried.
fn erase_retryable_without_route(tx: &Tx<'_>) -> Result<(), TxError> {
    let routing = RoutingTable::load(tx.sql, Millis::default())?;
    let sources = tx
        .sql
        .prepare("SELECT DISTINCT portal_id, toward, from_place FROM parked_delivery WHERE retryable = 1")?
        .query_map([], |row| Ok((columns::lane(row)?, row.get(2)?)))?
        .collect::<Result<Vec<(LaneId, Place)>, _>>()?;
    let mut known = HashMap::new();
    for (lane, from) in sources {
        let linked = known.entry(lane).or_insert_with(|| routing.linked(lane));
        let until = linked.linked_after(&from);
        parked::erase_retryable_until(tx, params![lane.portal, lane.toward, from, until])?;
    }
    Ok(())
}

/// Whether a person wrote it, and not the bridge.
fn is_message(tx: &Tx<'_>, entry: EntryId) -> Result<bool, TxError> {
    Ok(tx
        .sql
        .prepare_cached("SELECT 1 FROM journal WHERE id = ?1 AND place <> ?2")?
        .exists(params![entry, notices::notice_place()])?)
}
