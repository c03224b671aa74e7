//! One encrypted room, one channel, users on both sides and the bridge between them: the scenario of tests, demo, kills
//! and bench. It sends messages, and compares what was sent with what arrived.

mod burst;
mod portal_traffic;
mod room_observer;
mod load;
pub mod many;
mod proxies;
mod search;
mod raw_member;
mod channel_observer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::client::TestClient;
use anyhow::{Context as _, anyhow, bail};
use tempfile::TempDir;
use tokio::time::Instant;

pub use burst::{Burst, Outcome, burst};
pub use channel_observer::ChannelObserver;
pub use load::Load;
pub use portal_traffic::PortalTraffic;
pub use proxies::Proxies;
pub use raw_member::{RawMember, undecryptable_event};
pub use room_observer::{ObservedEvent, RoomObserver};
pub use search::files_containing;

use crate::bridge::{BridgeProcess, PortalSetup, Setup, SiloAccess};
use crate::proxy::Rule;
use crate::report::{Arrived, Verdict};
use crate::synapse::Synapse;
use footbridge_simulators::gitter::{self, GitterSim, RoomOptions};

/// The password of every account: they exist for minutes, on loopback.
pub const PASSWORD: &str = "a password for the testbed";

/// The options of a scenario.
pub struct Options {
    /// The path of the `footbridge` program.
    pub binary: PathBuf,
    /// The value of `FOOTBRIDGE_LOG`.
    pub log_filter: String,
    /// The options of the Gitter simulator.
    pub silo: gitter::Options,
    /// More lines for the bridge's `[[silo]]` section.
    pub silo_options: String,
    /// More lines for its `[matrix]` section.
    pub matrix_options: String,
    /// The lines of its `[delivery]` section.
    pub delivery_options: String,
    /// More lines of its `[admin]` section, and whole sections after it; `{ann}` is replaced by Ann's user id.
    pub admin_options: String,
    /// If set: proxies between the bridge and everything else, with this seed.
    pub proxies: Option<u64>,
    /// Whether the rooms are encrypted from the start.
    pub encrypted: bool,
    /// How many rooms are linked to as many channels; users write in the first one.
    pub portals: usize,
    /// A fault during the first login: the login is killed there, and a second one completes it.
    pub fault_at_login: Option<Rule>,
}

impl Options {
    /// One portal, and a silo with the real one's limits.
    #[must_use]
    pub fn new(binary: PathBuf) -> Self {
        Self {
            binary,
            log_filter: "info".to_owned(),
            silo: gitter::Options::default(),
            silo_options: String::new(),
            matrix_options: String::new(),
            delivery_options: String::new(),
            admin_options: String::new(),
            proxies: None,
            encrypted: true,
            portals: 1,
            fault_at_login: None,
        }
    }

    /// The same with a silo that allows this many requests a minute, and a bridge that is configured for that.
    #[must_use]
    pub fn with_budget(mut self, requests_per_minute: u32) -> Self {
        self.silo.rate_limit = u64::from(requests_per_minute);
        self.silo_options = format!("requests_per_minute = {requests_per_minute}");
        self
    }
}

/// A room and the channel that it is linked to.
#[derive(Clone)]
pub struct RoomAndChannel {
    /// The room id.
    pub room: String,
    /// The channel.
    pub channel: gitter::Room,
}

impl RoomAndChannel {
    fn portal(&self) -> PortalSetup {
        PortalSetup {
            room: self.room.clone(),
            silo: "gitter".to_owned(),
            channel: self.channel.uri.clone(),
            options: String::new(),
        }
    }
}

fn access(sim: &GitterSim, bot: &gitter::User, options: String) -> SiloAccess {
    SiloAccess {
        api: sim.api_url(),
        stream: sim.stream_url(),
        realtime: sim.realtime_url(),
        token: bot.token.clone(),
        options,
    }
}

/// The running scenario. The bridge has logged in and does not run yet.
pub struct Scenario {
    /// The bridge.
    pub bridge: BridgeProcess,
    /// Its Matrix user id.
    pub bridge_user: String,
    /// The proxies between the bridge and everything else, if there are any.
    pub proxies: Option<Proxies>,
    /// Its account on the silo.
    pub bot: gitter::User,
    /// The silo.
    pub sim: GitterSim,
    /// The user in the room, on her own device.
    pub ann: TestClient,
    /// What Ann's client receives.
    pub room_observer: RoomObserver,
    /// When messages appeared in channels.
    pub watch: ChannelObserver,
    /// A user in the channel.
    pub mary: gitter::User,
    /// Another user in the channel.
    pub tom: gitter::User,
    /// The room and channel in which users write.
    pub stage: RoomAndChannel,
    /// All portals, with `stage`.
    pub pairs: Vec<RoomAndChannel>,
    /// The messages sent in the room.
    pub from_room: Load,
    /// The messages sent in the channel.
    pub from_channel: Load,
    /// The files of Ann's client.
    _files: TempDir,
}

/// Logs in; with a fault the login is killed when that occurs, and a second one completes it.
async fn log_in(
    bridge: &BridgeProcess,
    proxies: Option<&Proxies>,
    harm: Option<Rule>,
) -> anyhow::Result<()> {
    if let (Some(harm), Some(between)) = (harm, proxies) {
        between.homeserver.add(harm);
        let struck = || between.homeserver.fault_count() > 0;
        bridge.kill_when("login", struck).await?;
        between.homeserver.clear();
    }
    bridge.login().await.map(drop)
}

impl Scenario {
    /// Builds the scenario on this homeserver; `tell` is called with what is being done.
    pub async fn set_up(
        synapse: &Synapse,
        options: Options,
        tell: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
        tell("Mary and Tom are in a channel of a simulated Gitter");
        let sim = GitterSim::start(options.silo).await;
        let sim = sim.context("the simulator does not start")?;
        let bot = sim.add_user("footbridge-bot", "Footbridge");
        let (mary, tom) = (sim.add_user("mary", "Mary"), sim.add_user("tom", "Tom"));

        tell("Ann logs in to the homeserver, on her own device");
        let tag = unique();
        let files = tempfile::Builder::new()
            .prefix("footbridge-ann-")
            .tempdir()?;
        let ann_name = format!("ann{tag}");
        synapse.register(&ann_name, PASSWORD).await?;
        let ann = TestClient::login(&synapse.url(), &ann_name, PASSWORD, files.path()).await?;
        ann.set_display_name("Ann").await?;

        tell("Ann creates an encrypted room and invites the bridge's account");
        let bridge_user = synapse.register(&format!("bridge{tag}"), PASSWORD).await?;
        let mut pairs = Vec::new();
        for number in 1..=options.portals.max(1) {
            let (invited, name) = ([bridge_user.clone()], format!("The quiet room {number}"));
            let room = ann.create_room(&name, options.encrypted, &invited).await?;
            let uri = format!("footbridge/lounge{number}");
            let channel = sim.add_room(&uri, RoomOptions::default());
            for user in [&bot, &mary, &tom] {
                sim.join(&channel.id, &user.id)
                    .map_err(|refusal| anyhow!("{refusal}"))?;
            }
            pairs.push(RoomAndChannel { room, channel });
        }

        let mut homeserver = synapse.url();
        let mut silo = access(&sim, &bot, options.silo_options);
        let mut proxies = None;
        if let Some(seed) = options.proxies {
            tell("Proxies are started on both sides of the bridge");
            let between = Proxies::start(synapse, &sim, seed).await?;
            homeserver = between.homeserver.url_for(&homeserver);
            silo.api = between.api.url_for(&silo.api);
            silo.stream = between.stream.url_for(&silo.stream);
            silo.realtime = between.realtime.url_for(&silo.realtime);
            proxies = Some(between);
        }

        tell("The bridge logs in, once, and signs its device");
        let bridge = BridgeProcess::prepare(&Setup {
            binary: options.binary,
            homeserver,
            user: bridge_user.clone(),
            password: PASSWORD.to_owned(),
            silos: vec![silo.setup()],
            matrix_options: options.matrix_options,
            delivery_options: options.delivery_options,
            admin_options: options.admin_options.replace("{ann}", &ann.user_id()),
            media_options: String::new(),
            portals: pairs.iter().map(RoomAndChannel::portal).collect(),
            log_filter: options.log_filter,
        })?;
        log_in(&bridge, proxies.as_ref(), options.fault_at_login).await?;
        Ok(Self {
            bridge,
            bridge_user,
            proxies,
            bot,
            room_observer: RoomObserver::open(ann.clone()),
            watch: ChannelObserver::open(&sim),
            sim,
            ann,
            mary,
            tom,
            stage: pairs
                .first()
                .cloned()
                .context("the scenario has no portal")?,
            pairs,
            from_room: Load::new('r'),
            from_channel: Load::new('c'),
            _files: files,
        })
    }

    /// Starts the bridge for the first time and waits until it has joined every room.
    pub async fn open(&self) -> anyhow::Result<()> {
        self.bridge.start().await?;
        for pair in &self.pairs {
            let joined = || {
                let found = self.room_observer.pick(&pair.room, |event| {
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
        Ok(())
    }

    /// Ann sends a numbered message.
    pub async fn say_in_room(&self) -> anyhow::Result<()> {
        let text = self.from_room.number();
        self.ann.say(&self.stage.room, &text).await.map(drop)
    }

    /// Mary sends a numbered message.
    pub fn say_in_channel(&self) {
        let text = self.from_channel.number();
        self.sim.say(&self.stage.channel.id, &self.mary.id, &text);
    }

    /// The results of `pick` for the bridge's messages in the room as Ann sees them, without edits; `pick` gets the
    /// event and its text.
    pub fn in_room<T>(&self, mut pick: impl FnMut(&ObservedEvent, &str) -> Option<T>) -> Vec<T> {
        self.room_observer.pick(&self.stage.room, |event| {
            let text = event
                .text()
                .filter(|_| event.seen.sender == self.bridge_user)?;
            pick(event, text)
        })
    }

    /// The messages in the channel from the bridge's account.
    #[must_use]
    pub fn in_channel(&self) -> Vec<gitter::Message> {
        let mut messages = self.sim.messages(&self.stage.channel.id);
        messages.retain(|message| message.from_user_id == self.bot.id);
        messages
    }

    /// The present result of room → channel.
    #[must_use]
    pub fn toward_channel(&self) -> Verdict {
        self.toward_channel_from(0)
    }

    /// The same for the messages from this number on.
    #[must_use]
    pub fn toward_channel_from(&self, first: usize) -> Verdict {
        let mut arrived = Vec::new();
        for message in self.in_channel() {
            if let Some(number) = self.from_room.number_in(&message.text) {
                arrived.push(Arrived {
                    number,
                    at: self.watch.time_of(&message.id),
                });
            }
        }
        Verdict::of_those_from(first, &self.from_room.said(), &arrived)
    }

    /// The present result of channel → room.
    #[must_use]
    pub fn toward_room(&self) -> Verdict {
        self.toward_room_from(0)
    }

    /// The same for the messages from this number on.
    #[must_use]
    pub fn toward_room_from(&self, first: usize) -> Verdict {
        let arrived = self.in_room(|event, text| {
            // One event may carry several messages.
            let numbers = self.from_channel.numbers_in(text).into_iter();
            let arrived = numbers.map(|number| Arrived {
                number,
                at: Some(event.at),
            });
            Some(arrived.collect::<Vec<_>>())
        });
        Verdict::of_those_from(first, &self.from_channel.said(), &arrived.concat())
    }

    /// Waits until nothing is missing on either side, then until nothing is pending, then a moment longer for unwanted
    /// copies. Gives up after `patience`: the verdicts report what is missing.
    pub async fn settle(&self, patience: Duration) -> anyhow::Result<()> {
        let complete =
            || self.toward_channel().lost.is_empty() && self.toward_room().lost.is_empty();
        if until(patience, complete).await.is_err() {
            return Ok(());
        }
        self.bridge.settle(Duration::from_secs(30)).await?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Ok(())
    }

    /// Fails unless every event of the bridge and of Ann that could be a message is stored encrypted; returns how many
    /// there are.
    pub async fn all_encrypted(&self, synapse: &Synapse) -> anyhow::Result<usize> {
        let mut encrypted = 0;
        for pair in &self.pairs {
            for event in synapse.events(&pair.room).await? {
                let content = event.json.get("content");
                let algorithm = content.and_then(|content| content.get("algorithm")?.as_str());
                match event.event_type.as_str() {
                    "m.room.encrypted" if algorithm == Some("m.megolm.v1.aes-sha2") => {
                        encrypted += 1;
                    }
                    // A redaction has no text, and nobody can encrypt it.
                    "m.room.redaction" => {}
                    _ if event.json.get("state_key").is_some() => {}
                    other => bail!("{} is stored as {other}, not encrypted", event.event_id),
                }
            }
        }
        Ok(encrypted)
    }

    /// Files of the bridge, with its log, that contain the text of any counted message.
    pub fn traces(&self) -> anyhow::Result<Vec<PathBuf>> {
        let marks = [
            self.from_room.mark().as_bytes(),
            self.from_channel.mark().as_bytes(),
        ];
        files_containing(self.bridge.directory(), &marks)
    }
}

/// Waits until the condition is true, polling often at first; fails after `patience`.
pub async fn until(patience: Duration, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(5);
    while !is_so() {
        if Instant::now() > deadline {
            bail!("the condition was not met within {} s", patience.as_secs());
        }
        tokio::time::sleep(pause).await;
        // Polling is expensive in a busy scenario.
        pause = (pause * 5 / 4).min(Duration::from_millis(100));
    }
    Ok(())
}

/// A number that distinguishes the scenarios on one homeserver.
fn unique() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}
