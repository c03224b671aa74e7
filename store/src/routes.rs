//! Routes: the chain of portals by which a message comes from its place to another place. A delivery is sent while no portal of a
//! route is on hold, waits while each route has a portal on hold, and ends when no route of linked portals is left. The last
//! portal of a route is always the one whose lane has the delivery.

use std::collections::{HashMap, HashSet, VecDeque};

use rusqlite::{Connection, params};

use crate::{
    DeliveryId, EntryId, LaneId, Millis, Place, PortalId, Side, SkipRule, Store, bundles,
    database::{Tx, TxError},
    holds::LACKS_CONSENT,
    link_barriers, notices, retry, rewritten,
};

/// A linked portal.
struct Edge {
    portal: PortalId,
    room: Place,
    channel: Place,
    /// Entries up to this one were accepted before it was linked.
    linked_after: EntryId,
    /// When it was linked.
    opened_at: Millis,
    /// Messages from these places do not pass it yet: they may be from before the link.
    barred_portals: HashSet<Place>,
    held: HoldState,
    /// Somebody has consented, and no event was accepted in the room yet that was sent after the delay.
    delayed: bool,
    /// It is a management room, linked to no channel.
    is_management: bool,
}

impl Edge {
    /// Whether what is accepted of a place now was sent after the link, as far as that is known.
    fn is_past_barrier(&self, from: &Place, out_of_order_at: Option<Millis>) -> bool {
        !self.barred_portals.contains(from)
            && out_of_order_at.is_none_or(|out_of_order_at| out_of_order_at >= self.opened_at)
    }
}

/// For how long a portal lets only notices of the bridge pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HoldState {
    /// Not at all.
    No,
    /// Until then.
    Until(Millis),
    /// Until somebody does something.
    Open,
}

/// One route.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Its portals in the order and directions in which they are passed.
    pub hops: Vec<LaneId>,
    /// Only entries after this one may take it: earlier, not all of its portals were linked.
    pub linked_after: EntryId,
}

/// The routes that end with one lane, by the place where they begin.
pub(crate) struct Routes(HashMap<Place, Route>);

impl Routes {
    /// Whether this entry may be sent from this place.
    pub fn allows(&self, from: &Place, entry: EntryId) -> bool {
        self.route(from, entry).is_some()
    }

    /// The route of this entry from this place.
    pub fn route(&self, from: &Place, entry: EntryId) -> Option<&Route> {
        self.0.get(from).filter(|path| entry > path.linked_after)
    }

    /// The newest entry that may not be sent from this place.
    pub fn linked_after(&self, from: &Place) -> EntryId {
        self.0
            .get(from)
            .map_or(EntryId(i64::MAX), |path| path.linked_after)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&Place, &Route)> {
        self.0.iter()
    }
}

/// The linked portals, and which of them are on hold.
pub(crate) struct RoutingTable(Vec<Edge>);

impl RoutingTable {
    /// The table for this moment.
    pub fn load(sql: &Connection, now: Millis) -> Result<Self, TxError> {
        let mut barred_portals = link_barriers::all(sql)?;
        let mut edges = sql.prepare_cached(&format!(
            "SELECT p.id, p.room_place, p.channel_place, p.linked_after, p.source = 'management',
                    p.linked_at,
                    EXISTS (SELECT 1 FROM portal_hold h WHERE h.portal_id = p.id) OR ({LACKS_CONSENT}),
                    (SELECT c.effective_at FROM consent c
                     WHERE c.portal_id = p.id AND c.effective_at > ?1),
                    EXISTS (SELECT 1 FROM consent c WHERE c.portal_id = p.id AND c.active = 0)
             FROM portal p WHERE p.active = 1"
        ))?;
        let edges = edges.query_map([now], |row| {
            let held = match (row.get(6)?, row.get(7)?) {
                (true, _) => HoldState::Open,
                (false, Some(until)) => HoldState::Until(until),
                (false, None) => HoldState::No,
            };
            let portal = row.get(0)?;
            Ok(Edge {
                portal,
                room: row.get(1)?,
                channel: row.get(2)?,
                linked_after: row.get(3)?,
                is_management: row.get(4)?,
                opened_at: row.get(5)?,
                delayed: row.get(8)?,
                barred_portals: barred_portals.remove(&portal).unwrap_or_default(),
                held,
            })
        })?;
        Ok(Self(edges.collect::<Result<_, _>>()?))
    }

    /// The routes that end with this lane and have no portal on hold.
    pub fn open(&self, lane: LaneId) -> Routes {
        self.paths(lane, |edge, _| edge.held == HoldState::No)
    }

    /// The rule by which an event that is accepted of a place now never passes this lane: on each route it would pass a portal
    /// that may have been linked after it was sent, or leave a room whose consent begins later. Of an event that arrives out of
    /// order `out_of_order_at` says when it was sent: before all links after that.
    pub fn skip_rule(
        &self,
        from: &Place,
        lane: LaneId,
        out_of_order_at: Option<Millis>,
    ) -> Option<SkipRule> {
        let heard = |edge: &Edge| edge.is_past_barrier(from, out_of_order_at);
        let agreed = |edge: &Edge, toward: Side| toward != Side::Silo || !edge.delayed;
        let leads = |paths: Routes| paths.0.contains_key(from);
        if !self.0.iter().all(heard) && !leads(self.paths(lane, |edge, _| heard(edge))) {
            return Some(SkipRule::BeforeLink);
        }
        let delayed = self.0.iter().any(|edge| edge.delayed);
        let both = |edge: &Edge, toward| heard(edge) && agreed(edge, toward);
        (delayed && !leads(self.paths(lane, both))).then_some(SkipRule::BeforeConsent)
    }

    /// The portals that nothing passes that is accepted of a place now, because they may have been linked after it was sent.
    pub fn barred_portals(
        &self,
        from: &Place,
        out_of_order_at: Option<Millis>,
    ) -> HashSet<PortalId> {
        let barred_portals = self
            .0
            .iter()
            .filter(|edge| !edge.is_past_barrier(from, out_of_order_at));
        barred_portals.map(|edge| edge.portal).collect()
    }

    /// The routes that end with this lane, on hold or not.
    pub fn linked(&self, lane: LaneId) -> Routes {
        self.paths(lane, |_, _| true)
    }

    /// The routes that end with this lane and use these portals only.
    pub fn routes_through(&self, lane: LaneId, passes: impl Fn(PortalId) -> bool) -> Routes {
        self.paths(lane, |edge, _| passes(edge.portal))
    }

    /// When the first hold that ends at a certain moment ends.
    pub fn next_release(&self) -> Option<Millis> {
        let moments = self.0.iter().filter_map(|edge| match edge.held {
            HoldState::Until(until) => Some(until),
            HoldState::No | HoldState::Open => None,
        });
        moments.min()
    }

    /// The lanes of a portal, and of all portals that share routes with it: changes of its state concern them.
    pub fn affected_lanes(&self, portal: PortalId) -> Vec<LaneId> {
        let mut found: Vec<&Edge> = self.0.iter().filter(|edge| edge.portal == portal).collect();
        let mut next = 0;
        while let Some(here) = found.get(next).copied() {
            next += 1;
            for edge in self.0.iter().filter(|edge| !edge.is_management) {
                let meets =
                    !here.is_management && (edge.room == here.room || edge.channel == here.channel);
                if meets && !found.iter().any(|known| known.portal == edge.portal) {
                    found.push(edge);
                }
            }
        }
        let both = |edge: &Edge| {
            [Side::Matrix, Side::Silo].map(|toward| LaneId {
                portal: edge.portal,
                toward,
            })
        };
        found.into_iter().flat_map(both).collect()
    }

    /// Of several routes from a place the one that the oldest entries may take; of those, the shortest.
    fn paths(&self, lane: LaneId, passes: impl Fn(&Edge, Side) -> bool) -> Routes {
        let mut best: HashMap<Place, Route> = HashMap::new();
        let own = self.0.iter().find(|edge| edge.portal == lane.portal);
        let Some(own) = own.filter(|own| passes(own, lane.toward)) else {
            return Routes(best);
        };
        let (near, target) = match lane.toward {
            Side::Silo => (&own.room, &own.channel),
            Side::Matrix => (&own.channel, &own.room),
        };
        let last = Route {
            hops: vec![lane],
            linked_after: own.linked_after,
        };
        // Notices of the bridge come from nowhere else.
        let notice = Route {
            linked_after: EntryId(0),
            ..last.clone()
        };
        if !own.is_management {
            best.insert(near.clone(), last);
            let mut open = VecDeque::from([near]);
            while let Some(here) = open.pop_front() {
                let Some(onward) = best.get(here).cloned() else {
                    continue;
                };
                for (edge, toward, there) in self.edges_into(here) {
                    let linked_after = onward.linked_after.max(edge.linked_after);
                    let length = onward.hops.len() + 1;
                    let better = |known: &Route| {
                        (linked_after, length) < (known.linked_after, known.hops.len())
                    };
                    if there == target
                        || !passes(edge, toward)
                        || !best.get(there).is_none_or(better)
                    {
                        continue;
                    }
                    let first = LaneId {
                        portal: edge.portal,
                        toward,
                    };
                    let hops = std::iter::once(first).chain(onward.hops.iter().copied());
                    let path = Route {
                        hops: hops.collect(),
                        linked_after,
                    };
                    best.insert(there.clone(), path);
                    open.push_back(there);
                }
            }
        }
        best.insert(notices::notice_place(), notice);
        Routes(best)
    }

    /// The portals that lead to a place, each with the direction in which it does and the place where it begins.
    fn edges_into<'a>(
        &'a self,
        here: &'a Place,
    ) -> impl Iterator<Item = (&'a Edge, Side, &'a Place)> {
        let edges = self.0.iter().filter(|edge| !edge.is_management);
        edges.filter_map(move |edge| {
            if edge.channel == *here {
                Some((edge, Side::Silo, &edge.room))
            } else if edge.room == *here {
                Some((edge, Side::Matrix, &edge.channel))
            } else {
                None
            }
        })
    }
}

impl Store {
    /// Whether a delivery that was ready may still be sent by a step that carries `parts` deliveries: all of them are pending and
    /// still bundled with it, and none was put on hold since.
    pub async fn may_send(
        &self,
        delivery: DeliveryId,
        parts: usize,
        now: Millis,
    ) -> Result<bool, crate::Error> {
        self.read("look whether a delivery may be sent", move |tx| {
            may_send(tx, delivery, parts, now)
        })
        .await
    }

    /// The same for a step that carries several deliveries. If it may be sent, it counts as attempted at once: until its answer
    /// is seen, it is unknown whether it happened. If some of them are not bundled with it any more, the bundle is split where it
    /// was never attempted.
    pub async fn begin_bundle_attempt(
        &self,
        delivery: DeliveryId,
        parts: usize,
        now: Millis,
    ) -> Result<bool, crate::Error> {
        self.transaction("begin to send a bundle", move |tx| {
            if rewritten::forget_redacted(tx, delivery)? {
                return Ok(false);
            }
            if may_send(tx, delivery, parts, now)? {
                retry::mark_unanswered(tx, delivery, now)?;
                return Ok(true);
            }
            if rows_of(tx, delivery)?.len() != parts && !bundles::was_tried(tx, delivery)? {
                bundles::split_bundle(tx, delivery)?;
            }
            Ok(false)
        })
        .await
    }
}

/// A delivery, as far as it matters whether it may be sent.
struct PartRow {
    lane: LaneId,
    from: Place,
    entry: EntryId,
    urgent: bool,
    is_bound: bool,
}

/// The deliveries that a delivery's message carries.
fn rows_of(tx: &Tx<'_>, delivery: DeliveryId) -> Result<Vec<PartRow>, TxError> {
    Ok(tx
        .sql
        .prepare_cached(
            "SELECT portal_id, toward, from_place, entry_id, urgent, bundle_slot IS NOT NULL FROM outbox
             WHERE id = ?1 OR bundle_leader_id = ?1",
        )?
        .query_map(params![delivery], |row| {
            Ok(PartRow {
                lane: crate::columns::lane(row)?,
                from: row.get(2)?,
                entry: row.get(3)?,
                urgent: row.get(4)?,
                is_bound: row.get(5)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}

pub(crate) fn may_send(
    tx: &Tx<'_>,
    delivery: DeliveryId,
    parts: usize,
    now: Millis,
) -> Result<bool, TxError> {
    let rows = rows_of(tx, delivery)?;
    let Some(PartRow { lane, .. }) = rows.first() else {
        return Ok(false);
    };
    // The plan contains all of their texts: without one of them, or one by one, it may not be sent.
    if rows.len() != parts || parts > 1 && rows.iter().any(|row| !row.is_bound) {
        return Ok(false);
    }
    let open = RoutingTable::load(tx.sql, now)?.open(*lane);
    Ok(rows
        .iter()
        .all(|row| row.urgent || open.allows(&row.from, row.entry)))
}
