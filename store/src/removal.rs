//! Unlinking a portal: at once and wholly. What it still owes is dropped and counted, every letter that is left of
//! it is erased, and only ids stay.

use std::collections::{HashMap, HashSet};

use rusqlite::params;

use crate::{
    DeliveryId, EntryId, Error, LaneId, Millis, Place, PortalId, RemoteId, Side, Store, bundle,
    columns, commands,
    database::{Desk, Fault},
    desks, notices, parked,
    paths::Net,
    portals::{self, Origin},
    progress, reactions,
    settle::{self, End},
};

/// The rule by which the debts of a portal end that somebody removed.
const UNLINKED: &str = "unlinked";

/// What came of removing portals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many portals were removed.
    pub portals: usize,
    /// How many messages were waiting in them and are not sent any more.
    pub dropped: usize,
    /// Lanes to ring.
    pub lanes: Vec<LaneId>,
}

impl Store {
    /// Unlinks portals. Their rooms keep a desk, at which `told` (of the number of dropped messages) is said; with
    /// `question` that is its answer. Portals that are no longer linked are passed over, and nothing is said then.
    pub async fn remove_portals(
        &self,
        gone: &[PortalId],
        question: Option<EntryId>,
        told: impl Fn(usize) -> Option<Vec<u8>> + Send + Sync + 'static,
        now: Millis,
    ) -> Result<Removed, Error> {
        let gone = gone.to_vec();
        self.transaction("unlink a portal", move |desk| {
            let mut removed = Removed::default();
            let mut rooms = Vec::new();
            let mut lanes: Vec<LaneId> = Vec::new();
            for portal in portals::all(desk.sql)? {
                let named = gone.contains(&portal.id) && portal.origin != Origin::Desk;
                if !named || !portal.active {
                    continue;
                }
                // In these lanes what was bound to something of it goes by itself now.
                lanes.extend(Net::load(desk.sql, now)?.around(portal.id));
                deactivate(desk, portal.id)?;
                removed.portals += 1;
                rooms.push((portal.id, portal.room));
            }
            if removed.portals == 0 {
                return Ok(removed);
            }
            // Before what is unlinked is cleared away, so that how far the room was read is not forgotten.
            for (_, room) in &rooms {
                desks::open(desk, room, now)?;
            }
            removed.dropped = clear_away(desk, UNLINKED, now)?;
            for (portal, room) in &rooms {
                removed
                    .lanes
                    .extend(say(desk, *portal, room, told(removed.dropped), now)?);
            }
            lanes.retain(|lane| !rooms.iter().any(|(gone, _)| *gone == lane.portal));
            removed.lanes.extend(lanes);
            if let Some(question) = question {
                commands::close(desk, question)?;
            }
            Ok(removed)
        })
        .await
    }
}

/// Says at the desk of a room what came of its portal.
fn say(
    desk: &Desk<'_>,
    portal: PortalId,
    room: &Place,
    letter: Option<Vec<u8>>,
    now: Millis,
) -> Result<Option<LaneId>, Fault> {
    let Some(letter) = letter else {
        return Ok(None);
    };
    let lane = LaneId {
        portal: desks::open(desk, room, now)?,
        toward: Side::Matrix,
    };
    let fact = RemoteId(format!("unlinked-{portal}-{}", now.0));
    let rung = notices::notice(desk, lane, &fact, &letter, now)?;
    if rung.is_some() {
        notices::hurry(desk)?;
    }
    Ok(rung)
}

/// A portal accepts nothing any more, and what was agreed for it is void.
pub(crate) fn deactivate(desk: &Desk<'_>, portal: PortalId) -> Result<(), Fault> {
    for forget in [
        "UPDATE portal SET active = 0 WHERE id = ?1",
        "DELETE FROM consent WHERE portal_id = ?1",
        "DELETE FROM hold WHERE portal_id = ?1",
        "DELETE FROM newcomer WHERE portal_id = ?1",
        "DELETE FROM opening WHERE portal_id = ?1",
    ] {
        desk.sql.prepare_cached(forget)?.execute([portal])?;
    }
    Ok(())
}

/// Ends what is still owed over portals that are not linked any more, by their own lanes and by those that others have
/// after them, erases what is kept of it, and forgets how far places were read that no active portal has: linked again
/// they begin anew, because what was said meanwhile was not said to the bridge. Answers how many messages are not sent any
/// more.
pub(crate) fn clear_away(desk: &Desk<'_>, rule: &'static str, now: Millis) -> Result<usize, Fault> {
    let mut dropped = HashSet::new();
    let ended = settle::debts_without_path(desk.sql)?;
    bundle::take_apart(desk, &ended, now)?;
    for debt in ended {
        if is_message(desk, debt.entry)? {
            dropped.insert(debt.entry);
        }
        reactions::forget_unshown(desk, debt.entry, &debt.to)?;
        settle::settle(desk, &debt, End::Skipped(rule))?;
    }
    erase_without_path(desk)?;
    // Links to files of a room that is joined to nothing any more lead nowhere.
    desk.sql
        .prepare_cached(
            "DELETE FROM offer WHERE entry_id IN (SELECT id FROM journal WHERE place NOT IN
             (SELECT room_place FROM portal WHERE active = 1 AND origin <> 'desk'))",
        )?
        .execute([])?;
    let all = portals::all(desk.sql)?;
    let used: HashSet<&Place> = portals::places(all.iter().filter(|portal| portal.active));
    for place in portals::places(all.iter()).difference(&used) {
        progress::forget(desk, place)?;
    }
    Ok(dropped.len())
}

/// Ends a debt that no path of linked portals carries any more and that nobody has in doubt.
pub(crate) fn end_without_path(desk: &Desk<'_>, delivery: DeliveryId) -> Result<(), Fault> {
    let Some(debt) = settle::debt(desk.sql, delivery)? else {
        return Ok(());
    };
    let linked = Net::load(desk.sql, Millis::default())?.linked(debt.lane);
    if !linked.lead(&debt.from, debt.entry) {
        settle::settle(desk, &debt, End::Skipped(UNLINKED))?;
    }
    Ok(())
}

/// What no path of linked portals would carry any more is not kept to be tried again.
fn erase_without_path(desk: &Desk<'_>) -> Result<(), Fault> {
    let net = Net::load(desk.sql, Millis::default())?;
    let sources = desk
        .sql
        .prepare("SELECT DISTINCT portal_id, toward, from_place FROM parked WHERE kept = 1")?
        .query_map([], |row| Ok((columns::lane(row)?, row.get(2)?)))?
        .collect::<Result<Vec<(LaneId, Place)>, _>>()?;
    let mut known = HashMap::new();
    for (lane, from) in sources {
        let linked = known.entry(lane).or_insert_with(|| net.linked(lane));
        let until = linked.since(&from);
        parked::erase_until(desk, params![lane.portal, lane.toward, from, until])?;
    }
    Ok(())
}

/// Whether a person wrote it, and not the bridge itself.
fn is_message(desk: &Desk<'_>, entry: EntryId) -> Result<bool, Fault> {
    Ok(desk
        .sql
        .prepare_cached("SELECT 1 FROM journal WHERE id = ?1 AND place <> ?2")?
        .exists(params![entry, notices::home()])?)
}
