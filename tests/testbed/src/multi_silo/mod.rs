//! One bridge between encrypted rooms and channels of silos of any kind: the scene for what is not Gitter's alone. A room
//! may be joined to several channels, and a channel to several rooms.

mod actions;
mod gateway_relay;
mod second_bridge;
mod silo_channel;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use footbridge_matrix::person::TestClient;
use tempfile::TempDir;

pub use actions::{Actor, UserAction};
pub use gateway_relay::GatewayRelay;
pub use silo_channel::{SiloChannel, SimulatorKind};

use crate::bridge::{BridgeProcess, PortalSetup, Setup};
use crate::proxy::Proxy;
use crate::report::{Arrived, Verdict};
use crate::scenario::{Load, PASSWORD, RoomObserver, until};
use crate::synapse::Synapse;

/// What a town is made of.
#[derive(Default)]
pub struct MultiSiloOptions {
    /// The `footbridge` program.
    pub binary: PathBuf,
    /// The channels.
    pub sites: Vec<SimulatorKind>,
    /// How many rooms.
    pub rooms: usize,
    /// Which rooms are joined to which channels, by their numbers.
    pub portals: Vec<(usize, usize)>,
    /// Whether the rooms stay in the clear.
    pub in_clear: bool,
    /// Whether the bridge may change the state of the rooms.
    pub powerful: bool,
    /// More lines for each portal.
    pub portal_options: String,
    /// What Bob says in every channel before the bridge is there.
    pub said_before: Vec<String>,
    /// Lines of `[media]`.
    pub media_options: String,
    /// For the dice of the proxies.
    pub seed: u64,
    /// For `FOOTBRIDGE_LOG`.
    pub log_filter: String,
}

impl MultiSiloOptions {
    /// One room and one channel of this kind.
    #[must_use]
    pub fn of_one(binary: PathBuf, kind: SimulatorKind) -> Self {
        Self {
            binary,
            sites: vec![kind],
            rooms: 1,
            portals: vec![(0, 0)],
            seed: 1,
            log_filter: "info".to_owned(),
            ..Self::default()
        }
    }
}

/// Everything in its place. The bridge runs and is in every room.
pub struct MultiSiloScenario {
    /// The bridge.
    pub bridge: BridgeProcess,
    /// Its Matrix user id.
    pub bridge_user: String,
    /// What stands between it and the homeserver.
    pub homeserver: Proxy,
    /// The person in all rooms.
    pub ann: TestClient,
    /// What she sees.
    pub room_observer: RoomObserver,
    /// The rooms.
    pub rooms: Vec<String>,
    /// The channels.
    pub sites: Vec<SiloChannel>,
    /// Ann's client.
    _files: TempDir,
}

impl MultiSiloScenario {
    /// Builds it on this homeserver.
    pub async fn build(synapse: &Synapse, plan: MultiSiloOptions) -> anyhow::Result<Self> {
        let tag = unique();
        let files = tempfile::Builder::new()
            .prefix("footbridge-ann-")
            .tempdir()?;
        let name = format!("townann{tag}");
        synapse.register(&name, PASSWORD).await?;
        let ann = TestClient::login(&synapse.url(), &name, PASSWORD, files.path()).await?;
        ann.set_display_name("Ann").await?;
        let bridge_user = synapse
            .register(&format!("townbridge{tag}"), PASSWORD)
            .await?;
        let mut rooms = Vec::new();
        for number in 0..plan.rooms {
            let invited = [bridge_user.clone()];
            let room = ann.create_room(&format!("Room {number}"), !plan.in_clear, &invited);
            let room = room.await?;
            if plan.powerful {
                let power = serde_json::json!({ "users": { &bridge_user: 50 } });
                let state = ("m.room.power_levels", "");
                ann.send_state(&room, state, power).await?;
            }
            rooms.push(room);
        }
        let mut sites = Vec::new();
        for (number, kind) in plan.sites.iter().enumerate() {
            let site = SiloChannel::open(number, kind, plan.seed).await?;
            for text in &plan.said_before {
                site.say(text);
                // Some networks know no order within a millisecond.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            sites.push(site);
        }
        let homeserver = Proxy::start(&synapse.url(), plan.seed).await?;
        let mut portals = Vec::new();
        for (room, site) in plan.portals {
            let room = rooms.get(room).context("there is no such room")?;
            let site = sites.get(site).context("there is no such channel")?;
            portals.push(PortalSetup {
                room: room.clone(),
                silo: site.name.clone(),
                channel: site.channel(),
                options: plan.portal_options.clone(),
            });
        }
        let bridge = BridgeProcess::prepare(&Setup {
            binary: plan.binary,
            homeserver: homeserver.url_for(&synapse.url()),
            user: bridge_user.clone(),
            password: PASSWORD.to_owned(),
            silos: sites.iter().map(SiloChannel::setup).collect(),
            matrix_options: "key_wait = \"5m\"".to_owned(),
            delivery_options: String::new(),
            admin_options: String::new(),
            media_options: plan.media_options,
            portals,
            log_filter: plan.log_filter,
        })?;
        bridge.login().await?;
        bridge.start().await?;
        let town = Self {
            bridge,
            bridge_user,
            homeserver,
            room_observer: RoomObserver::open(ann.clone()),
            ann,
            rooms,
            sites,
            _files: files,
        };
        town.joined().await?;
        Ok(town)
    }

    async fn joined(&self) -> anyhow::Result<()> {
        for room in &self.rooms {
            let joined = || {
                let found = self.room_observer.pick(room, |heard| {
                    let membership = heard.seen.content.get("membership");
                    let here = heard.seen.event_type == "m.room.member"
                        && heard.seen.sender == self.bridge_user
                        && membership.is_some_and(|membership| membership == "join");
                    here.then_some(())
                });
                !found.is_empty()
            };
            let waited = until(Duration::from_mins(1), joined).await;
            waited.context("the bridge did not join its room")?;
        }
        // A silo that is not followed yet has no history to catch up with.
        self.bridge.wait_ready().await
    }

    /// Waits a minute for something to be so; where it is not, says what stands where, and what the bridge logged.
    pub async fn wait(&self, what: &str, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
        let waited = until(Duration::from_mins(1), is_so).await;
        waited.with_context(|| {
            let channel = self.sites.first().map(SiloChannel::read).unwrap_or_default();
            let logs = self.bridge.logs_end();
            format!(
                "{what} did not happen; in the channel stands {channel:?}, in the room {:?}\n{logs}",
                self.read(0)
            )
        })
    }

    /// What the bridge has said in a room, in order, as it reads now: text, and whether it stands there still.
    pub fn read(&self, room: usize) -> Vec<String> {
        let Some(room) = self.rooms.get(room) else {
            return Vec::new();
        };
        let mut texts: Vec<(String, String)> = Vec::new();
        let changes = self.room_observer.pick(room, |heard| {
            (heard.seen.sender == self.bridge_user).then(|| heard.clone())
        });
        for heard in changes {
            let body =
                |content: &serde_json::Value| Some(content.get("body")?.as_str()?.to_owned());
            let content = &heard.seen.content;
            if heard.seen.event_type == "m.room.redaction" {
                let gone = content.get("redacts").and_then(serde_json::Value::as_str);
                texts.retain(|(id, _)| Some(id.as_str()) != gone);
            } else if let (Some(edited), Some(text)) =
                (heard.edits(), content.get("m.new_content").and_then(body))
            {
                let mut known = texts.iter_mut();
                if let Some((_, old)) = known.find(|(id, _)| id == edited) {
                    *old = text;
                }
            } else if let Some(text) = heard.text()
                && !texts.iter().any(|(id, _)| *id == heard.seen.event_id)
            {
                texts.push((heard.seen.event_id.clone(), text.to_owned()));
            }
        }
        texts.into_iter().map(|(_, text)| text).collect()
    }

    /// How a load did on its way into a room.
    pub fn into_room(&self, load: &Load, room: usize) -> Verdict {
        let Some(room) = self.rooms.get(room) else {
            return Verdict::default();
        };
        let arrived = self.room_observer.pick(room, |heard| {
            let text = heard
                .text()
                .filter(|_| heard.seen.sender == self.bridge_user)?;
            let at = Some(heard.at);
            let numbers = load.numbers_in(text).into_iter();
            Some(
                numbers
                    .map(|number| Arrived { number, at })
                    .collect::<Vec<_>>(),
            )
        });
        Verdict::of(&load.said(), &arrived.concat())
    }

    /// How a load did on its way into a channel.
    pub fn into_channel(&self, load: &Load, site: usize) -> Verdict {
        let Some(site) = self.sites.get(site) else {
            return Verdict::default();
        };
        let arrived = site.seen();
        let arrived = arrived.iter().filter_map(|(text, at)| {
            let number = load.number_in(text)?;
            Some(Arrived { number, at: *at })
        });
        Verdict::of(&load.said(), &arrived.collect::<Vec<_>>())
    }
}

/// Tells towns on one homeserver apart.
fn unique() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}
