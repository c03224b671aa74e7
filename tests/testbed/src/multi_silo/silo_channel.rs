//! A channel of a simulated silo, behind a proxy: a test can post there as Bob, and read what the bridge posted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::task::AbortHandle;

use crate::bridge::{SiloAccess, SiloSetup};
use crate::file_server::FileServer;
use crate::gitter::{self, GitterSim};
use crate::matterbridge::{self, MatterbridgeSim};
use crate::mattermost::{self, MattermostSim};
use crate::proxy::Proxy;

/// How often a channel is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The kind of silo that a channel belongs to.
#[derive(Clone, Debug)]
pub enum SimulatorKind {
    /// Gitter.
    Gitter,
    /// A Matterbridge with a buffer of this size.
    Matterbridge {
        /// `Buffer=`
        buffer: usize,
    },
    /// Mattermost.
    Mattermost,
}

/// The simulator behind a channel.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of each channel")]
pub(super) enum Simulator {
    Gitter {
        sim: GitterSim,
        room: gitter::Room,
        bot: gitter::User,
        bob: gitter::User,
    },
    Matterbridge {
        sim: MatterbridgeSim,
    },
    Mattermost {
        sim: MattermostSim,
        channel: mattermost::Channel,
        bot: mattermost::User,
        bob: mattermost::User,
    },
}

/// A channel.
pub struct SiloChannel {
    /// The silo's name in the configuration.
    pub name: String,
    /// The proxy between the bridge and the silo.
    pub proxy: Proxy,
    /// The server with the network's files and avatars, unless the network stores them itself.
    pub file_server: FileServer,
    simulator: Simulator,
    times: Arc<Mutex<Vec<Instant>>>,
    watch: AbortHandle,
}

/// The gateway of a Matterbridge.
pub(super) const GATEWAY: &str = "gateway1";
/// The token of Matterbridge's API account.
const TOKEN: &str = "a-token-for-the-testbed";

impl SiloChannel {
    pub(super) async fn open(
        number: usize,
        kind: &SimulatorKind,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let (word, ground, url) = match kind {
            SimulatorKind::Gitter => {
                let sim = GitterSim::start(gitter::Options {
                    rate_limit: 100_000,
                    ..gitter::Options::default()
                });
                let sim = sim.await?;
                let (bot, bob) = (
                    sim.add_user("footbridge", "Footbridge"),
                    sim.add_user("bob", "Bob"),
                );
                let room = sim.add_room("org/room", gitter::RoomOptions::default());
                for user in [&bot, &bob] {
                    sim.join(&room.id, &user.id)
                        .map_err(|refusal| anyhow!("{refusal}"))?;
                }
                let url = sim.api_url();
                (
                    "gitter",
                    Simulator::Gitter {
                        sim,
                        room,
                        bot,
                        bob,
                    },
                    url,
                )
            }
            SimulatorKind::Matterbridge { buffer } => {
                let sim = MatterbridgeSim::start(matterbridge::Options {
                    token: Some(TOKEN.to_owned()),
                    buffer: *buffer,
                    ..matterbridge::Options::default()
                });
                let sim = sim.await?;
                let url = sim.url();
                ("matterbridge", Simulator::Matterbridge { sim }, url)
            }
            SimulatorKind::Mattermost => {
                let sim = MattermostSim::start(mattermost::Options::default()).await?;
                let (bot, bob) = (sim.add_bot("footbridge"), sim.add_user("bob"));
                let team = sim.add_team("team");
                let channel = sim.add_channel(&team, "town", "O", &[&bot, &bob]);
                let url = sim.url();
                (
                    "mattermost",
                    Simulator::Mattermost {
                        sim,
                        channel,
                        bot,
                        bob,
                    },
                    url,
                )
            }
        };
        let seed = seed.wrapping_add(u64::try_from(number).unwrap_or_default() + 1);
        let proxy = Proxy::start(&url, seed).await?;
        let times = Arc::new(Mutex::new(Vec::new()));
        let (seen, watched) = (times.clone(), ground.clone());
        let watch = tokio::spawn(async move {
            loop {
                let count = watched.by_bridge().len();
                stamp(&seen, count);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        Ok(Self {
            name: format!("{word}{number}"),
            proxy,
            file_server: FileServer::start().await?,
            simulator: ground,
            times,
            watch: watch.abort_handle(),
        })
    }

    pub(super) fn ground(&self) -> &Simulator {
        &self.simulator
    }

    /// The channel, as a portal names it.
    pub fn channel(&self) -> String {
        match &self.simulator {
            Simulator::Gitter { room, .. } => room.uri.clone(),
            Simulator::Matterbridge { .. } => GATEWAY.to_owned(),
            Simulator::Mattermost { .. } => "team/town".to_owned(),
        }
    }

    pub(super) fn setup(&self) -> SiloSetup {
        self.setup_of(match &self.simulator {
            Simulator::Gitter { bot, .. } => &bot.token,
            Simulator::Matterbridge { .. } => TOKEN,
            Simulator::Mattermost { bot, .. } => &bot.token,
        })
    }

    /// The setup of a second bridge's account.
    pub(super) fn second_bridge_setup(&self) -> anyhow::Result<SiloSetup> {
        match &self.simulator {
            Simulator::Gitter { sim, room, .. } => {
                let rival = sim.add_user("rival", "Rival");
                sim.join(&room.id, &rival.id)
                    .map_err(|refusal| anyhow!("{refusal}"))?;
                Ok(self.setup_of(&rival.token))
            }
            Simulator::Matterbridge { .. } => Err(anyhow!("this silo has only one account")),
            Simulator::Mattermost { sim, channel, .. } => {
                let rival = sim.add_bot("rival");
                sim.join(&channel.id, &rival.id);
                Ok(self.setup_of(&rival.token))
            }
        }
    }

    fn setup_of(&self, token: &str) -> SiloSetup {
        match &self.simulator {
            Simulator::Gitter { sim, .. } => {
                let access = SiloAccess {
                    api: self.proxy.url_for(&sim.api_url()),
                    stream: sim.stream_url(),
                    realtime: sim.realtime_url(),
                    token: token.to_owned(),
                    options: format!(
                        "requests_per_minute = 60000\nsettle = \"2s\"\nmedia_hosts = [\"{}\"]",
                        self.file_server.host()
                    ),
                };
                SiloSetup {
                    name: self.name.clone(),
                    ..access.setup()
                }
            }
            Simulator::Matterbridge { sim } => SiloSetup {
                name: self.name.clone(),
                kind: "matterbridge",
                token: token.to_owned(),
                lines: format!(
                    "api = \"{}\"\naccount = \"api.footbridge\"\naudit = \"10s\"\nmedia_hosts = [\"{}\"]",
                    self.proxy.url_for(&sim.url()),
                    self.file_server.host()
                ),
            },
            Simulator::Mattermost { sim, .. } => SiloSetup {
                name: self.name.clone(),
                kind: "mattermost",
                token: token.to_owned(),
                lines: format!(
                    "url = \"{}\"\naudit = \"10s\"",
                    self.proxy.url_for(&sim.url())
                ),
            },
        }
    }

    /// Sets the name, the topic and, if the network supports it, the avatar of the channel, and allows the bridge to
    /// change the topic.
    pub fn head(&self, name: &str, topic: &str, picture: Vec<u8>) {
        match &self.simulator {
            Simulator::Gitter { sim, room, bot, .. } => {
                let url = self.file_server.put("group.png", "image/png", picture);
                sim.make_admin(&room.id, &bot.id);
                sim.head(&room.id, topic, Some(&url));
            }
            Simulator::Matterbridge { .. } => {}
            Simulator::Mattermost { sim, channel, .. } => sim.head(&channel.id, name, topic),
        }
    }

    /// The channel's topic.
    #[must_use]
    pub fn topic(&self) -> Option<String> {
        match &self.simulator {
            Simulator::Gitter { sim, room, .. } => sim.topic(&room.id),
            Simulator::Matterbridge { .. } => None,
            Simulator::Mattermost { sim, channel, .. } => Some(sim.heading(&channel.id)?.1),
        }
    }

    /// Bans the bridge from the channel, if the network supports bans.
    pub fn ban(&self) {
        match &self.simulator {
            Simulator::Gitter { sim, room, bot, .. } => drop(sim.ban(&room.id, &bot.id)),
            Simulator::Matterbridge { .. } => {}
            Simulator::Mattermost {
                sim, channel, bot, ..
            } => sim.remove(&channel.id, &bot.id),
        }
    }

    /// Sets Bob's avatar, a PNG, if the network has avatars.
    pub fn set_bob_avatar(&self, content: Vec<u8>) {
        match &self.simulator {
            Simulator::Gitter { sim, bob, .. } => {
                let url = self.file_server.put("bob.png", "image/png", content);
                sim.set_avatar(&bob.id, &url);
            }
            Simulator::Matterbridge { .. } => {}
            Simulator::Mattermost { sim, bob, .. } => sim.set_picture(&bob.id, content),
        }
    }

    /// Bob posts a message; returns its id, if the network has ids.
    pub fn say(&self, text: &str) -> Option<String> {
        match &self.simulator {
            Simulator::Gitter { sim, room, bob, .. } => Some(sim.say(&room.id, &bob.id, text).id),
            Simulator::Matterbridge { sim } => {
                sim.say(matterbridge::Message::from_irc(GATEWAY, "bob", text));
                None
            }
            Simulator::Mattermost {
                sim, channel, bob, ..
            } => Some(sim.say(&channel.id, &bob.id, text).id),
        }
    }

    /// Bob edits his message, if the network supports edits.
    pub fn edit(&self, id: &str, text: &str) {
        match &self.simulator {
            Simulator::Gitter { sim, room, .. } => drop(sim.edit(&room.id, id, text)),
            Simulator::Matterbridge { .. } => {}
            Simulator::Mattermost { sim, .. } => sim.edit(id, text),
        }
    }

    /// Bob deletes his message, if the network supports deletions.
    pub fn delete(&self, id: &str) {
        match &self.simulator {
            Simulator::Gitter { sim, room, .. } => drop(sim.delete(&room.id, id)),
            Simulator::Matterbridge { .. } => {}
            Simulator::Mattermost { sim, .. } => sim.delete(id),
        }
    }

    /// The current texts of the bridge's messages.
    pub fn read(&self) -> Vec<String> {
        match &self.simulator {
            Simulator::Gitter { sim, room, bot, .. } => {
                let mut messages = sim.messages(&room.id);
                messages.retain(|message| message.from_user_id == bot.id);
                messages.into_iter().map(|message| message.text).collect()
            }
            Simulator::Matterbridge { .. } => self.simulator.by_bridge(),
            Simulator::Mattermost {
                sim, channel, bot, ..
            } => {
                let mut posts = sim.posts(&channel.id);
                posts.retain(|post| post.user_id == bot.id);
                posts.into_iter().map(|post| post.message).collect()
            }
        }
    }

    /// The current texts of all messages, whoever wrote them.
    pub fn all(&self) -> Vec<String> {
        match &self.simulator {
            Simulator::Gitter { sim, room, .. } => {
                let messages = sim.messages(&room.id).into_iter();
                messages.map(|message| message.text).collect()
            }
            Simulator::Matterbridge { .. } => self.simulator.by_bridge(),
            Simulator::Mattermost { sim, channel, .. } => {
                let posts = sim.posts(&channel.id).into_iter();
                posts.map(|post| post.message).collect()
            }
        }
    }

    /// The text of every message that the bridge ever posted, and when it became visible.
    pub fn seen(&self) -> Vec<(String, Option<Instant>)> {
        let texts = self.simulator.by_bridge();
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = texts.into_iter().enumerate();
        seen.map(|(number, text)| (text, times.get(number).copied()))
            .collect()
    }

    /// Cuts every connection to the silo; returns how many there were.
    pub fn cut(&self) -> usize {
        match &self.simulator {
            Simulator::Gitter { sim, .. } => sim.faults().cut_realtime(gitter::Cut::Reset),
            Simulator::Matterbridge { sim } => sim.cut(gitter::Cut::Reset),
            Simulator::Mattermost { sim, .. } => sim.cut(gitter::Cut::Reset),
        }
    }

    /// The feed sends a frame that is not JSON before the next event.
    pub fn garble(&self) {
        match &self.simulator {
            Simulator::Gitter { .. } => {}
            Simulator::Matterbridge { sim } => sim.faults().garbage(1),
            Simulator::Mattermost { sim, .. } => sim.faults().garbage(1),
        }
    }

    /// Texts that the silo itself lost: it sent them to nobody, or the receiver had the only copy.
    pub fn lost_by_itself(&self) -> Vec<String> {
        let Simulator::Matterbridge { sim } = &self.simulator else {
            return Vec::new();
        };
        let lost = sim.overwritten().into_iter().chain(sim.handed_out());
        lost.map(|message| message.text).collect()
    }

    /// The Matterbridge simulator behind it.
    pub fn matterbridge(&self) -> Option<&MatterbridgeSim> {
        match &self.simulator {
            Simulator::Matterbridge { sim } => Some(sim),
            _ => None,
        }
    }

    /// The Mattermost simulator behind it, and the channel there.
    pub fn mattermost(&self) -> Option<(&MattermostSim, &mattermost::Channel)> {
        match &self.simulator {
            Simulator::Mattermost { sim, channel, .. } => Some((sim, channel)),
            _ => None,
        }
    }
}

/// Records the current time for every new message.
fn stamp(seen: &Mutex<Vec<Instant>>, count: usize) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    while seen.len() < count {
        seen.push(Instant::now());
    }
}

impl Drop for SiloChannel {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Simulator {
    /// Every message that the bridge ever posted there, in order.
    fn by_bridge(&self) -> Vec<String> {
        match self {
            Self::Gitter { sim, room, bot, .. } => {
                let mut messages = sim.messages(&room.id);
                messages.retain(|message| message.from_user_id == bot.id);
                messages.into_iter().map(|message| message.text).collect()
            }
            Self::Matterbridge { sim } => sim
                .posted()
                .into_iter()
                .map(|message| message.text)
                .collect(),
            Self::Mattermost {
                sim, channel, bot, ..
            } => {
                let mut posts = sim.ever(&channel.id);
                posts.retain(|post| post.user_id == bot.id);
                posts.into_iter().map(|post| post.message).collect()
            }
        }
    }
}
