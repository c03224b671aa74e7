//! Desks: rooms in which the bridge answers although they are joined to nothing. A desk is a portal without another
//! end, so that an answer is a debt like any other.

use rusqlite::params;

use crate::{
    Error, LaneId, Millis, Place, Portal, PortalId, PortalSpec, RemoteId, Side, Store,
    database::{Desk, Fault},
    notices,
    portals::{self, Origin},
    removal,
};

/// The rule by which answers end that nobody can read any more.
const LEFT: &str = "room-left";

/// Where desks lead to.
fn nowhere() -> Place {
    Place::new("bridge", "desk")
}

impl Store {
    /// The bridge answers in this room from now on. With `greeting` it says so, once.
    pub async fn open_desk(
        &self,
        room: &Place,
        greeting: Option<Vec<u8>>,
        now: Millis,
    ) -> Result<(), Error> {
        let room = room.clone();
        self.transaction("open a desk", move |desk| {
            let portal = open(desk, &room, now)?;
            if let Some(letter) = &greeting {
                let lane = LaneId {
                    portal,
                    toward: Side::Matrix,
                };
                notices::notice(
                    desk,
                    lane,
                    &RemoteId(format!("greeting-{portal}-{}", now.0)),
                    letter,
                    now,
                )?;
            }
            Ok(())
        })
        .await
    }

    /// The bridge was put out of this room: it answers there no longer. Answers whether there was a desk.
    pub async fn close_desk(&self, room: &Place, now: Millis) -> Result<bool, Error> {
        let room = room.clone();
        self.transaction("close a desk", move |desk| {
            let mut open = portals::all(desk.sql)?;
            open.retain(|portal| {
                portal.active && portal.origin == Origin::Desk && portal.room == room
            });
            for portal in &open {
                removal::deactivate(desk, portal.id)?;
            }
            if !open.is_empty() {
                removal::clear_away(desk, LEFT, now)?;
            }
            Ok(!open.is_empty())
        })
        .await
    }

    /// The portals that run although the configuration does not name them: those that people made, and desks.
    pub async fn portals_beside_the_file(&self) -> Result<Vec<Portal>, Error> {
        let mut portals = self.portals().await?;
        portals.retain(|portal| portal.active && portal.origin != Origin::File);
        Ok(portals)
    }

    /// Says something in a room, once: through its portal, or else at its desk. Answers the lane to ring.
    pub async fn say(
        &self,
        place: &Place,
        fact: &RemoteId,
        letter: &[u8],
        now: Millis,
    ) -> Result<Option<LaneId>, Error> {
        let (place, fact, letter) = (place.clone(), fact.clone(), letter.to_owned());
        self.transaction("say something", move |desk| {
            say(desk, &place, &fact, &letter, now)
        })
        .await
    }
}

/// See [`Store::say`].
pub(crate) fn say(
    desk: &Desk<'_>,
    place: &Place,
    fact: &RemoteId,
    letter: &[u8],
    now: Millis,
) -> Result<Option<LaneId>, Fault> {
    let Some(lane) = portals::Graph::load(desk.sql)?.lane_to(place) else {
        return Ok(None);
    };
    let rung = notices::notice(desk, lane, fact, letter, now)?;
    if rung.is_some() {
        notices::hurry(desk)?;
    }
    Ok(rung)
}

/// The desk of a room, open.
pub(crate) fn open(desk: &Desk<'_>, room: &Place, now: Millis) -> Result<PortalId, Fault> {
    let known = desk
        .sql
        .prepare_cached(
            "SELECT id FROM portal WHERE room_place = ?1 AND origin = 'desk' AND active = 1",
        )?
        .query_map(params![room], |row| row.get(0))?
        .next()
        .transpose()?;
    if let Some(known) = known {
        return Ok(known);
    }
    let spec = PortalSpec {
        room: room.address().to_owned(),
        silo: "bridge".to_owned(),
        channel: "desk".to_owned(),
    };
    Ok(portals::open(desk, Origin::Desk, &spec, (room, &nowhere()), now)?.id)
}
