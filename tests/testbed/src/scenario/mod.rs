//! One encrypted room, one channel, people on both sides and the bridge between them: the scene on which tests, demo,
//! kills and bench play. It speaks, and it compares what was said with what arrived.

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

use anyhow::{Context as _, anyhow, bail};
use footbridge_matrix::person::TestClient;
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
use crate::gitter::{self, GitterSim, RoomOptions};
use crate::proxy::Rule;
use crate::report::{Arrived, Verdict};
use crate::synapse::Synapse;

/// The password of every account: they live for minutes, on loopback.
pub const PASSWORD: &str = "a password for the testbed";

/// What the scene is made of.
pub struct Options {
    /// The `footbridge` program.
    pub binary: PathBuf,
    /// For `FOOTBRIDGE_LOG`.
    pub log_filter: String,
    /// How the silo behaves.
    pub silo: gitter::Options,
    /// More lines for the bridge's `[[silo]]` section.
    pub silo_options: String,
    /// More lines for its `[matrix]` section.
    pub matrix_options: String,
    /// The lines of its `[delivery]` section.
    pub delivery_options: String,
    /// More lines of its `[admin]` section, and whole sections behind it; `{ann}` stands for Ann's user id.
    pub admin_options: String,
    /// Proxies between the bridge and everything else, whose dice begin with this seed.
    pub proxies: Option<u64>,
    /// Whether the rooms are encrypted from the start.
    pub encrypted: bool,
    /// How many rooms are joined to as many channels; people talk in the first one.
    pub portals: usize,
    /// What the first login does when this goes wrong: it is killed there, and a second one finishes it.
    pub fault_at_login: Option<Rule>,
}

impl Options {
    /// One portal, and a silo as strict as the real one.
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

    /// The same with a silo that allows this many requests a minute, and a bridge that knows.
    #[must_use]
    pub fn with_budget(mut self, requests_per_minute: u32) -> Self {
        self.silo.rate_limit = u64::from(requests_per_minute);
        self.silo_options = format!("requests_per_minute = {requests_per_minute}");
        self
    }
}

/// A room and the channel it is joined to.
#[derive(Clone)]
pub struct RoomAndChannel {
    /// Room id.
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

/// Everything in its place. The bridge has logged in and does not run yet.
pub struct Scenario {
    /// The bridge.
    pub bridge: BridgeProcess,
    /// Its Matrix user id.
    pub bridge_user: String,
    /// What stands between the bridge and everything else, if anything does.
    pub proxies: Option<Proxies>,
    /// Its account on the silo.
    pub bot: gitter::User,
    /// The silo.
    pub sim: GitterSim,
    /// The person in the room, on a device of her own.
    pub ann: TestClient,
    /// What she sees.
    pub room_observer: RoomObserver,
    /// When messages appeared in channels.
    pub watch: ChannelObserver,
    /// People in the channel.
    pub mary: gitter::User,
    /// Another one.
    pub tom: gitter::User,
    /// The room and channel in which people talk.
    pub stage: RoomAndChannel,
    /// All portals, the stage among them.
    pub pairs: Vec<RoomAndChannel>,
    /// What was said in the room.
    pub from_room: Load,
    /// What was said in the channel.
    pub from_channel: Load,
    /// Ann's client.
    _files: TempDir,
}

/// The first login; with harm it is killed when that strikes, and a second one finishes it.
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
    /// Builds the scene on this homeserver; `tell` hears what is being done.
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

        tell("Ann logs in to the homeserver, on a device of her own");
        let tag = unique();
        let files = tempfile::Builder::new()
            .prefix("footbridge-ann-")
            .tempdir()?;
        let ann_name = format!("ann{tag}");
        synapse.register(&ann_name, PASSWORD).await?;
        let ann = TestClient::login(&synapse.url(), &ann_name, PASSWORD, files.path()).await?;
        ann.set_display_name("Ann").await?;

        tell("Ann makes an encrypted room and invites the bridge's account");
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
            tell("Proxies take their place on both sides of the bridge");
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
                .context("there is no room to talk in")?,
            pairs,
            from_room: Load::new('r'),
            from_channel: Load::new('c'),
            _files: files,
        })
    }

    /// Starts the bridge for the first time and waits until it is in every room.
    pub async fn open(&self) -> anyhow::Result<()> {
        self.bridge.start().await?;
        for pair in &self.pairs {
            let joined = || {
                let found = self.room_observer.pick(&pair.room, |heard| {
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
        Ok(())
    }

    /// Ann says a numbered message.
    pub async fn say_in_room(&self) -> anyhow::Result<()> {
        let text = self.from_room.number();
        self.ann.say(&self.stage.room, &text).await.map(drop)
    }

    /// Mary says a numbered message.
    pub fn say_in_channel(&self) {
        let text = self.from_channel.number();
        self.sim.say(&self.stage.channel.id, &self.mary.id, &text);
    }

    /// What `pick` takes from the messages of the bridge in the room as Ann sees them, edits not counted; it gets the
    /// event and its text.
    pub fn in_room<T>(&self, mut pick: impl FnMut(&ObservedEvent, &str) -> Option<T>) -> Vec<T> {
        self.room_observer.pick(&self.stage.room, |heard| {
            let text = heard
                .text()
                .filter(|_| heard.seen.sender == self.bridge_user)?;
            pick(heard, text)
        })
    }

    /// What stands in the channel by the bridge's account.
    #[must_use]
    pub fn in_channel(&self) -> Vec<gitter::Message> {
        let mut messages = self.sim.messages(&self.stage.channel.id);
        messages.retain(|message| message.from_user_id == self.bot.id);
        messages
    }

    /// How room → channel did, as things stand.
    #[must_use]
    pub fn toward_channel(&self) -> Verdict {
        self.toward_channel_from(0)
    }

    /// The same, of the messages from this number on.
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

    /// How channel → room did, as things stand.
    #[must_use]
    pub fn toward_room(&self) -> Verdict {
        self.toward_room_from(0)
    }

    /// The same, of the messages from this number on.
    #[must_use]
    pub fn toward_room_from(&self, first: usize) -> Verdict {
        let arrived = self.in_room(|heard, text| {
            // One event may carry several messages.
            let numbers = self.from_channel.numbers_in(text).into_iter();
            let arrived = numbers.map(|number| Arrived {
                number,
                at: Some(heard.at),
            });
            Some(arrived.collect::<Vec<_>>())
        });
        Verdict::of_those_from(first, &self.from_channel.said(), &arrived.concat())
    }

    /// Waits until nothing is missing on either side, then until the bridge owes nothing, then a moment longer for copies
    /// nobody wants. Gives up after `patience`: the verdicts tell what is missing.
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

    /// Fails unless every event of the bridge and of Ann which could be a message is stored encrypted; returns how many
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

    /// Files of the bridge, its log among them, that contain the text of any counted message.
    pub fn traces(&self) -> anyhow::Result<Vec<PathBuf>> {
        let marks = [
            self.from_room.mark().as_bytes(),
            self.from_channel.mark().as_bytes(),
        ];
        files_containing(self.bridge.directory(), &marks)
    }
}

/// Waits until it is so, looking often at first; fails after `patience`.
pub async fn until(patience: Duration, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(5);
    while !is_so() {
        if Instant::now() > deadline {
            bail!("it did not happen within {} s", patience.as_secs());
        }
        tokio::time::sleep(pause).await;
        // Looking costs something on a busy scene.
        pause = (pause * 5 / 4).min(Duration::from_millis(100));
    }
    Ok(())
}

/// Tells scenes on one homeserver apart.
fn unique() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}
