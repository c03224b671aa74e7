//! Openings: what was said before a portal was linked does not pass it, also where it is taken in after the link. A place
//! that was followed already may be behind by then: a homeserver was away, a feed catches up. Until all that was said there
//! before the link has been taken in, nothing that is taken in there passes the new portal.
//!
//! No clock decides about that, but what was asked for when: whatever was asked for after the link and has been answered to
//! the end has brought all that was said before it.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, params};

use crate::{
    Error, LaneId, Millis, Place, Portal, PortalId, Store,
    database::{Desk, Fault},
    paths::Net,
    portals::Graph,
};

/// The newest link at a moment: what is asked for from then on brings what was said before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkMark(i64);

impl Store {
    /// The newest link before which something may have been said in these places that is still to be taken in; `None` where
    /// there is none. To be asked before what they hold is asked for.
    pub async fn link_mark(&self, places: Vec<Place>) -> Result<Option<LinkMark>, Error> {
        self.read("look which links are new", move |desk| {
            let mut rows = desk.sql.prepare_cached("SELECT id, place FROM opening")?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut newest = None;
            for row in rows {
                let (id, place): (i64, Place) = row?;
                if places.contains(&place) {
                    newest = newest.max(Some(id));
                }
            }
            Ok(newest.map(LinkMark))
        })
        .await
    }

    /// All that was said in these places before that link has been taken in. Not in those of which something is still to be
    /// fetched.
    pub async fn heard_until(&self, places: Vec<Place>, mark: LinkMark) -> Result<(), Error> {
        self.transaction("let what is said pass new portals", move |desk| {
            for place in &places {
                desk.sql
                    .prepare_cached(
                        "DELETE FROM opening WHERE place = ?1 AND id <= ?2
                         AND NOT EXISTS (SELECT 1 FROM gap g WHERE g.place = ?1)",
                    )?
                    .execute(params![place, mark.0])?;
            }
            Ok(())
        })
        .await
    }
}

/// A portal was linked: from every place whose messages can pass it, and that was followed before, nothing passes yet.
pub(crate) fn linked(desk: &Desk<'_>, portal: &Portal) -> Result<(), Fault> {
    let graph = Graph::load(desk.sql)?;
    let reached = graph.reach(&portal.room).into_iter();
    let places = reached.map(|(_, place)| place);
    joined(desk, portal.id, places.chain([portal.room.clone()]))
}

/// Messages of these places can pass a portal from now on. What has no cursor begins anew, behind what was said there.
pub(crate) fn joined(
    desk: &Desk<'_>,
    portal: PortalId,
    places: impl IntoIterator<Item = Place>,
) -> Result<(), Fault> {
    for place in places {
        // A new number each time: what was asked for before the last link tells nothing of what came between.
        desk.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO opening (portal_id, place) SELECT ?1, ?2
                 WHERE EXISTS (SELECT 1 FROM cursor
                     WHERE name = ?2 OR substr(name, 1, length(?2) + 1) = ?2 || '/')",
            )?
            .execute(params![portal, place])?;
    }
    Ok(())
}

/// All that had been said in a place has been taken in when a portal was linked.
pub(crate) fn is_heard(desk: &Desk<'_>, portal: PortalId, place: &Place) -> Result<(), Fault> {
    desk.sql
        .prepare_cached("DELETE FROM opening WHERE portal_id = ?1 AND place = ?2")?
        .execute(params![portal, place])?;
    Ok(())
}

/// Every other place that is to get what is taken in of a place now, with the last lane on the way. One that was open when
/// it was said goes before a shorter one that is new.
pub(crate) fn ways(
    (graph, net): (&Graph, &Net),
    from: &Place,
    dated: Option<Millis>,
) -> Vec<(LaneId, Place)> {
    let mut reached = graph.reach(from);
    let unheard = net.unheard(from, dated);
    if unheard.is_empty() {
        return reached;
    }
    let older = graph.reach_by(from, |portal| !unheard.contains(&portal));
    for (lane, to) in &mut reached {
        let mut older = older.iter();
        if let Some((by, _)) = older.find(|(_, there)| there == to) {
            *lane = *by;
        }
    }
    reached
}

/// From which places nothing passes yet, by portal.
pub(crate) fn all(sql: &Connection) -> Result<HashMap<PortalId, HashSet<Place>>, Fault> {
    let mut all: HashMap<PortalId, HashSet<Place>> = HashMap::new();
    let mut rows = sql.prepare_cached("SELECT portal_id, place FROM opening")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        all.entry(row.get(0)?).or_default().insert(row.get(1)?);
    }
    Ok(all)
}
