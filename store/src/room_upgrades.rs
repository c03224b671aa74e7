//! Room upgrades: rooms with a tombstone. Their portals are on hold until it is decided whether to follow.

use rusqlite::{OptionalExtension, params};

use crate::{
    Error, LaneId, Millis, Place, PortalId, RemoteId, Store,
    cursors::Flag,
    database::{Tx, TxError},
    holds, link_barriers, management_rooms,
    portals::PortalGraph,
    routes::RoutingTable,
};

/// The tombstone of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The room.
    pub room: Place,
    /// The id of the room that takes its place.
    pub successor: String,
    /// Who sent it.
    pub sender: String,
}

/// A room with a tombstone, and the decision about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomUpgrade {
    /// Its tombstone.
    pub tombstone: Tombstone,
    /// Since when.
    pub seen_at: Millis,
    /// Whether it was encrypted.
    pub was_encrypted: bool,
    /// Why it is not followed, if that was decided.
    pub refused: Option<String>,
}

impl Store {
    /// The rooms with a tombstone whose portals wait.
    pub async fn room_upgrades(&self) -> Result<Vec<RoomUpgrade>, Error> {
        self.read("read the room upgrades", |tx| {
            Ok(tx
                .sql
                .prepare_cached(
                    "SELECT u.room_place, u.successor, u.sender, u.seen_at, u.refusal_reason,
                            EXISTS (SELECT 1 FROM place_flag f
                                    WHERE f.place = u.room_place AND f.flag = ?1)
                     FROM room_upgrade u ORDER BY u.seen_at",
                )?
                .query_map([Flag::EverEncrypted.as_str()], |row| {
                    Ok(RoomUpgrade {
                        tombstone: Tombstone {
                            room: row.get(0)?,
                            successor: row.get(1)?,
                            sender: row.get(2)?,
                        },
                        seen_at: row.get(3)?,
                        refused: row.get(4)?,
                        was_encrypted: row.get(5)?,
                    })
                })?
                .collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The bridge does not follow, for this reason.
    pub async fn refuse_room_upgrade(&self, room: &Place, why: &str) -> Result<(), Error> {
        let (room, why) = (room.clone(), why.to_owned());
        self.transaction("refuse a room upgrade", move |tx| {
            tx.sql
                .prepare_cached(
                    "UPDATE room_upgrade SET refusal_reason = ?2 WHERE room_place = ?1",
                )?
                .execute(params![room, why])?;
            Ok(())
        })
        .await
    }

    /// Follows: the portals of the old room become those of the new one, with their pending deliveries, and a notice there says
    /// so. `encrypted`: whether the new room is encrypted. Returns the lanes to wake.
    pub async fn follow_room_upgrade(
        &self,
        old: &Place,
        new: &Place,
        encrypted: bool,
        notice: &[u8],
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        let (old, new, notice) = (old.clone(), new.clone(), notice.to_owned());
        self.transaction("follow a room upgrade", move |tx| {
            let before = PortalGraph::load(tx.sql)?;
            let portals: Vec<PortalId> = tx
                .sql
                .prepare_cached(
                    "UPDATE OR IGNORE portal SET room_place = ?2
                     WHERE room_place = ?1 AND active = 1 AND source <> 'management' RETURNING id",
                )?
                .query_map(params![old, new], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for moved in [
                "UPDATE OR IGNORE outbox SET to_place = ?2 WHERE to_place = ?1",
                "UPDATE OR IGNORE parked_delivery SET to_place = ?2 WHERE to_place = ?1 AND retryable = 1",
                // What has gone into the old room is known there; what has not goes into the new one as it was edited.
                "UPDATE OR IGNORE rewritten SET to_place = ?2 WHERE to_place = ?1
                 AND (EXISTS (SELECT 1 FROM outbox o
                          WHERE o.entry_id = rewritten.entry_id AND o.to_place = ?2)
                      OR EXISTS (SELECT 1 FROM parked_delivery p
                          WHERE p.entry_id = rewritten.entry_id AND p.to_place = ?2 AND p.retryable = 1))",
                "UPDATE outbox SET from_place = ?2 WHERE from_place = ?1",
                "UPDATE bridge_notice SET about_place = ?2 WHERE about_place = ?1",
                "UPDATE parked_delivery SET from_place = ?2 WHERE from_place = ?1",
            ] {
                tx.sql.prepare_cached(moved)?.execute(params![old, new])?;
            }
            if encrypted {
                tx.sql
                    .prepare_cached(
                        "INSERT INTO place_flag (place, flag, set_at) VALUES (?1, ?2, ?3)
                         ON CONFLICT (place, flag) DO NOTHING",
                    )?
                    .execute(params![new, Flag::EverEncrypted.as_str(), now])?;
            }
            tx.sql
                .prepare_cached("DELETE FROM room_upgrade WHERE room_place = ?1")?
                .execute([&old])?;
            let mut lanes = Vec::new();
            for portal in &portals {
                tx.sql
                    .prepare_cached(
                        "DELETE FROM portal_hold WHERE portal_id = ?1 AND reason = 'upgraded'",
                    )?
                    .execute([portal])?;
            }
            add_barriers_for_merge(tx, &before, &old, &new, &portals)?;
            let routing = RoutingTable::load(tx.sql, now)?;
            for portal in portals {
                lanes.extend(routing.affected_lanes(portal));
            }
            let notice_id = RemoteId(format!("followed-{old}-{new}"));
            lanes.extend(management_rooms::send_notice(tx, &new, &notice_id, &notice, now)?);
            Ok(lanes)
        })
        .await
    }
}

/// The room upgrade joins the places behind the old room's portals with those that were linked to the new one: messages from
/// before it pass between them as little as through a new portal.
fn add_barriers_for_merge(
    tx: &Tx<'_>,
    before: &PortalGraph,
    old: &Place,
    new: &Place,
    moved: &[PortalId],
) -> Result<(), TxError> {
    let reach = |from: &Place| -> Vec<Place> {
        let reached = before.reach(from).into_iter();
        reached.map(|(_, place)| place).collect()
    };
    let (theirs, ours) = (reach(old), reach(new));
    if theirs.contains(new) {
        return Ok(());
    }
    let there = before.portals_of(new);
    for portal in moved {
        link_barriers::add(tx, *portal, ours.iter().chain([new]).cloned())?;
    }
    for portal in there {
        link_barriers::add(tx, portal, theirs.iter().cloned())?;
    }
    Ok(())
}

/// A room has a tombstone: its portals wait until it is decided whether to follow.
pub(crate) fn note_tombstone(
    tx: &Tx<'_>,
    tombstone: &Tombstone,
    now: Millis,
) -> Result<(), TxError> {
    let portals: Vec<PortalId> = tx
        .sql
        .prepare_cached(
            "SELECT id FROM portal WHERE room_place = ?1 AND active = 1 AND source <> 'management'",
        )?
        .query_map([&tombstone.room], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let known: Option<String> = tx
        .sql
        .prepare_cached("SELECT successor FROM room_upgrade WHERE room_place = ?1")?
        .query_row([&tombstone.room], |row| row.get(0))
        .optional()?;
    if portals.is_empty() || known.as_ref() == Some(&tombstone.successor) {
        return Ok(());
    }
    for portal in portals {
        holds::hold(tx, portal, "upgraded", &tombstone.sender, now)?;
    }
    tx.sql
        .prepare_cached(
            "INSERT INTO room_upgrade (room_place, successor, sender, seen_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (room_place) DO UPDATE SET successor = excluded.successor,
                 sender = excluded.sender, seen_at = excluded.seen_at, refusal_reason = NULL",
        )?
        .execute(params![
            tombstone.room,
            tombstone.successor,
            tombstone.sender,
            now
        ])?;
    Ok(())
}
