//! The lanes, two per portal, and the budgets that they share, one per account.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use footbridge_core::{
    budget::{Budget, Pace},
    lane::{Lane, LaneEnd, RelayFilter, RetryLimits},
    media_links::MediaLinks,
    outlet::Outlet,
    persons::People,
    room_profile::ProfileSync,
};
use footbridge_silo::Silo;
use footbridge_store::{LaneId, Place, Portal, Side};
use tracing::{Instrument, info, info_span};

use super::{
    App, account_recovery,
    tasks::{Tasks, start},
};
use crate::config::PortalConfig;

/// The name of the Matrix account beside those of the silos.
pub(super) const MATRIX: &str = "matrix";

/// How fast the bridge's accounts may act.
pub(super) struct Budgets {
    matrix: Budget,
    silos: BTreeMap<String, Budget>,
}

impl Budgets {
    /// The budgets of the Matrix account and of the accounts on these silos; the silos pace themselves by what they
    /// know of their limits.
    pub(super) fn of<'a>(silos: impl Iterator<Item = &'a String>) -> Self {
        Self {
            matrix: Budget::steady(),
            silos: silos
                .map(|name| (name.clone(), Budget::windowed()))
                .collect(),
        }
    }

    /// The accounts that are rate-limited now: `matrix` or the silo's name, and the pace of each.
    pub(super) fn limited(&self) -> Vec<(String, Pace)> {
        let silos = self
            .silos
            .iter()
            .map(|(name, budget)| (name.clone(), budget));
        std::iter::once((MATRIX.to_owned(), &self.matrix))
            .chain(silos)
            .filter_map(|(name, budget)| Some((name, budget.pace()?)))
            .collect()
    }

    /// The budget of the account that a lane uses.
    pub(super) fn of_lane(&self, toward: Side, silo: &str) -> Budget {
        match toward {
            Side::Matrix => self.matrix.clone(),
            Side::Silo => self.silos.get(silo).cloned().unwrap_or_default(),
        }
    }
}

impl App {
    /// The portal's entry in the configuration; `None` for a portal of a chat command, which has the default options.
    fn listed(&self, portal: &Portal) -> Option<&PortalConfig> {
        let mut listed = self.config.portals.iter();
        listed.find(|listed| listed.spec() == portal.spec)
    }

    /// How many old messages of the channel are relayed at first.
    pub(super) fn backfill(&self, portal: &Portal) -> usize {
        let wanted = self.listed(portal).map_or(0, |listed| listed.backfill);
        usize::try_from(wanted).unwrap_or_default()
    }

    /// Which names, topics and avatars it syncs.
    pub(super) fn shares(&self, portal: &Portal) -> ProfileSync {
        self.listed(portal)
            .map_or_else(ProfileSync::default, |listed| listed.shares)
    }

    fn relay_filter(&self, portal: &Portal) -> RelayFilter {
        let listed = self.listed(portal);
        listed.map_or_else(RelayFilter::default, |listed| RelayFilter {
            system_messages: listed.system_messages,
            notices: listed.notices,
            reactions: listed.reactions,
            file_links: listed.file_links,
        })
    }

    fn links(&self) -> Option<MediaLinks> {
        let gateway = self.config.media.gateway.as_ref()?;
        Some(MediaLinks {
            public_url: gateway.public_url.clone(),
            good_for: gateway.good_for,
        })
    }

    fn limits(&self) -> RetryLimits {
        RetryLimits {
            attempts: self.config.delivery.attempts,
            give_up: self.config.delivery.give_up,
        }
    }

    pub(super) fn start_lanes(
        &self,
        tasks: &mut Tasks,
        started: &mut HashSet<LaneId>,
        portals: &[Portal],
    ) {
        let linked = portals.iter();
        let linked: Vec<_> = linked
            .map(|portal| (&portal.room, &portal.channel))
            .collect();
        self.matrix.network().peer_bridges().retain(&linked);
        for portal in portals {
            self.filters.set(portal.id, self.relay_filter(portal));
            if let Some(silo) = self.silos.get(&portal.spec.silo) {
                let origin = silo.bridge_marker(&portal.channel);
                let peer_bridges = self.matrix.network().peer_bridges();
                peer_bridges.add(&portal.room, &portal.channel, origin);
            }
            for toward in [Side::Matrix, Side::Silo] {
                let id = LaneId {
                    portal: portal.id,
                    toward,
                };
                if !started.insert(id) {
                    continue;
                }
                let matrix = self.matrix.device().outlet();
                let silo = self.silos.get(&portal.spec.silo);
                let account = silo.cloned();
                let silo = silo.cloned().map(|silo| silo as Arc<dyn Outlet>);
                let (outlet, source, side) = match (toward, silo) {
                    (Side::Matrix, Some(silo)) => (matrix, silo, Place::MATRIX),
                    (Side::Silo, Some(silo)) => (silo, matrix, portal.spec.silo.as_str()),
                    // A management room has no channel and no files.
                    (Side::Matrix, None) => (matrix.clone(), matrix, Place::MATRIX),
                    (Side::Silo, None) => continue,
                };
                let (store, signals, clock) =
                    (self.store.clone(), self.signals.clone(), self.clock);
                let lane = Lane {
                    id,
                    outlet,
                    source,
                    sender: self.accounts.sender(toward),
                    spool: self.spool.clone(),
                    store,
                    signals,
                    clock,
                    limits: self.limits(),
                    health: self.health.get(side).cloned().unwrap_or_default(),
                    budget: self.budgets.of_lane(toward, &portal.spec.silo),
                    coalesce: self.config.delivery.coalesce,
                    filters: self.filters.clone(),
                    people: People::new(self.config.people.clone()),
                    links: self.links(),
                    peer_bridges: self.matrix.network().peer_bridges().clone(),
                };
                let stop = self.shutdown.soft.clone();
                let span = info_span!("lane", portal.id = id.portal.0, toward = toward.as_str());
                start(
                    tasks,
                    "lane",
                    async move {
                        loop {
                            if lane.clone().run(stop.clone()).await? == LaneEnd::Stopped {
                                return Ok(());
                            }
                            info!("Delivery paused: the account is signed out");
                            let refused = |silo: &&Arc<dyn Silo>| {
                                toward == Side::Silo || silo.account().is_signed_out()
                            };
                            // Without the Matrix account the bridge cannot continue.
                            let Some(silo) = account.as_ref().filter(refused) else {
                                return Ok(());
                            };
                            if !account_recovery::wait_not_refused(&**silo, &stop).await {
                                return Ok(());
                            }
                        }
                    }
                    .instrument(span),
                );
            }
        }
    }
}
