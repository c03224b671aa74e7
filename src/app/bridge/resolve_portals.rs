//! Resolving the room and the channel of each portal in the configuration: the store knows those of an earlier start,
//! and the homeserver and the silo are asked for the others. A silo that does not answer delays its own portals only.

use std::{collections::BTreeMap, sync::PoisonError, time::Duration};

use anyhow::Context;
use footbridge_core::error_chain;
use footbridge_matrix::MatrixError;
use footbridge_silo::SiloError;
use footbridge_store::{Portal, PortalSpec};
use futures_util::future::join_all;
use tracing::error;

use super::App;
use crate::config::PortalConfig;

/// How long the start waits for portals that were never opened before. Those that take longer are opened later.
const START_TIMEOUT: Duration = Duration::from_secs(10);

impl App {
    /// Portals of the configuration and of the command line: those that the store knows from an earlier start, and the
    /// others.
    async fn known_portals(&self) -> anyhow::Result<(Vec<Portal>, Vec<PortalConfig>)> {
        let stored = self.store.portals().await?;
        let (mut known, mut missing) = (Vec::new(), Vec::new());
        let mut all = self.config.portals.clone();
        for spec in self.store.operator_portals().await? {
            // A portal without its silo is logged as broken elsewhere, and not resolved.
            if self.silos.contains_key(&spec.silo) && !all.iter().any(|known| known.spec() == spec)
            {
                all.push(PortalConfig::from_spec(spec));
            }
        }
        for wanted in &all {
            let spec = spec(wanted);
            match stored.iter().find(|portal| portal.spec == spec) {
                // Opening it again makes it active, if it was missing from the configuration before. A portal that
                // people made in chat keeps its source until the configuration names it.
                Some(portal) => known.push(
                    self.store
                        .open_portal_of(
                            wanted.origin,
                            &spec,
                            &portal.room,
                            &portal.channel,
                            self.clock.now(),
                        )
                        .await?,
                ),
                None => missing.push(wanted.clone()),
            }
        }
        Ok((known, missing))
    }

    /// The portals to start with, and those to resolve while they run.
    pub(super) async fn initial_portals(&self) -> anyhow::Result<(Vec<Portal>, Vec<PortalConfig>)> {
        let (mut portals, missing) = self.known_portals().await?;
        match tokio::time::timeout(START_TIMEOUT, self.find(&missing)).await {
            Ok(searched) => {
                let (found, missing) = searched?;
                portals.extend(found);
                Ok((portals, missing))
            }
            // The portals that were opened meanwhile are in the store.
            Err(_) => self.known_portals().await,
        }
    }

    /// Tries to resolve portals that were never opened before. Returns those it could resolve, and those it could not
    /// resolve yet.
    pub(super) async fn find(
        &self,
        missing: &[PortalConfig],
    ) -> anyhow::Result<(Vec<Portal>, Vec<PortalConfig>)> {
        let mut by_silo: BTreeMap<&str, Vec<&PortalConfig>> = BTreeMap::new();
        for wanted in missing {
            by_silo.entry(&wanted.silo).or_default().push(wanted);
        }
        let searches = by_silo.into_values().map(|wanted| self.find_some(wanted));
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for searched in join_all(searches).await {
            let (some, others) = searched?;
            found.extend(some);
            missing.extend(others);
        }
        Ok((found, missing))
    }

    async fn find_some(
        &self,
        missing: Vec<&PortalConfig>,
    ) -> anyhow::Result<(Vec<Portal>, Vec<PortalConfig>)> {
        let (mut found, mut still) = (Vec::new(), Vec::new());
        let silo = missing.first().map(|wanted| wanted.silo.clone());
        let mut why: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for wanted in missing {
            match self.find_one(wanted).await {
                Ok(portal) => found.push(portal),
                Err(error) if is_fatal(&error) => return Err(error),
                Err(error) => {
                    let portal = format!("{} - {}", wanted.room, wanted.channel);
                    let portals = why.entry(error_chain::format(error.as_ref())).or_default();
                    portals.push(portal);
                    still.push(wanted.clone());
                }
            }
        }
        if let Some(silo) = silo {
            self.log_unopened(silo, why);
        }
        Ok((found, still))
    }

    /// Logs which portals of a silo cannot be opened, and why: one line for each reason, and again only when something
    /// has changed.
    fn log_unopened(&self, silo: String, why: BTreeMap<String, Vec<String>>) {
        let mut logged = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.get(&silo) == Some(&why) {
            return;
        }
        for (error, portals) in &why {
            error!(
                silo.name = silo,
                error,
                "Not opened yet: {}; trying again",
                portals.join(", ")
            );
        }
        logged.insert(silo, why);
    }

    async fn find_one(&self, wanted: &PortalConfig) -> anyhow::Result<Portal> {
        let silo = self
            .silos
            .get(&wanted.silo)
            .context("the portal names a silo that does not exist")?;
        let channel = silo.resolve(&wanted.channel).await?;
        let room = self.matrix.device().resolve(&wanted.room).await?;
        Ok(self
            .store
            .open_portal_of(
                wanted.origin,
                &spec(wanted),
                &room,
                &channel.place,
                self.clock.now(),
            )
            .await?)
    }
}

/// Whether waiting cannot help.
fn is_fatal(error: &anyhow::Error) -> bool {
    error.downcast_ref::<footbridge_store::Error>().is_some()
        || matches!(
            error.downcast_ref(),
            Some(MatrixError::SignedOut(_) | MatrixError::Store(_) | MatrixError::CryptoStore(_))
        )
        || matches!(error.downcast_ref(), Some(SiloError::Store(_)))
}

fn spec(portal: &PortalConfig) -> PortalSpec {
    PortalSpec {
        room: portal.room.clone(),
        silo: portal.silo.clone(),
        channel: portal.channel.clone(),
    }
}
