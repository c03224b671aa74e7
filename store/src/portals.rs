//! Portals: which room is linked to which channel.

use std::collections::{HashSet, VecDeque};

use rusqlite::{Connection, Row, params};

use crate::{
    Error, LaneId, Millis, Place, PortalId, Side, SkipRule, Store,
    database::{Tx, TxError},
    link_barriers, removal,
};

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
    pub source: PortalSource,
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
pub enum PortalSource {
    /// The configuration.
    Config,
    /// The operator, on the command line.
    Operator,
    /// Users in a chat.
    Chat,
    /// The bridge: it is a management room, which is linked to no channel.
    Management,
}

impl PortalSource {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Operator => "operator",
            Self::Chat => "chat",
            Self::Management => "management",
        }
    }

    fn read(word: &str) -> Self {
        match word {
            "operator" => Self::Operator,
            "chat" => Self::Chat,
            "management" => Self::Management,
            _ => Self::Config,
        }
    }
}

impl Store {
    /// All portals that ever existed, by id.
    pub async fn portals(&self) -> Result<Vec<Portal>, Error> {
        self.read("read the portals", |tx| all(tx.sql)).await
    }

    /// Every other place to which active portals lead from here, through others too.
    pub async fn places_linked_to(&self, place: &Place) -> Result<HashSet<Place>, Error> {
        let place = place.clone();
        self.read("read the places linked to a place", move |tx| {
            let reached = PortalGraph::load(tx.sql)?.reach(&place);
            Ok(reached.into_iter().map(|(_, there)| there).collect())
        })
        .await
    }

    /// Links `room` and `channel` as the configuration says, or finds the portal that already does and updates its names. Makes
    /// it active.
    pub async fn open_portal(
        &self,
        spec: &PortalSpec,
        room: &Place,
        channel: &Place,
        now: Millis,
    ) -> Result<Portal, Error> {
        self.open_portal_of(PortalSource::Config, spec, room, channel, now)
            .await
    }

    /// The same for another source.
    pub async fn open_portal_of(
        &self,
        source: PortalSource,
        spec: &PortalSpec,
        room: &Place,
        channel: &Place,
        now: Millis,
    ) -> Result<Portal, Error> {
        let (spec, room, channel) = (spec.clone(), room.clone(), channel.clone());
        self.transaction("open a portal", move |tx| {
            open(tx, source, &spec, &room, &channel, now)
        })
        .await
    }

    /// Deactivates every portal of the configuration that is not listed, and settles its deliveries as skipped
    /// (`portal-removed`). The cursors of places without an active portal are deleted: linked again, they start anew, because the
    /// messages of the time between were not written to the bridge.
    pub async fn deactivate_unlisted_portals(
        &self,
        listed: &[PortalId],
        now: Millis,
    ) -> Result<(), Error> {
        let listed: HashSet<PortalId> = listed.iter().copied().collect();
        self.transaction("deactivate portals", move |tx| {
            let gone = all(tx.sql)?.into_iter().filter(|portal| {
                portal.active
                    && portal.source == PortalSource::Config
                    && !listed.contains(&portal.id)
            });
            for portal in gone {
                removal::deactivate(tx, portal.id)?;
            }
            removal::end_routeless_deliveries(tx, SkipRule::PortalRemoved, now).map(drop)
        })
        .await
    }
}

/// Links two places.
pub(crate) fn open(
    tx: &Tx<'_>,
    source: PortalSource,
    spec: &PortalSpec,
    room: &Place,
    channel: &Place,
    now: Millis,
) -> Result<Portal, TxError> {
    let is_linked = tx
        .sql
        .prepare_cached(
            "SELECT 1 FROM portal WHERE room_place = ?1 AND channel_place = ?2 AND active = 1",
        )?
        .exists(params![room, channel])?;
    let portal = tx.sql.query_row(
        "INSERT INTO portal (room_place, channel_place, room, silo, channel, active, linked_at, source,
                             linked_after)
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, (SELECT coalesce(max(id), 0) FROM journal))
         ON CONFLICT (room_place, channel_place) DO UPDATE
         SET room = excluded.room, silo = excluded.silo, channel = excluded.channel, active = 1,
             source = excluded.source,
             linked_at = CASE active WHEN 1 THEN linked_at ELSE excluded.linked_at END,
             linked_after = CASE active WHEN 1 THEN linked_after ELSE excluded.linked_after END,
             seen_unencrypted = CASE active WHEN 1 THEN seen_unencrypted ELSE 0 END
         RETURNING id, room, silo, channel, room_place, channel_place, active, source",
        params![room, channel, spec.room, spec.silo, spec.channel, now, source.as_str()],
        portal_from_row,
    )?;
    for toward in [Side::Matrix, Side::Silo] {
        tx.sql.execute(
            "INSERT INTO lane_counter (portal_id, toward) VALUES (?1, ?2)
             ON CONFLICT (portal_id, toward) DO NOTHING",
            params![portal.id, toward],
        )?;
    }
    if !is_linked && source != PortalSource::Management {
        link_barriers::add_for_portal(tx, &portal)?;
    }
    Ok(portal)
}

pub(crate) fn places<'p>(portals: impl Iterator<Item = &'p Portal>) -> HashSet<&'p Place> {
    portals
        .flat_map(|portal| [&portal.room, &portal.channel])
        .collect()
}

/// All portals, by id.
pub(crate) fn all(sql: &Connection) -> Result<Vec<Portal>, TxError> {
    Ok(sql
        .prepare_cached(
            "SELECT id, room, silo, channel, room_place, channel_place, active, source FROM portal ORDER BY id",
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
        source: PortalSource::read(row.get_ref(7)?.as_str()?),
    })
}

/// The active portals as a graph: rooms and channels are its points, portals its edges.
pub(crate) struct PortalGraph(Vec<Portal>);

impl PortalGraph {
    pub fn load(sql: &Connection) -> Result<Self, TxError> {
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
    pub fn lane_back(&self, from: &Place, to: &Place) -> Option<LaneId> {
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

    /// A lane that leads here. Where there is a portal, the room's management portal is not used.
    pub fn lane_to(&self, here: &Place) -> Option<LaneId> {
        let lane = self.edges(here).next().map(|(portal, toward, _)| LaneId {
            portal,
            toward: toward.opposite(),
        });
        lane.or_else(|| {
            self.management_room(here).map(|portal| LaneId {
                portal,
                toward: Side::Matrix,
            })
        })
    }

    /// Whether a room is linked to no channel and accepts commands.
    pub fn is_management_only(&self, here: &Place) -> bool {
        self.management_room(here).is_some() && self.reach(here).is_empty()
    }

    /// The portals that end here.
    pub fn portals_of(&self, here: &Place) -> Vec<PortalId> {
        self.edges(here).map(|(portal, ..)| portal).collect()
    }

    /// The management portal of a room in which the bridge answers.
    pub fn management_room(&self, here: &Place) -> Option<PortalId> {
        let mut all = self.0.iter();
        all.find(|portal| portal.source == PortalSource::Management && portal.room == *here)
            .map(|portal| portal.id)
    }

    fn edges<'a>(
        &'a self,
        here: &'a Place,
    ) -> impl Iterator<Item = (PortalId, Side, &'a Place)> + 'a {
        let portals = self.0.iter();
        let portals = portals.filter(|portal| portal.source != PortalSource::Management);
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
