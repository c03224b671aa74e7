//! Paths: the chain of portals by which a message comes from the place where it was said to the place where it is to be
//! read. A delivery goes while every portal of a path lets it pass, waits while one of each holds it up, and ends when no
//! path of linked portals is left. The last portal of a path is always the one whose lane owes the delivery.

use std::collections::{HashMap, HashSet, VecDeque};

use rusqlite::{Connection, params};

use crate::{
    DeliveryId, EntryId, LaneId, Millis, Place, PortalId, Side, Store, bundle,
    database::{Desk, Fault},
    holds::LACKS_CONSENT,
    notices, openings, setback,
    unlinked::UNLINKED,
};

/// The rule for what is said in an encrypted room between a consent and the end of its delay. Whether it is such a message
/// is decided when it is taken in, by what was heard before it: no clock of a homeserver counts, and no late key.
const BEFORE_CONSENT: &str = "before-consent";

/// A linked portal.
struct Edge {
    portal: PortalId,
    room: Place,
    channel: Place,
    /// Entries up to this one were taken in before it was linked.
    after: EntryId,
    /// When it was linked.
    opened_at: Millis,
    /// What is said in these places does not pass it yet: it may have been said before it was linked.
    unheard: HashSet<Place>,
    held: Held,
    /// Somebody has agreed, and nothing that was heard in the room was said after the delay.
    delayed: bool,
    /// A desk joins its room to nothing.
    is_desk: bool,
}

impl Edge {
    /// Whether what is taken in of a place now was said after this was linked, as far as that is known.
    fn has_heard(&self, from: &Place, dated: Option<Millis>) -> bool {
        !self.unheard.contains(from) && dated.is_none_or(|dated| dated >= self.opened_at)
    }
}

/// For how long a portal lets nothing pass but what the bridge itself has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Not at all.
    No,
    /// Until then.
    Until(Millis),
    /// Until somebody does something.
    Open,
}

/// One path.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// Its portals in the order and directions in which they are passed.
    pub hops: Vec<LaneId>,
    /// Only entries after this one may take it: before, not all of its portals were linked.
    pub after: EntryId,
}

/// The paths that end with one lane, by the place where they begin.
pub(crate) struct Paths(HashMap<Place, Path>);

impl Paths {
    /// Whether this entry may come from this place.
    pub fn lead(&self, from: &Place, entry: EntryId) -> bool {
        self.of(from, entry).is_some()
    }

    /// The path of this entry from this place.
    pub fn of(&self, from: &Place, entry: EntryId) -> Option<&Path> {
        self.0.get(from).filter(|path| entry > path.after)
    }

    /// The newest entry that may not come from this place.
    pub fn since(&self, from: &Place) -> EntryId {
        self.0
            .get(from)
            .map_or(EntryId(i64::MAX), |path| path.after)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&Place, &Path)> {
        self.0.iter()
    }
}

/// The linked portals, and which of them are held up.
pub(crate) struct Net(Vec<Edge>);

impl Net {
    /// As it is at this moment.
    pub fn load(sql: &Connection, now: Millis) -> Result<Self, Fault> {
        let mut unheard = openings::all(sql)?;
        let mut edges = sql.prepare_cached(&format!(
            "SELECT p.id, p.room_place, p.channel_place, p.opened_after, p.origin = 'desk',
                    p.opened_at,
                    EXISTS (SELECT 1 FROM hold h WHERE h.portal_id = p.id) OR ({LACKS_CONSENT}),
                    (SELECT c.effective_at FROM consent c
                     WHERE c.portal_id = p.id AND c.effective_at > ?1),
                    EXISTS (SELECT 1 FROM consent c WHERE c.portal_id = p.id AND c.begun = 0)
             FROM portal p WHERE p.active = 1"
        ))?;
        let edges = edges.query_map([now], |row| {
            let held = match (row.get(6)?, row.get(7)?) {
                (true, _) => Held::Open,
                (false, Some(until)) => Held::Until(until),
                (false, None) => Held::No,
            };
            let portal = row.get(0)?;
            Ok(Edge {
                portal,
                room: row.get(1)?,
                channel: row.get(2)?,
                after: row.get(3)?,
                is_desk: row.get(4)?,
                opened_at: row.get(5)?,
                delayed: row.get(8)?,
                unheard: unheard.remove(&portal).unwrap_or_default(),
                held,
            })
        })?;
        Ok(Self(edges.collect::<Result<_, _>>()?))
    }

    /// The paths that end with this lane and that nothing holds up.
    pub fn open(&self, lane: LaneId) -> Paths {
        self.paths(lane, |edge, _| edge.held == Held::No)
    }

    /// The rule by which what is taken in of a place now never comes through this lane: on each path it would pass a portal
    /// that may have been linked after it was said, or leave a room that has agreed to that from some later moment on. Of
    /// what stands among what was taken in before, it is known when it was `dated`: before all links after that.
    pub fn keeps(&self, from: &Place, lane: LaneId, dated: Option<Millis>) -> Option<&'static str> {
        let heard = |edge: &Edge| edge.has_heard(from, dated);
        let agreed = |edge: &Edge, toward: Side| toward != Side::Silo || !edge.delayed;
        let leads = |paths: Paths| paths.0.contains_key(from);
        if !self.0.iter().all(heard) && !leads(self.paths(lane, |edge, _| heard(edge))) {
            return Some(UNLINKED);
        }
        let delayed = self.0.iter().any(|edge| edge.delayed);
        let both = |edge: &Edge, toward| heard(edge) && agreed(edge, toward);
        (delayed && !leads(self.paths(lane, both))).then_some(BEFORE_CONSENT)
    }

    /// By which portals nothing passes of what is taken in of a place now, because they may have been linked after it was said.
    pub fn unheard(&self, from: &Place, dated: Option<Millis>) -> HashSet<PortalId> {
        let unheard = self.0.iter().filter(|edge| !edge.has_heard(from, dated));
        unheard.map(|edge| edge.portal).collect()
    }

    /// The paths that end with this lane, whether they are held up or not.
    pub fn linked(&self, lane: LaneId) -> Paths {
        self.paths(lane, |_, _| true)
    }

    /// The paths that end with this lane and lead through these portals only.
    pub fn passing(&self, lane: LaneId, passes: impl Fn(PortalId) -> bool) -> Paths {
        self.paths(lane, |edge, _| passes(edge.portal))
    }

    /// When the first of what is held up until a certain moment no longer is.
    pub fn opens_at(&self) -> Option<Millis> {
        let moments = self.0.iter().filter_map(|edge| match edge.held {
            Held::Until(until) => Some(until),
            Held::No | Held::Open => None,
        });
        moments.min()
    }

    /// The lanes of a portal, and of all that paths join to it: whatever changes of its state concerns them.
    pub fn around(&self, portal: PortalId) -> Vec<LaneId> {
        let mut found: Vec<&Edge> = self.0.iter().filter(|edge| edge.portal == portal).collect();
        let mut next = 0;
        while let Some(here) = found.get(next).copied() {
            next += 1;
            for edge in self.0.iter().filter(|edge| !edge.is_desk) {
                let meets =
                    !here.is_desk && (edge.room == here.room || edge.channel == here.channel);
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

    /// Of several paths from a place the one that the oldest entries may take; of those, the shortest.
    fn paths(&self, lane: LaneId, passes: impl Fn(&Edge, Side) -> bool) -> Paths {
        let mut best: HashMap<Place, Path> = HashMap::new();
        let own = self.0.iter().find(|edge| edge.portal == lane.portal);
        let Some(own) = own.filter(|own| passes(own, lane.toward)) else {
            return Paths(best);
        };
        let (near, target) = match lane.toward {
            Side::Silo => (&own.room, &own.channel),
            Side::Matrix => (&own.channel, &own.room),
        };
        let last = Path {
            hops: vec![lane],
            after: own.after,
        };
        // What the bridge itself has to say comes from nowhere else.
        let notice = Path {
            after: EntryId(0),
            ..last.clone()
        };
        if !own.is_desk {
            best.insert(near.clone(), last);
            let mut open = VecDeque::from([near]);
            while let Some(here) = open.pop_front() {
                let Some(onward) = best.get(here).cloned() else {
                    continue;
                };
                for (edge, toward, there) in self.ways_to(here) {
                    let after = onward.after.max(edge.after);
                    let length = onward.hops.len() + 1;
                    let better = |known: &Path| (after, length) < (known.after, known.hops.len());
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
                    let path = Path {
                        hops: hops.collect(),
                        after,
                    };
                    best.insert(there.clone(), path);
                    open.push_back(there);
                }
            }
        }
        best.insert(notices::home(), notice);
        Paths(best)
    }

    /// The portals that lead to a place, each with the direction in which it does and the place where it begins.
    fn ways_to<'a>(&'a self, here: &'a Place) -> impl Iterator<Item = (&'a Edge, Side, &'a Place)> {
        let edges = self.0.iter().filter(|edge| !edge.is_desk);
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
    /// Whether a delivery that was ready may still go by a step that pays `parts` debts: all of them are owed and still
    /// bound to it, and nothing has held one of them up since.
    pub async fn may_go(
        &self,
        delivery: DeliveryId,
        parts: usize,
        now: Millis,
    ) -> Result<bool, crate::Error> {
        self.read("look whether a delivery may go", move |desk| {
            may_go(desk, delivery, parts, now)
        })
        .await
    }

    /// The same of a step that pays several debts, which is tried at once if so: until its answer is seen nobody knows
    /// whether it happened. If some of them are not bound to it any more, the others are taken apart where it was never
    /// tried.
    pub async fn sets_off(
        &self,
        delivery: DeliveryId,
        parts: usize,
        now: Millis,
    ) -> Result<bool, crate::Error> {
        self.transaction("let bound debts go", move |desk| {
            if may_go(desk, delivery, parts, now)? {
                setback::mark_unanswered(desk, delivery, now)?;
                return Ok(true);
            }
            if rows_of(desk, delivery)?.len() != parts && !bundle::was_tried(desk, delivery)? {
                bundle::unbind(desk, delivery)?;
            }
            Ok(false)
        })
        .await
    }
}

/// A debt, as far as it matters whether it may go.
struct Going {
    lane: LaneId,
    from: Place,
    entry: EntryId,
    urgent: bool,
    is_bound: bool,
}

/// The debts that a delivery pays.
fn rows_of(desk: &Desk<'_>, delivery: DeliveryId) -> Result<Vec<Going>, Fault> {
    Ok(desk
        .sql
        .prepare_cached(
            "SELECT portal_id, toward, from_place, entry_id, urgent, slot IS NOT NULL FROM outbox
             WHERE id = ?1 OR leader = ?1",
        )?
        .query_map(params![delivery], |row| {
            Ok(Going {
                lane: crate::columns::lane(row)?,
                from: row.get(2)?,
                entry: row.get(3)?,
                urgent: row.get(4)?,
                is_bound: row.get(5)?,
            })
        })?
        .collect::<Result<_, _>>()?)
}

pub(crate) fn may_go(desk: &Desk<'_>, delivery: DeliveryId, parts: usize, now: Millis) -> Result<bool, Fault> {
    let rows = rows_of(desk, delivery)?;
    let Some(Going { lane, .. }) = rows.first() else {
        return Ok(false);
    };
    // Its plan says what all of them said: without one of them, or one by one, it may not be sent.
    if rows.len() != parts || parts > 1 && rows.iter().any(|row| !row.is_bound) {
        return Ok(false);
    }
    let open = Net::load(desk.sql, now)?.open(*lane);
    Ok(rows
        .iter()
        .all(|row| row.urgent || open.lead(&row.from, row.entry)))
}
