//! Finding both ends of the portals that the configuration asks for.

use anyhow::Context;
use footbridge_store::{Portal, PortalSpec};
use tracing::error;

use super::House;
use crate::{config::PortalConfig, matrix::MatrixError, silo::SiloError};

impl House {
    /// Portals of the configuration that the store knows from an earlier start, and those it does not.
    pub(super) async fn known_portals(&self) -> anyhow::Result<(Vec<Portal>, Vec<PortalConfig>)> {
        let stored = self.store.portals().await?;
        let (mut known, mut missing) = (Vec::new(), Vec::new());
        for wanted in &self.config.portals {
            let spec = spec(wanted);
            match stored.iter().find(|portal| portal.spec == spec) {
                // Opening it again makes it active, should it have been left out of the configuration before.
                Some(portal) => known.push(
                    self.store
                        .open_portal(&spec, &portal.room, &portal.channel, self.clock.now())
                        .await?,
                ),
                None => missing.push(wanted.clone()),
            }
        }
        Ok((known, missing))
    }

    /// Tries to find both ends of portals never opened before. Those that cannot be found now stay in `missing`
    /// and hold up nobody.
    pub(super) async fn find(
        &self,
        missing: &mut Vec<PortalConfig>,
    ) -> anyhow::Result<Vec<Portal>> {
        let mut found = Vec::new();
        for wanted in std::mem::take(missing) {
            match self.find_one(&wanted).await {
                Ok(portal) => found.push(portal),
                Err(error) if is_fatal(&error) => return Err(error),
                Err(error) => {
                    error!(
                        silo.name = wanted.silo,
                        error = format!("{error:#}"),
                        "A portal cannot be opened yet; trying again"
                    );
                    missing.push(wanted);
                }
            }
        }
        Ok(found)
    }

    async fn find_one(&self, wanted: &PortalConfig) -> anyhow::Result<Portal> {
        let silo = self
            .silos
            .get(&wanted.silo)
            .context("the portal names a silo that does not exist")?;
        let channel = silo.resolve(&wanted.channel).await?;
        let room = self.matrix.resolve(&wanted.room).await?;
        Ok(self
            .store
            .open_portal(&spec(wanted), &room, &channel.place, self.clock.now())
            .await?)
    }
}

/// Whether waiting cannot help.
fn is_fatal(error: &anyhow::Error) -> bool {
    error.downcast_ref::<footbridge_store::Error>().is_some()
        || matches!(
            error.downcast_ref(),
            Some(MatrixError::SignedOut(_) | MatrixError::Store(_) | MatrixError::Keys(_))
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
