//! A second bridge between the scenario's first room and its first channel, with its own accounts on both sides.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{MultiSiloScenario, unique};
use crate::bridge::{BridgeProcess, PortalSetup, Setup};
use crate::scenario::PASSWORD;
use crate::synapse::Synapse;

impl MultiSiloScenario {
    /// Starts it; returns it with its Matrix user id.
    pub async fn start_second_bridge(
        &self,
        synapse: &Synapse,
        binary: PathBuf,
    ) -> anyhow::Result<(BridgeProcess, String)> {
        let user = synapse
            .register(&format!("townrival{}", unique()), PASSWORD)
            .await?;
        let room = self.rooms.first().context("there is no room")?;
        let site = self.sites.first().context("there is no channel")?;
        self.ann.invite(room, &user).await?;
        let silo = site.second_bridge_setup()?;
        let bridge = BridgeProcess::prepare(&Setup {
            binary,
            homeserver: synapse.url(),
            user: user.clone(),
            password: PASSWORD.to_owned(),
            portals: vec![PortalSetup {
                room: room.clone(),
                silo: silo.name.clone(),
                channel: site.name(),
                options: String::new(),
            }],
            silos: vec![silo],
            matrix_options: String::new(),
            delivery_options: String::new(),
            admin_options: String::new(),
            media_options: String::new(),
            log_filter: "info".to_owned(),
        })?;
        bridge.login().await?;
        bridge.start().await?;
        bridge.wait_ready().await?;
        Ok((bridge, user))
    }
}
