//! Which portals run: those of the configuration, those that the operator or people in a chat added, and the management
//! rooms. A portal whose silo is not configured is logged and left alone; the others run.

use std::{collections::HashSet, sync::Arc};

use footbridge_store::{Portal, PortalId, PortalSource};
use tracing::warn;

use super::{App, control_backend::ControlBackend};
use crate::{
    config::PortalConfig,
    control::{AlreadyDone, Control, ControlConfig},
    media_gateway::{self, MediaGateway},
};

/// The portals that the configuration still names, also under another name: a portal that is not resolved yet may be
/// one that an earlier configuration named differently.
pub(super) fn listed(
    named: &[Portal],
    missing: &[PortalConfig],
    stored: &[Portal],
) -> Vec<PortalId> {
    let may_be = |portal: &&Portal| {
        let spec = &portal.spec;
        missing.iter().any(|wanted| {
            wanted.room == spec.room
                || (&wanted.silo, &wanted.channel) == (&spec.silo, &spec.channel)
        })
    };
    let named = named.iter().map(|portal| portal.id);
    let renamed = stored.iter().filter(may_be).map(|portal| portal.id);
    named.chain(renamed).collect()
}

impl App {
    /// The portals to run now, as the store has them: rooms are upgraded, and portals are added and removed.
    pub(super) async fn active_portals(&self, named: &[Portal]) -> anyhow::Result<Vec<Portal>> {
        let named: HashSet<PortalId> = named.iter().map(|portal| portal.id).collect();
        let mut portals = self.store.portals().await?;
        portals.retain(|portal| {
            let is_wanted = portal.source != PortalSource::Config || named.contains(&portal.id);
            portal.active && is_wanted && self.has_silo(portal)
        });
        Ok(portals)
    }

    fn has_silo(&self, portal: &Portal) -> bool {
        let known =
            portal.source == PortalSource::Management || self.silos.contains_key(&portal.spec.silo);
        if !known {
            warn!(
                portal.id = portal.id.0,
                silo.name = portal.spec.silo,
                "warning[B30]: A portal is off: the configuration has no silo of this name. Its messages wait; \
                 `footbridge portal remove` removes it"
            );
        }
        known
    }

    /// The media gateway.
    pub(super) fn gateway(&self) -> MediaGateway {
        MediaGateway {
            store: self.store.clone(),
            source: self.matrix.device().outlet(),
            spool: self
                .spool
                .with_limits(u64::MAX, media_gateway::MAX_CONCURRENT),
            clock: self.clock,
        }
    }

    pub(super) fn control(&self) -> Control {
        let consent = &self.config.consent;
        let own_user = self.config.matrix.user.as_str();
        let operator = consent.operator.clone();
        let verifications = self.matrix.device().verifications().clone();
        Control {
            store: self.store.clone(),
            signals: self.signals.clone(),
            clock: self.clock,
            verify: Arc::new(move |user, yes| verifications.handle_command(user, yes.into())),
            rules: Arc::new(ControlConfig {
                admins: self.config.admin.users.clone(),
                delay: consent.delay,
                operator: operator.unwrap_or_else(|| format!("the operator of {own_user}")),
                disclose_joins: consent.disclose_joins,
                limits: self
                    .config
                    .silos
                    .iter()
                    .map(|silo| (silo.name().to_owned(), silo.kind().limits()))
                    .collect(),
                proving_silos: self
                    .config
                    .silos
                    .iter()
                    .map(|silo| (silo.name().to_owned(), silo.kind().proves_authors))
                    .collect(),
            }),
            backend: Arc::new(ControlBackend {
                matrix: self.matrix.clone(),
                silos: self.silos.clone(),
                accounts: self.accounts.to_matrix().clone(),
                store: self.store.clone(),
                http: self.http.clone(),
            }),
            shown: Arc::new(AlreadyDone::default()),
            answers: self.answers.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use footbridge_store::{Place, PortalSpec};

    use super::*;

    fn portal(id: i64, room: &str, channel: &str) -> Portal {
        Portal {
            id: PortalId(id),
            spec: spec(room, channel),
            room: Place::room(room),
            channel: Place::new("gitter", channel),
            active: true,
            source: PortalSource::Config,
        }
    }

    fn spec(room: &str, channel: &str) -> PortalSpec {
        PortalSpec {
            room: room.to_owned(),
            silo: "gitter".to_owned(),
            channel: channel.to_owned(),
        }
    }

    #[test]
    fn a_portal_removed_from_the_configuration_is_unlisted_while_another_is_not_resolved() {
        let [found, removed] = [portal(1, "#a", "a"), portal(2, "#b", "b")];
        let renamed = portal(3, "#c-as-it-was-called", "c");
        let missing = [PortalConfig::from_spec(spec("#c", "c"))];
        let stored = [found.clone(), removed, renamed];
        let ids = [PortalId(1), PortalId(3)];
        assert_eq!(listed(std::slice::from_ref(&found), &missing, &stored), ids);
        assert_eq!(listed(&[found], &[], &stored), [PortalId(1)]);
    }
}
