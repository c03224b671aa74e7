//! Management rooms: rooms in which the bridge answers although they are linked to no channel. A management room is a portal
//! without a channel, so that an answer is a delivery like any other.

use rusqlite::params;

use crate::{
    Error, LaneId, Millis, Place, PortalId, PortalSpec, RemoteId, Side, SkipRule, Store,
    database::{Tx, TxError},
    notices,
    portals::{self, PortalSource},
    removal,
};

/// The place that stands for the missing channel.
fn management_target() -> Place {
    Place::new("bridge", "management")
}

impl Store {
    /// The bridge answers in this room from now on. With `greeting` it says so, once.
    pub async fn open_management_room(
        &self,
        room: &Place,
        greeting: Option<Vec<u8>>,
        now: Millis,
    ) -> Result<(), Error> {
        let room = room.clone();
        self.transaction("open a management room", move |tx| {
            let portal = open_management(tx, &room, now)?;
            if let Some(payload) = &greeting {
                let lane = LaneId {
                    portal,
                    toward: Side::Matrix,
                };
                notices::enqueue_notice(
                    tx,
                    lane,
                    &RemoteId(format!("greeting-{portal}-{}", now.0)),
                    payload,
                    now,
                )?;
            }
            Ok(())
        })
        .await
    }

    /// The bridge was removed from this room: it no longer answers there. Returns whether it was a management room.
    pub async fn close_management_room(&self, room: &Place, now: Millis) -> Result<bool, Error> {
        let room = room.clone();
        self.transaction("close a management room", move |tx| {
            let mut open = portals::all(tx.sql)?;
            open.retain(|portal| {
                portal.active && portal.source == PortalSource::Management && portal.room == room
            });
            for portal in &open {
                removal::deactivate(tx, portal.id)?;
            }
            if !open.is_empty() {
                removal::end_routeless_deliveries(tx, SkipRule::RoomLeft, now)?;
            }
            Ok(!open.is_empty())
        })
        .await
    }

    /// Sends a notice to a room, once: through its portal, or else through the management room. Returns the lane to wake.
    pub async fn send_notice(
        &self,
        place: &Place,
        notice_id: &RemoteId,
        payload: &[u8],
        now: Millis,
    ) -> Result<Option<LaneId>, Error> {
        let (place, notice_id, payload) = (place.clone(), notice_id.clone(), payload.to_owned());
        self.transaction("send a notice", move |tx| {
            send_notice(tx, &place, &notice_id, &payload, now)
        })
        .await
    }
}

/// See [`Store::send_notice`].
pub(crate) fn send_notice(
    tx: &Tx<'_>,
    place: &Place,
    notice_id: &RemoteId,
    payload: &[u8],
    now: Millis,
) -> Result<Option<LaneId>, TxError> {
    let Some(lane) = portals::PortalGraph::load(tx.sql)?.lane_to(place) else {
        return Ok(None);
    };
    let woken = notices::enqueue_notice(tx, lane, notice_id, payload, now)?;
    if woken.is_some() {
        notices::mark_urgent(tx)?;
    }
    Ok(woken)
}

/// The management room's portal, opened if necessary.
pub(crate) fn open_management(tx: &Tx<'_>, room: &Place, now: Millis) -> Result<PortalId, TxError> {
    let known = tx
        .sql
        .prepare_cached(
            "SELECT id FROM portal WHERE room_place = ?1 AND source = 'management' AND active = 1",
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
        channel: "management".to_owned(),
    };
    Ok(portals::open(
        tx,
        PortalSource::Management,
        &spec,
        room,
        &management_target(),
        now,
    )?
    .id)
}
