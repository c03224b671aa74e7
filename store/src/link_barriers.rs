//! Link barriers: messages from before a portal was linked do not pass it, also where they are accepted after the link. A place
//! that was already followed may be behind at that time: a homeserver was away, a feed catches up. Until all events from before
//! the link have been accepted there, nothing that is accepted there passes the new portal.
//!
//! No clock decides that, but the order of requests: a request that was made after the link, and answered completely, has
//! returned everything from before the link.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, params};

use crate::{
    Error, LaneId, Millis, Place, Portal, PortalId, Store,
    database::{Tx, TxError},
    portals::PortalGraph,
    routes::RoutingTable,
};

/// The newest link at some time: whatever is requested from then on brings what was sent before the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkBarrier(i64);

impl Store {
    /// The newest link from before which events of these places may still arrive; `None` where there is none. To be called before
    /// the places' events are requested.
    pub async fn newest_link_barrier(
        &self,
        places: Vec<Place>,
    ) -> Result<Option<LinkBarrier>, Error> {
        self.read("look for link barriers", move |tx| {
            let mut rows = tx
                .sql
                .prepare_cached("SELECT id, place FROM link_barrier")?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut newest = None;
            for row in rows {
                let (id, place): (i64, Place) = row?;
                if places.contains(&place) {
                    newest = newest.max(Some(id));
                }
            }
            Ok(newest.map(LinkBarrier))
        })
        .await
    }

    /// All events of these places from before that link have been accepted. The barriers of places with a gap stay.
    pub async fn lift_link_barriers(
        &self,
        places: Vec<Place>,
        mark: LinkBarrier,
    ) -> Result<(), Error> {
        self.transaction("lift link barriers", move |tx| {
            for place in &places {
                tx.sql
                    .prepare_cached(
                        "DELETE FROM link_barrier WHERE place = ?1 AND id <= ?2
                         AND NOT EXISTS (SELECT 1 FROM gap g WHERE g.place = ?1)",
                    )?
                    .execute(params![place, mark.0])?;
            }
            Ok(())
        })
        .await
    }
}

/// A portal was linked: from every place whose messages can pass it, and that was already followed, nothing passes it yet.
pub(crate) fn add_for_portal(tx: &Tx<'_>, portal: &Portal) -> Result<(), TxError> {
    let graph = PortalGraph::load(tx.sql)?;
    let reached = graph.reach(&portal.room).into_iter();
    let places = reached.map(|(_, place)| place);
    add(tx, portal.id, places.chain([portal.room.clone()]))
}

/// Messages of these places can pass a portal from now on. A place without a cursor gets no barrier: its listener starts after
/// the messages of before.
pub(crate) fn add(
    tx: &Tx<'_>,
    portal: PortalId,
    places: impl IntoIterator<Item = Place>,
) -> Result<(), TxError> {
    for place in places {
        // A new number each time: a request from before the last link proves nothing about the time in between.
        tx.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO link_barrier (portal_id, place) SELECT ?1, ?2
                 WHERE EXISTS (SELECT 1 FROM cursor
                     WHERE name = ?2 OR substr(name, 1, length(?2) + 1) = ?2 || '/')",
            )?
            .execute(params![portal, place])?;
    }
    Ok(())
}

/// All events of a place had been accepted when a portal was linked.
pub(crate) fn lift(tx: &Tx<'_>, portal: PortalId, place: &Place) -> Result<(), TxError> {
    tx.sql
        .prepare_cached("DELETE FROM link_barrier WHERE portal_id = ?1 AND place = ?2")?
        .execute(params![portal, place])?;
    Ok(())
}

/// Every other place that gets what is accepted of a place now, with the last lane on the route. A route without barriers is
/// preferred to a shorter one with barriers.
pub(crate) fn routes(
    graph: &PortalGraph,
    routing: &RoutingTable,
    from: &Place,
    out_of_order_at: Option<Millis>,
) -> Vec<(LaneId, Place)> {
    let mut reached = graph.reach(from);
    let barred_portals = routing.barred_portals(from, out_of_order_at);
    if barred_portals.is_empty() {
        return reached;
    }
    let out_of_order = graph.reach_by(from, |portal| !barred_portals.contains(&portal));
    for (lane, to) in &mut reached {
        let mut out_of_order = out_of_order.iter();
        if let Some((by, _)) = out_of_order.find(|(_, there)| there == to) {
            *lane = *by;
        }
    }
    reached
}

/// The places from which nothing passes yet, by portal.
pub(crate) fn all(sql: &Connection) -> Result<HashMap<PortalId, HashSet<Place>>, TxError> {
    let mut all: HashMap<PortalId, HashSet<Place>> = HashMap::new();
    let mut rows = sql.prepare_cached("SELECT portal_id, place FROM link_barrier")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        all.entry(row.get(0)?).or_default().insert(row.get(1)?);
    }
    Ok(all)
}
