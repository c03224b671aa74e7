//! The reasons why the bridge is not ready: one clause for each reason, and one warning in the log whenever they
//! change.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use footbridge_store::{LaneCounters, Millis, Portal, PortalId, PortalSource, Side};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::App;
use crate::admin::HealthReport;

/// A sync older than this means that the homeserver does not answer.
const SYNC_STALE: Duration = Duration::from_secs(90);
/// A pending message older than this means that something is wrong.
const DELIVERY_STALE: Duration = Duration::from_mins(10);
/// How often the reasons are checked. A reason counts when two checks in a row find it: a connection that reconnects is
/// not worth a warning.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// What the bridge knows beyond [`HealthReport`], because the admin address names no channel.
pub(super) struct ReadinessInputs<'a> {
    /// All portals.
    pub portals: &'a [Portal],
    /// The counters of lanes whose portal is not on hold; `None` when the store cannot be read.
    pub all_counters: Option<&'a [LaneCounters]>,
    /// Each silo's channels that are closed to the account, by their addresses.
    pub closed: BTreeMap<String, BTreeSet<String>>,
    /// Each silo's channels that are closed to the account or not caught up with, by their addresses.
    pub waiting: BTreeMap<String, Vec<String>>,
    /// Portals whose room the account is not in. They count without pending messages: the bridge receives nothing from
    /// there either.
    pub unjoined_portals: HashSet<PortalId>,
    /// Portals that are not open yet, by the reason.
    pub unopened: BTreeMap<String, Vec<String>>,
    /// The time.
    pub now: Millis,
}

impl ReadinessInputs<'_> {
    /// Whether a portal that nobody made in chat uses this channel. Who made one in chat may remove the bridge's account from its
    /// channel, or archive that: it is no fault of this process, and must not make the bridge unready.
    fn is_of_operator(&self, silo: &str, address: &str) -> bool {
        let mut here = self.in_use(silo);
        here.any(|portal| {
            portal.channel.address() == address && portal.source != PortalSource::Chat
        })
    }

    /// Whether a silo has no other channels than closed ones of portals that were made in chat: then its feed has nothing left to
    /// listen to.
    fn is_closed_by_guests(&self, silo: &str) -> bool {
        let Some(closed) = self.closed.get(silo).filter(|closed| !closed.is_empty()) else {
            return false;
        };
        self.in_use(silo).all(|portal| {
            portal.source == PortalSource::Chat && closed.contains(portal.channel.address())
        })
    }

    /// The linked portals of a silo.
    fn in_use(&self, silo: &str) -> impl Iterator<Item = &Portal> {
        let portals = self.portals.iter();
        portals.filter(move |portal| portal.active && portal.spec.silo == silo)
    }
}

/// Why the house is not ready; nothing when it is.
pub(super) fn reasons(health: &HealthReport, known: &ReadinessInputs<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    if !health.store {
        reasons.push("the store cannot be read".to_owned());
    }
    if health.store_state != "well" {
        reasons.push(format!("the store is in state `{}`", health.store_state));
    }
    if health
        .sync_age_seconds
        .is_none_or(|age| age >= SYNC_STALE.as_secs())
    {
        reasons.push("the homeserver has not answered a sync lately".to_owned());
    }
    for (silo, state) in &health.silos {
        let closed = known.closed.get(silo);
        let of_operator = closed.into_iter().flatten();
        let of_operator = of_operator.filter(|address| known.is_of_operator(silo, address));
        let closed = of_operator.count();
        if closed == 0 && (state == "live" || known.is_closed_by_guests(silo)) {
            continue;
        }
        let mut reason = format!("silo `{silo}` is {state}");
        if closed > 0 {
            reason = format!("{reason}, {closed} of its channels closed to the account");
        }
        let waiting = known.waiting.get(silo).map(Vec::as_slice);
        for address in waiting.unwrap_or_default() {
            reason = format!("{reason}; waiting: {}", named(known.portals, silo, address));
        }
        reasons.push(reason);
    }
    if health.portals != health.portals_running {
        let (running, portals) = (health.portals_running, health.portals);
        let mut reason = format!("{running} of {portals} portals run");
        for (why, names) in &known.unopened {
            reason = format!("{reason}; not opened: {} ({why})", names.join(", "));
        }
        reasons.push(reason);
    }
    for counters in known.all_counters.unwrap_or_default() {
        let portal = counters.lane.portal;
        let spec = known.portals.iter().find(|known| known.id == portal);
        let is_guests = spec.is_some_and(|portal| portal.source == PortalSource::Chat);
        if is_guests && counters.closed_since.is_some() {
            // Whoever made a portal in chat may remove the bridge from its room: that is no fault of this process.
            continue;
        }
        if is_closed(counters, &known.unjoined_portals) {
            let what = match counters.lane.toward {
                Side::Matrix if known.unjoined_portals.contains(&portal) => {
                    "is not in its room: invite the bridge's account there"
                }
                Side::Matrix => "cannot write into its room",
                Side::Silo => "cannot write into its channel",
            };
            let spec = spec.map_or_else(String::new, |known| format!(" ({})", known.spec.channel));
            reasons.push(format!("portal {}{spec} {what}", portal.0));
        }
        let since = counters
            .oldest_not_on_hold
            .map(|since| known.now.since(since));
        if since.is_some_and(|age| age >= DELIVERY_STALE) {
            let (portal, toward) = (counters.lane.portal.0, counters.lane.toward);
            let toward = match toward {
                Side::Matrix => "its room",
                Side::Silo => "its channel",
            };
            reasons.push(format!(
                "portal {portal} has a message for {toward} that has waited for more than ten minutes"
            ));
        }
    }
    reasons
}

/// Names a channel by the portals that are linked to it.
fn named(portals: &[Portal], silo: &str, address: &str) -> String {
    let here = portals.iter().filter(|portal| {
        portal.active && portal.spec.silo == silo && portal.channel.address() == address
    });
    let names: Vec<String> = here
        .map(|portal| format!("portal {} ({})", portal.id.0, portal.spec.channel))
        .collect();
    if names.is_empty() {
        format!("channel {address}")
    } else {
        names.join(" and ")
    }
}

/// The reasons of the last check, and those that were logged.
#[derive(Default)]
struct ReadinessLog {
    found: Vec<String>,
    logged: Vec<String>,
}

impl ReadinessLog {
    /// Takes the reasons of one check. Returns those to log, an empty slice when the bridge is ready again; `None` when
    /// there is nothing new to log.
    fn update(&mut self, reasons: Vec<String>) -> Option<&[String]> {
        let before = std::mem::replace(&mut self.found, reasons);
        let mut lasting = self.found.clone();
        lasting.retain(|reason| before.contains(reason));
        if lasting == self.logged {
            return None;
        }
        self.logged = lasting;
        Some(&self.logged)
    }
}

impl App {
    /// Logs why the bridge is not ready, whenever that changes.
    pub(super) async fn watch_readiness(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut log = ReadinessLog::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
            let (_, reasons) = self.assess().await;
            match log.update(reasons) {
                None => {}
                Some([]) => info!("The bridge is ready again"),
                Some(why) => warn!(why = why.join(". "), "The bridge is not ready"),
            }
        }
    }
}

/// Whether a lane's place is closed to the bridge and somebody should know: messages wait for it, or it is a room that
/// the account is not in, so that the bridge receives nothing from it either.
pub(super) fn is_closed(counters: &LaneCounters, unjoined: &HashSet<PortalId>) -> bool {
    let is_unjoined =
        counters.lane.toward == Side::Matrix && unjoined.contains(&counters.lane.portal);
    counters.closed_since.is_some() && (counters.pending > 0 || is_unjoined)
}

#[cfg(test)]
mod tests {
    use footbridge_matrix::MAX_SYNC;
    use footbridge_store::{LaneId, Place, PortalId, PortalSource, PortalSpec};

    use super::*;

    /// Palpo answers a long poll 2 s late, Tuwunel a first sync after 5 s: other homeservers take longer under load.
    #[test]
    fn a_sync_that_is_answered_late_is_no_outage() {
        assert!(SYNC_STALE > MAX_SYNC + Duration::from_secs(15));
        assert!(MAX_SYNC > Duration::from_secs(30 + 2));
    }

    fn well() -> HealthReport {
        HealthReport {
            store: true,
            store_state: "well".to_owned(),
            sync_age_seconds: Some(1),
            silos: BTreeMap::from([("chat".to_owned(), "live".to_owned())]),
            channels_closed: BTreeMap::from([("chat".to_owned(), 0)]),
            ..HealthReport::default()
        }
    }

    fn portal(id: i64, channel: &str) -> Portal {
        Portal {
            id: PortalId(id),
            spec: PortalSpec {
                room: format!("#r{id}:x"),
                silo: "chat".to_owned(),
                channel: format!("org/{channel}"),
            },
            room: Place::room("!r"),
            channel: Place::new("chat", channel),
            active: true,
            source: PortalSource::Config,
        }
    }

    fn owed(portal: i64, since: i64) -> LaneCounters {
        LaneCounters {
            lane: LaneId {
                portal: PortalId(portal),
                toward: Side::Silo,
            },
            accepted: 1,
            delivered: 0,
            skipped: Vec::new(),
            failed: 0,
            pending: 1,
            waiting: 0,
            oldest_pending: Some(Millis(since)),
            oldest_not_on_hold: Some(Millis(since)),
            on_hold: 0,
            parked: 0,
            last_failure: None,
            closed_since: None,
            closed_reason: None,
        }
    }

    #[test]
    fn a_place_that_can_only_be_read_is_a_reason_while_something_waits_for_it() {
        let portals = [portal(1, "a"), portal(2, "b")];
        let closed = |portal: i64, pending: u64| LaneCounters {
            closed_since: Some(Millis(0)),
            oldest_not_on_hold: Some(Millis(5)),
            pending,
            ..owed(portal, 5)
        };
        let all_counters = [closed(1, 1), closed(2, 0)];
        let known = ReadinessInputs {
            portals: &portals,
            all_counters: Some(&all_counters),
            closed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            unjoined_portals: HashSet::new(),
            unopened: BTreeMap::new(),
            now: Millis(10),
        };
        assert_eq!(
            reasons(&well(), &known),
            ["portal 1 (org/a) cannot write into its channel"]
        );
    }

    #[test]
    fn a_room_that_the_bridge_is_not_in_is_a_reason_although_nothing_waits_for_it() {
        let portals = [portal(1, "a"), portal(2, "b")];
        let into_room = |portal: i64| LaneCounters {
            lane: LaneId {
                portal: PortalId(portal),
                toward: Side::Matrix,
            },
            closed_since: Some(Millis(0)),
            pending: 0,
            oldest_not_on_hold: None,
            ..owed(portal, 5)
        };
        let known = ReadinessInputs {
            portals: &portals,
            all_counters: Some(&[into_room(1), into_room(2)]),
            closed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            unjoined_portals: HashSet::from([PortalId(2)]),
            unopened: BTreeMap::new(),
            now: Millis(10),
        };
        assert_eq!(
            reasons(&well(), &known),
            ["portal 2 (org/b) is not in its room: invite the bridge's account there"]
        );
        // Whoever made a portal in chat cannot make the bridge unready.
        let mut portals = portals.clone();
        portals[1].source = PortalSource::Chat;
        let known = ReadinessInputs {
            portals: &portals,
            ..known
        };
        assert_eq!(reasons(&well(), &known), [""; 0]);
    }

    #[test]
    fn each_reason_names_the_silo_and_the_portals_it_concerns() {
        let portals = [portal(1, "a"), portal(2, "a"), portal(3, "b")];
        let all_counters = [owed(1, 0), owed(3, 600_000)];
        let known = |waiting: &[&str]| ReadinessInputs {
            portals: &portals,
            all_counters: Some(&all_counters[1..]),
            closed: BTreeMap::new(),
            waiting: BTreeMap::from([(
                "chat".to_owned(),
                waiting.iter().map(|&name| name.to_owned()).collect(),
            )]),
            unjoined_portals: HashSet::new(),
            unopened: BTreeMap::new(),
            now: Millis(601_000),
        };
        assert_eq!(reasons(&well(), &known(&[])), [""; 0]);

        let mut health = well();
        health
            .silos
            .insert("chat".to_owned(), "connecting".to_owned());
        let why = reasons(&health, &known(&["a"]));
        let expected = "silo `chat` is connecting; waiting: portal 1 (org/a) and portal 2 (org/a)";
        assert_eq!(why, [expected]);

        let shut = |address: &str| ReadinessInputs {
            closed: BTreeMap::from([("chat".to_owned(), BTreeSet::from([address.to_owned()]))]),
            ..known(&["b"])
        };
        let why = reasons(&well(), &shut("b"));
        let said = "silo `chat` is live, 1 of its channels closed to the account; waiting: portal 3 (org/b)";
        assert_eq!(why, [said]);

        let health = HealthReport {
            store_state: "full".to_owned(),
            sync_age_seconds: None,
            portals: 3,
            portals_running: 2,
            ..well()
        };
        let late = ReadinessInputs {
            all_counters: Some(&all_counters),
            unopened: BTreeMap::from([(
                "no such room".to_owned(),
                vec!["#c:x - org/c".to_owned()],
            )]),
            ..known(&[])
        };
        let why = reasons(&health, &late);
        assert_eq!(
            why,
            [
                "the store is in state `full`",
                "the homeserver has not answered a sync lately",
                "2 of 3 portals run; not opened: #c:x - org/c (no such room)",
                "portal 1 has a message for its channel that has waited for more than ten minutes",
            ]
        );
        let health = HealthReport {
            store: false,
            ..well()
        };
        let none = ReadinessInputs {
            all_counters: None,
            ..known(&[])
        };
        assert_eq!(reasons(&health, &none), ["the store cannot be read"]);
    }

    /// What is known where these channels are closed and nothing waits for them.
    fn shut<'a>(portals: &'a [Portal], closed: &[&str]) -> ReadinessInputs<'a> {
        let closed = closed.iter().map(|&address| address.to_owned());
        ReadinessInputs {
            portals,
            all_counters: Some(&[]),
            closed: BTreeMap::from([("chat".to_owned(), closed.collect())]),
            waiting: BTreeMap::new(),
            unjoined_portals: HashSet::new(),
            unopened: BTreeMap::new(),
            now: Millis(10),
        }
    }

    #[test]
    fn a_closed_channel_that_only_portals_of_guests_use_is_no_reason() {
        let mut portals = [portal(1, "a"), portal(2, "b"), portal(3, "b")];
        portals[1].source = PortalSource::Chat;
        portals[2].source = PortalSource::Chat;
        assert_eq!(reasons(&well(), &shut(&portals, &["b"])), [""; 0]);
        let of_one = "silo `chat` is live, 1 of its channels closed to the account";
        assert_eq!(reasons(&well(), &shut(&portals, &["a", "b"])), [of_one]);
        // The silo has no other channels, and so no feed; in all other cases that is a reason.
        let mut down = well();
        down.silos.insert("chat".to_owned(), "down".to_owned());
        assert_eq!(reasons(&down, &shut(&portals[1..], &["b"])), [""; 0]);
        let is_down = "silo `chat` is down";
        assert_eq!(reasons(&down, &shut(&portals, &["b"])), [is_down]);
        assert_eq!(reasons(&down, &shut(&portals[1..], &[])), [is_down]);
        // A portal of the operator uses the channel as well.
        portals[2].source = PortalSource::Config;
        assert_eq!(reasons(&well(), &shut(&portals, &["b"])), [of_one]);
    }

    #[test]
    fn a_lasting_reason_is_logged_once_and_its_end_too() {
        let mut log = ReadinessLog::default();
        let why = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(log.update(why(&["a"])), None, "it may be over soon");
        assert_eq!(log.update(why(&["b"])), None, "it was");
        assert_eq!(log.update(why(&["b", "c"])), Some(&why(&["b"])[..]));
        assert_eq!(log.update(why(&["b", "c"])), Some(&why(&["b", "c"])[..]));
        assert_eq!(log.update(why(&["b", "c"])), None);
        assert_eq!(log.update(why(&["c"])), Some(&why(&["c"])[..]));
        assert_eq!(log.update(why(&[])), Some(&[][..]));
        assert_eq!(log.update(why(&[])), None);
    }
}
