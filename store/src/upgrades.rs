//! Rooms that say they have moved. Nothing crosses until it is decided whether to follow.

use rusqlite::{OptionalExtension, params};

use crate::{
    Error, LaneId, Millis, Place, PortalId, RemoteId, Store,
    database::{Desk, Fault},
    desks, holds, openings,
    paths::Net,
    portals::Graph,
    progress::Flag,
};

/// The last event of a room that has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The room.
    pub room: Place,
    /// The id of the room that takes its place.
    pub successor: String,
    /// Who says so.
    pub sender: String,
}

/// A room that has moved, and what was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// What it says.
    pub tombstone: Tombstone,
    /// Since when.
    pub seen_at: Millis,
    /// Whether it was encrypted.
    pub was_encrypted: bool,
    /// Why it is not followed, if that was decided.
    pub refused: Option<String>,
}

impl Store {
    /// The rooms that have moved and whose portals wait.
    pub async fn upgrades(&self) -> Result<Vec<Upgrade>, Error> {
        self.read("read which rooms have moved", |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT u.room_place, u.successor, u.sender, u.seen_at, u.refused,
                            EXISTS (SELECT 1 FROM flag f
                                    WHERE f.place = u.room_place AND f.flag = ?1)
                     FROM upgrade u ORDER BY u.seen_at",
                )?
                .query_map([Flag::EverEncrypted.as_str()], |row| {
                    Ok(Upgrade {
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

    /// It was decided not to follow.
    pub async fn refuse_upgrade(&self, room: &Place, why: &str) -> Result<(), Error> {
        let (room, why) = (room.clone(), why.to_owned());
        self.transaction("refuse to follow a room", move |desk| {
            desk.sql
                .prepare_cached("UPDATE upgrade SET refused = ?2 WHERE room_place = ?1")?
                .execute(params![room, why])?;
            Ok(())
        })
        .await
    }

    /// Follows: the portals of the old room are those of the new one, with all they owe, and that is said there. Answers
    /// the lanes to ring.
    pub async fn follow_upgrade(
        &self,
        old: &Place,
        (new, encrypted): (&Place, bool),
        told: &[u8],
        now: Millis,
    ) -> Result<Vec<LaneId>, Error> {
        let (old, new, told) = (old.clone(), new.clone(), told.to_owned());
        self.transaction("follow a room", move |desk| {
            let before = Graph::load(desk.sql)?;
            let portals: Vec<PortalId> = desk
                .sql
                .prepare_cached(
                    "UPDATE OR IGNORE portal SET room_place = ?2
                     WHERE room_place = ?1 AND active = 1 AND origin <> 'desk' RETURNING id",
                )?
                .query_map(params![old, new], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for moved in [
                "UPDATE OR IGNORE outbox SET to_place = ?2 WHERE to_place = ?1",
                "UPDATE OR IGNORE parked SET to_place = ?2 WHERE to_place = ?1 AND kept = 1",
                "UPDATE outbox SET from_place = ?2 WHERE from_place = ?1",
                "UPDATE notice SET about_place = ?2 WHERE about_place = ?1",
                "UPDATE parked SET from_place = ?2 WHERE from_place = ?1",
            ] {
                desk.sql.prepare_cached(moved)?.execute(params![old, new])?;
            }
            if encrypted {
                desk.sql
                    .prepare_cached(
                        "INSERT INTO flag (place, flag, raised_at) VALUES (?1, ?2, ?3)
                         ON CONFLICT (place, flag) DO NOTHING",
                    )?
                    .execute(params![new, Flag::EverEncrypted.as_str(), now])?;
            }
            desk.sql
                .prepare_cached("DELETE FROM upgrade WHERE room_place = ?1")?
                .execute([&old])?;
            let mut lanes = Vec::new();
            for portal in &portals {
                desk.sql
                    .prepare_cached(
                        "DELETE FROM hold WHERE portal_id = ?1 AND reason = 'upgraded'",
                    )?
                    .execute([portal])?;
            }
            meet(desk, &before, (&old, &new), &portals)?;
            let net = Net::load(desk.sql, now)?;
            for portal in portals {
                lanes.extend(net.around(portal));
            }
            let fact = RemoteId(format!("followed-{old}-{new}"));
            lanes.extend(desks::say(desk, &new, &fact, &told, now)?);
            Ok(lanes)
        })
        .await
    }
}

/// What the portals of the old room lead to, and what led to the new one before, are joined by it now: what had been said
/// on either side before passes to the other as little as through a new portal.
fn meet(
    desk: &Desk<'_>,
    before: &Graph,
    (old, new): (&Place, &Place),
    moved: &[PortalId],
) -> Result<(), Fault> {
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
        openings::joined(desk, *portal, ours.iter().chain([new]).cloned())?;
    }
    for portal in there {
        openings::joined(desk, portal, theirs.iter().cloned())?;
    }
    Ok(())
}

/// A room has moved: its portals wait until it is decided whether to follow.
pub(crate) fn moved(desk: &Desk<'_>, tombstone: &Tombstone, now: Millis) -> Result<(), Fault> {
    let portals: Vec<PortalId> = desk
        .sql
        .prepare_cached(
            "SELECT id FROM portal WHERE room_place = ?1 AND active = 1 AND origin <> 'desk'",
        )?
        .query_map([&tombstone.room], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let known: Option<String> = desk
        .sql
        .prepare_cached("SELECT successor FROM upgrade WHERE room_place = ?1")?
        .query_row([&tombstone.room], |row| row.get(0))
        .optional()?;
    if portals.is_empty() || known.as_ref() == Some(&tombstone.successor) {
        return Ok(());
    }
    for portal in portals {
        holds::hold(desk, portal, "upgraded", &tombstone.sender, now)?;
    }
    desk.sql
        .prepare_cached(
            "INSERT INTO upgrade (room_place, successor, sender, seen_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (room_place) DO UPDATE SET successor = excluded.successor,
                 sender = excluded.sender, seen_at = excluded.seen_at, refused = NULL",
        )?
        .execute(params![
            tombstone.room,
            tombstone.successor,
            tombstone.sender,
            now
        ])?;
    Ok(())
}
