//! Which portals run: those of the configuration, those that the operator or people in a chat made, and the desks at
//! which the bridge only answers. A portal whose silo is gone is named and left alone; the others run.

use std::{collections::HashSet, sync::Arc};

use footbridge_store::{Origin, Portal, PortalId};
use tracing::warn;

use super::{House, outside::Sides};
use crate::{
    control::{Control, Rules, Shown},
    gateway::{self, Gateway},
};

impl House {
    /// The portals to run now, as the store has them: rooms move, and portals are made and taken apart.
    pub(super) async fn served(&self, named: &[Portal]) -> anyhow::Result<Vec<Portal>> {
        let named: HashSet<PortalId> = named.iter().map(|portal| portal.id).collect();
        let mut portals = self.store.portals().await?;
        portals.retain(|portal| {
            let is_wanted = portal.origin != Origin::File || named.contains(&portal.id);
            portal.active && is_wanted && self.has_other_end(portal)
        });
        Ok(portals)
    }

    fn has_other_end(&self, portal: &Portal) -> bool {
        let known = portal.origin == Origin::Desk || self.silos.contains_key(&portal.spec.silo);
        if !known {
            warn!(
                portal.id = portal.id.0,
                silo.name = portal.spec.silo,
                "warning[B30]: A portal is off: the configuration has no silo of this name. Its messages wait; \
                 `footbridge portal remove` takes it apart"
            );
        }
        known
    }

    /// What serves links to files.
    pub(super) fn gateway(&self) -> Gateway {
        Gateway {
            store: self.store.clone(),
            source: self.matrix.clone(),
            spool: self.spool.apart(u64::MAX, gateway::AT_ONCE),
            clock: self.clock,
        }
    }

    pub(super) fn control(&self) -> Control {
        let consent = &self.config.consent;
        let account = self.config.matrix.user.as_str();
        let operator = consent.operator.clone();
        let verifications = self.matrix.verifications().clone();
        Control {
            store: self.store.clone(),
            bells: self.bells.clone(),
            clock: self.clock,
            verify: Arc::new(move |user, yes| verifications.obey(user, yes.into())),
            rules: Arc::new(Rules {
                admins: self.config.admin.users.clone(),
                delay: consent.delay,
                operator: operator.unwrap_or_else(|| format!("whoever runs {account}")),
                disclose_joins: consent.disclose_joins,
                limits: self
                    .config
                    .silos
                    .iter()
                    .map(|silo| (silo.name().to_owned(), silo.kind().limits()))
                    .collect(),
            }),
            outside: Arc::new(Sides {
                matrix: self.matrix.clone(),
                silos: self.silos.clone(),
            }),
            shown: Arc::new(Shown::default()),
            answers: self.answers.clone(),
        }
    }
}
