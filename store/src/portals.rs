//! Portals: which room is joined to which channel.

use std::collections::{HashSet, VecDeque};

use rusqlite::{Connection, Row, params};

use crate::{
    Error, LaneId, Millis, Place, PortalId, Side, Store,
    database::{Desk, Fault},
    openings, removal,
};

/// The rule by which the debts of a removed portal end.
const REMOVED: &str = "portal-removed";

/// A portal as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortalSpec {
    /// Room alias or id.
    pub room: String,
    /// The silo's name.
    pub silo: String,
    /// The channel's name in the silo.
    pub channel: String,
}

/// A portal whose both ends are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Its row.
    pub id: PortalId,
    /// How the configuration names it.
    pub spec: PortalSpec,
    /// The room.
    pub room: Place,
    /// The channel.
    pub channel: Place,
    /// Whether it is still linked. An inactive portal accepts nothing.
    pub active: bool,
    /// Who made it.
    pub origin: Origin,
}

impl Portal {
    /// The room as people know it: as the configuration names it, or, where a portal has followed its room into
    /// another one and that name is the old one's id, the id of the room in which it is now.
    #[must_use]
    pub fn room_name(&self) -> &str {
        let named = self.spec.room.as_str();
        if named.starts_with('!') {
            self.room.address()
        } else {
            named
        }
    }

    /// The id of the room that the portal was made for, if it has followed that into another one.
    #[must_use]
    pub fn moved_from(&self) -> Option<&str> {
        let named = self.spec.room.as_str();
        (named != self.room_name()).then_some(named)
    }
}

/// Who made a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It stands in the configuration.
    File,
    /// The operator, on the command line.
    Operator,
    /// People in a chat.
    Chat,
    /// It is none: a room in which the bridge only answers.
    Desk,
}

impl Origin {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Operator => "operator",
            Self::Chat => "chat",
            Self::Desk => "desk",
        }
    }

    fn read(word: &str) -> Self {
        match word {
            "operator" => Self::Operator,
            "chat" => Self::Chat,
            "desk" => Self::Desk,
            _ => Self::File,
        }
    }
}

impl Store {
    /// All portals ever opened, by id.
    pub async fn portals(&self) -> Result<Vec<Portal>, Error> {
        self.read("read the portals", |desk| all(desk.sql)).await
    }

    /// Every other place to which active portals lead from here, over others too.
    pub async fn joined_to(&self, place: &Place) -> Result<HashSet<Place>, Error> {
        let place = place.clone();
        self.read("read what is joined to a place", move |desk| {
            let reached = Graph::load(desk.sql)?.reach(&place);
            Ok(reached.into_iter().map(|(_, there)| there).collect())
        })
        .await
    }

    /// Joins `room` and `channel` as the configuration says, or finds the portal that already does and updates its
    /// names. Makes it active.
    pub async fn open_portal(
        &self,
        spec: &PortalSpec,
        room: &Place,
        channel: &Place,
        now: Millis,
    ) -> Result<Portal, Error> {
        let ends = (room.clone(), channel.clone());
        self.open_portal_of(Origin::File, spec, ends, now).await
    }

    /// The same for whoever asked for it.
    pub async fn open_portal_of(
        &self,
        origin: Origin,
        spec: &PortalSpec,
        (room, channel): (Place, Place),
        now: Millis,
    ) -> Result<Portal, Error> {
        let spec = spec.clone();
        self.transaction("open a portal", move |desk| {
            open(desk, origin, &spec, (&room, &channel), now)
        })
        .await
    }

    /// Makes inactive every portal of the configuration not listed, and settles their debts as skipped (`portal-removed`). How far
    /// places were read that no active portal has is forgotten: linked again they begin anew, because what was
    /// said meanwhile was not said to the bridge.
    pub async fn keep_portals(&self, listed: &[PortalId], now: Millis) -> Result<(), Error> {
        let listed: HashSet<PortalId> = listed.iter().copied().collect();
        self.transaction("put portals away", move |desk| {
            let gone = all(desk.sql)?.into_iter().filter(|portal| {
                portal.active && portal.origin == Origin::File && !listed.contains(&portal.id)
            });
            for portal in gone {
                removal::deactivate(desk, portal.id)?;
            }
            removal::clear_away(desk, REMOVED, now).map(drop)
        })
        .await
    }
}

/// Joins two places.
pub(crate) fn open(
    desk: &Desk<'_>,
    origin: Origin,
    spec: &PortalSpec,
    (room, channel): (&Place, &Place),
    now: Millis,
) -> Result<Portal, Fault> {
    let is_linked = desk
        .sql
        .prepare_cached(
            "SELECT 1 FROM portal WHERE room_place = ?1 AND channel_place = ?2 AND active = 1",
        )?
        .exists(params![room, channel])?;
    let portal = desk.sql.query_row(
        "INSERT INTO portal (room_place, channel_place, room, silo, channel, active, opened_at, origin,
                             opened_after)
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, (SELECT coalesce(max(id), 0) FROM journal))
         ON CONFLICT (room_place, channel_place) DO UPDATE
         SET room = excluded.room, silo = excluded.silo, channel = excluded.channel, active = 1,
             origin = excluded.origin,
             opened_at = CASE active WHEN 1 THEN opened_at ELSE excluded.opened_at END,
             opened_after = CASE active WHEN 1 THEN opened_after ELSE excluded.opened_after END,
             seen_clear = CASE active WHEN 1 THEN seen_clear ELSE 0 END
         RETURNING id, room, silo, channel, room_place, channel_place, active, origin",
        params![room, channel, spec.room, spec.silo, spec.channel, now, origin.as_str()],
        portal_from_row,
    )?;
    for toward in [Side::Matrix, Side::Silo] {
        desk.sql.execute(
            "INSERT INTO tally (portal_id, toward) VALUES (?1, ?2)
             ON CONFLICT (portal_id, toward) DO NOTHING",
            params![portal.id, toward],
        )?;
    }
    if !is_linked && origin != Origin::Desk {
        openings::linked(desk, &portal)?;
    }
    Ok(portal)
}

pub(crate) fn places<'p>(portals: impl Iterator<Item = &'p Portal>) -> HashSet<&'p Place> {
    portals
        .flat_map(|portal| [&portal.room, &portal.channel])
        .collect()
}

/// All portals, by id.
pub(crate) fn all(sql: &Connection) -> Result<Vec<Portal>, Fault> {
    Ok(sql
        .prepare_cached(
            "SELECT id, room, silo, channel, room_place, channel_place, active, origin FROM portal ORDER BY id",
        )?
        .query_map([], portal_from_row)?
        .collect::<Result<_, _>>()?)
}

fn portal_from_row(row: &Row<'_>) -> rusqlite::Result<Portal> {
    Ok(Portal {
        id: row.get(0)?,
        spec: PortalSpec {
            room: row.get(1)?,
            silo: row.get(2)?,
            channel: row.get(3)?,
        },
        room: row.get(4)?,
        channel: row.get(5)?,
        active: row.get(6)?,
        origin: Origin::read(row.get_ref(7)?.as_str()?),
    })
}

/// The active portals as a graph: rooms and channels are its points, portals its edges.
pub(crate) struct Graph(Vec<Portal>);

impl Graph {
    pub fn load(sql: &Connection) -> Result<Self, Fault> {
        let mut portals = all(sql)?;
        portals.retain(|portal| portal.active);
        Ok(Self(portals))
    }

    /// Every other place that portals lead to from here, nearest first, each with the lane that walks the last
    /// edge to it.
    pub fn reach(&self, from: &Place) -> Vec<(LaneId, Place)> {
        self.reach_by(from, |_| true)
    }

    /// The same by these portals only.
    pub fn reach_by(
        &self,
        from: &Place,
        passes: impl Fn(PortalId) -> bool,
    ) -> Vec<(LaneId, Place)> {
        let mut seen = HashSet::from([from]);
        let mut open = VecDeque::from([from]);
        let mut reached = Vec::new();
        while let Some(here) = open.pop_front() {
            for (portal, toward, there) in self.edges(here) {
                if passes(portal) && seen.insert(there) {
                    open.push_back(there);
                    reached.push((LaneId { portal, toward }, there.clone()));
                }
            }
        }
        reached
    }

    /// The lane that leads to `to` on the way from `from`.
    pub fn back(&self, from: &Place, to: &Place) -> Option<LaneId> {
        self.reach(from)
            .into_iter()
            .find_map(|(lane, place)| (place == *to).then_some(lane))
    }

    /// The lane that leads back into a room from the first of its portals: all of them lead to the same people.
    pub fn room_lane(&self, room: &Place) -> Option<LaneId> {
        let mut reached = self.reach(room).into_iter().map(|(lane, _)| lane);
        let lane = reached.find(|lane| lane.toward == Side::Silo)?;
        Some(LaneId {
            toward: Side::Matrix,
            ..lane
        })
    }

    /// Some lane that leads here. Where there is a portal, the room's desk is not needed.
    pub fn lane_to(&self, here: &Place) -> Option<LaneId> {
        let lane = self.edges(here).next().map(|(portal, toward, _)| LaneId {
            portal,
            toward: toward.opposite(),
        });
        lane.or_else(|| {
            self.desk(here).map(|portal| LaneId {
                portal,
                toward: Side::Matrix,
            })
        })
    }

    /// Whether a room is joined to nothing, and questions are heard in it.
    pub fn only_asks(&self, here: &Place) -> bool {
        self.desk(here).is_some() && self.reach(here).is_empty()
    }

    /// The portals that end here.
    pub fn portals_of(&self, here: &Place) -> Vec<PortalId> {
        self.edges(here).map(|(portal, ..)| portal).collect()
    }

    /// The desk of a room in which the bridge answers.
    pub fn desk(&self, here: &Place) -> Option<PortalId> {
        let mut all = self.0.iter();
        all.find(|portal| portal.origin == Origin::Desk && portal.room == *here)
            .map(|portal| portal.id)
    }

    fn edges<'a>(
        &'a self,
        here: &'a Place,
    ) -> impl Iterator<Item = (PortalId, Side, &'a Place)> + 'a {
        let portals = self.0.iter();
        let portals = portals.filter(|portal| portal.origin != Origin::Desk);
        portals.filter_map(move |portal| {
            if portal.room == *here {
                Some((portal.id, Side::Silo, &portal.channel))
            } else if portal.channel == *here {
                Some((portal.id, Side::Matrix, &portal.room))
            } else {
                None
            }
        })
    }
}
