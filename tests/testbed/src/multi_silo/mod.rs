//! One bridge between encrypted rooms and channels of silos of any kind: the scenario for everything that is not
//! specific to Gitter. A room may be linked to several channels, and a channel to several rooms.

mod gateway_relay;
mod second_bridge;
mod silo_channel;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::client::TestClient;
use anyhow::Context as _;
use footbridge_simulators::channel::SimulatorKind;
use tempfile::TempDir;

pub use gateway_relay::GatewayRelay;
pub use silo_channel::SiloChannel;

use crate::bridge::{BridgeProcess, PortalSetup, Setup};
use crate::proxy::Proxy;
use crate::report::{Arrived, Verdict};
use crate::scenario::{Load, PASSWORD, RoomObserver, until};
use crate::synapse::Synapse;

/// The options of a scenario.
#[derive(Default)]
pub struct MultiSiloOptions {
    /// The path of the `footbridge` program.
    pub binary: PathBuf,
    /// The channels.
    pub sites: Vec<&'static SimulatorKind>,
    /// How many rooms.
    pub rooms: usize,
    /// Which rooms are linked to which channels, by their indices.
    pub portals: Vec<(usize, usize)>,
    /// Whether the rooms stay unencrypted.
    pub in_clear: bool,
    /// Whether the bridge may change the state of the rooms.
    pub powerful: bool,
    /// More lines for each portal.
    pub portal_options: String,
    /// Texts that Bob posts in every channel before the bridge starts.
    pub said_before: Vec<String>,
    /// The lines of the `[media]` section.
    pub media_options: String,
    /// The seed of the proxies' random choices.
    pub seed: u64,
    /// The value of `FOOTBRIDGE_LOG`.
    pub log_filter: String,
}

impl MultiSiloOptions {
    /// One room and one channel of this kind.
    #[must_use]
    pub fn of_one(binary: PathBuf, kind: &'static SimulatorKind) -> Self {
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

/// The running scenario: the bridge has joined every room.
pub struct MultiSiloScenario {
    /// The bridge.
    pub bridge: BridgeProcess,
    /// Its Matrix user id.
    pub bridge_user: String,
    /// The proxy between the bridge and the homeserver.
    pub homeserver: Proxy,
    /// The user in all rooms.
    pub ann: TestClient,
    /// What Ann's client receives.
    pub room_observer: RoomObserver,
    /// The rooms.
    pub rooms: Vec<String>,
    /// The channels.
    pub sites: Vec<SiloChannel>,
    /// The files of Ann's client.
    _files: TempDir,
}

impl MultiSiloScenario {
    /// Builds the scenario on this homeserver.
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
            let site = SiloChannel::open(number, (kind.open)().await?, plan.seed).await?;
            for text in &plan.said_before {
                site.say(text);
                // Some networks have no order within a millisecond.
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
                silo: site.silo.clone(),
                channel: site.name(),
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
        let scene = Self {
            bridge,
            bridge_user,
            homeserver,
            room_observer: RoomObserver::open(ann.clone()),
            ann,
            rooms,
            sites,
            _files: files,
        };
        scene.joined().await?;
        Ok(scene)
    }

    async fn joined(&self) -> anyhow::Result<()> {
        for room in &self.rooms {
            let joined = || {
                let found = self.room_observer.pick(room, |event| {
                    let membership = event.seen.content.get("membership");
                    let here = event.seen.event_type == "m.room.member"
                        && event.seen.sender == self.bridge_user
                        && membership.is_some_and(|membership| membership == "join");
                    here.then_some(())
                });
                !found.is_empty()
            };
            let waited = until(Duration::from_mins(1), joined).await;
            waited.context("the bridge did not join its room")?;
        }
        // The bridge catches up only with silos that it has followed before.
        self.bridge.wait_ready().await
    }

    /// Waits a minute until the condition is true; if it stays false, the error contains the texts of all places and
    /// the bridge's log.
    pub async fn wait(&self, what: &str, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
        let waited = until(Duration::from_mins(1), is_so).await;
        waited.with_context(|| {
            let channel = self
                .sites
                .first()
                .map(|site| site.bridge_texts())
                .unwrap_or_default();
            let logs = self.bridge.logs_end();
            format!(
                "{what}: not in time; the channel has {channel:?}, the room {:?}\n{logs}",
                self.read(0)
            )
        })
    }

    /// The current texts of the bridge's messages in a room, in order, without redacted ones.
    pub fn read(&self, room: usize) -> Vec<String> {
        let Some(room) = self.rooms.get(room) else {
            return Vec::new();
        };
        let mut texts: Vec<(String, String)> = Vec::new();
        let changes = self.room_observer.pick(room, |event| {
            (event.seen.sender == self.bridge_user).then(|| event.clone())
        });
        for event in changes {
            let body =
                |content: &serde_json::Value| Some(content.get("body")?.as_str()?.to_owned());
            let content = &event.seen.content;
            if event.seen.event_type == "m.room.redaction" {
                let gone = content.get("redacts").and_then(serde_json::Value::as_str);
                texts.retain(|(id, _)| Some(id.as_str()) != gone);
            } else if let (Some(edited), Some(text)) =
                (event.edits(), content.get("m.new_content").and_then(body))
            {
                let mut known = texts.iter_mut();
                if let Some((_, old)) = known.find(|(id, _)| id == edited) {
                    *old = text;
                }
            } else if let Some(text) = event.text()
                && !texts.iter().any(|(id, _)| *id == event.seen.event_id)
            {
                texts.push((event.seen.event_id.clone(), text.to_owned()));
            }
        }
        texts.into_iter().map(|(_, text)| text).collect()
    }

    /// The result of a load in a room.
    pub fn into_room(&self, load: &Load, room: usize) -> Verdict {
        let Some(room) = self.rooms.get(room) else {
            return Verdict::default();
        };
        let arrived = self.room_observer.pick(room, |event| {
            let text = event
                .text()
                .filter(|_| event.seen.sender == self.bridge_user)?;
            let at = Some(event.at);
            let numbers = load.numbers_in(text).into_iter();
            Some(
                numbers
                    .map(|number| Arrived { number, at })
                    .collect::<Vec<_>>(),
            )
        });
        Verdict::of(&load.said(), &arrived.concat())
    }

    /// The result of a load in a channel.
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

/// A number that distinguishes the scenarios on one homeserver.
fn unique() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}
