//! A channel of a simulated silo, behind a proxy: somebody talks there, and it tells what the bridge has said.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::task::AbortHandle;

use crate::bridge::{SiloAccess, SiloSetup};
use crate::gitter::{self, GitterSim};
use crate::matterbridge::{self, MatterbridgeSim};
use crate::mattermost::{self, MattermostSim};
use crate::proxy::Proxy;
use crate::shelf::Shelf;

/// How often a channel is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What kind of silo the channel is of.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Gitter.
    Gitter,
    /// A Matterbridge whose buffer holds so many messages.
    Matterbridge {
        /// `Buffer=`
        buffer: usize,
    },
    /// Mattermost.
    Mattermost,
}

/// The network behind a channel.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of each channel")]
pub(super) enum Ground {
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
pub struct Site {
    /// The silo's name in the configuration.
    pub name: String,
    /// What stands between the bridge and the silo.
    pub proxy: Proxy,
    /// Where the network has its files and pictures, unless it has them itself.
    pub shelf: Shelf,
    ground: Ground,
    times: Arc<Mutex<Vec<Instant>>>,
    watch: AbortHandle,
}

/// The gateway of a Matterbridge.
pub(super) const GATEWAY: &str = "gateway1";
/// The token of Matterbridge's API account.
const TOKEN: &str = "a-token-for-the-testbed";

impl Site {
    pub(super) async fn open(number: usize, kind: &Kind, seed: u64) -> anyhow::Result<Self> {
        let (word, ground, url) = match kind {
            Kind::Gitter => {
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
                    Ground::Gitter {
                        sim,
                        room,
                        bot,
                        bob,
                    },
                    url,
                )
            }
            Kind::Matterbridge { buffer } => {
                let sim = MatterbridgeSim::start(matterbridge::Options {
                    token: Some(TOKEN.to_owned()),
                    buffer: *buffer,
                    ..matterbridge::Options::default()
                });
                let sim = sim.await?;
                let url = sim.url();
                ("matterbridge", Ground::Matterbridge { sim }, url)
            }
            Kind::Mattermost => {
                let sim = MattermostSim::start(mattermost::Options::default()).await?;
                let (bot, bob) = (sim.add_bot("footbridge"), sim.add_user("bob"));
                let team = sim.add_team("team");
                let channel = sim.add_channel(&team, "town", "O", &[&bot, &bob]);
                let url = sim.url();
                (
                    "mattermost",
                    Ground::Mattermost {
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
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(Self {
            name: format!("{word}{number}"),
            proxy,
            shelf: Shelf::start().await?,
            ground,
            times,
            watch: watch.abort_handle(),
        })
    }

    pub(super) fn ground(&self) -> &Ground {
        &self.ground
    }

    /// What the portal calls it.
    pub fn channel(&self) -> String {
        match &self.ground {
            Ground::Gitter { room, .. } => room.uri.clone(),
            Ground::Matterbridge { .. } => GATEWAY.to_owned(),
            Ground::Mattermost { .. } => "team/town".to_owned(),
        }
    }

    pub(super) fn setup(&self) -> SiloSetup {
        self.setup_of(match &self.ground {
            Ground::Gitter { bot, .. } => &bot.token,
            Ground::Matterbridge { .. } => TOKEN,
            Ground::Mattermost { bot, .. } => &bot.token,
        })
    }

    /// The same under another account.
    pub(super) fn rival_setup(&self) -> anyhow::Result<SiloSetup> {
        match &self.ground {
            Ground::Gitter { sim, room, .. } => {
                let rival = sim.add_user("rival", "Rival");
                sim.join(&room.id, &rival.id)
                    .map_err(|refusal| anyhow!("{refusal}"))?;
                Ok(self.setup_of(&rival.token))
            }
            Ground::Matterbridge { .. } => Err(anyhow!("it has one account")),
            Ground::Mattermost { sim, channel, .. } => {
                let rival = sim.add_bot("rival");
                sim.join(&channel.id, &rival.id);
                Ok(self.setup_of(&rival.token))
            }
        }
    }

    fn setup_of(&self, token: &str) -> SiloSetup {
        match &self.ground {
            Ground::Gitter { sim, .. } => {
                let access = SiloAccess {
                    api: self.proxy.url_for(&sim.api_url()),
                    stream: sim.stream_url(),
                    realtime: sim.realtime_url(),
                    token: token.to_owned(),
                    options: format!(
                        "requests_per_minute = 60000\nsettle = \"2s\"\nmedia_hosts = [\"{}\"]",
                        self.shelf.host()
                    ),
                };
                SiloSetup {
                    name: self.name.clone(),
                    ..access.setup()
                }
            }
            Ground::Matterbridge { sim } => SiloSetup {
                name: self.name.clone(),
                kind: "matterbridge",
                token: token.to_owned(),
                lines: format!(
                    "api = \"{}\"\naccount = \"api.footbridge\"\naudit = \"10s\"\nmedia_hosts = [\"{}\"]",
                    self.proxy.url_for(&sim.url()),
                    self.shelf.host()
                ),
            },
            Ground::Mattermost { sim, .. } => SiloSetup {
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

    /// Name, topic and, as far as the network has them, picture of the channel are these from now on, and the bridge may
    /// change the topic.
    pub fn head(&self, name: &str, topic: &str, picture: Vec<u8>) {
        match &self.ground {
            Ground::Gitter { sim, room, bot, .. } => {
                let url = self.shelf.put("group.png", "image/png", picture);
                sim.make_admin(&room.id, &bot.id);
                sim.head(&room.id, topic, Some(&url));
            }
            Ground::Matterbridge { .. } => {}
            Ground::Mattermost { sim, channel, .. } => sim.head(&channel.id, name, topic),
        }
    }

    /// The channel's topic.
    #[must_use]
    pub fn topic(&self) -> Option<String> {
        match &self.ground {
            Ground::Gitter { sim, room, .. } => sim.topic(&room.id),
            Ground::Matterbridge { .. } => None,
            Ground::Mattermost { sim, channel, .. } => Some(sim.heading(&channel.id)?.1),
        }
    }

    /// The bridge is put out of the channel and may not come back, where the network knows such a thing.
    pub fn ban(&self) {
        match &self.ground {
            Ground::Gitter { sim, room, bot, .. } => drop(sim.ban(&room.id, &bot.id)),
            Ground::Matterbridge { .. } => {}
            Ground::Mattermost {
                sim, channel, bot, ..
            } => sim.remove(&channel.id, &bot.id),
        }
    }

    /// Bob gets this picture, a PNG, where somebody's picture is known beside a name.
    pub fn picture_bob(&self, content: Vec<u8>) {
        match &self.ground {
            Ground::Gitter { sim, bob, .. } => {
                let url = self.shelf.put("bob.png", "image/png", content);
                sim.set_avatar(&bob.id, &url);
            }
            Ground::Matterbridge { .. } => {}
            Ground::Mattermost { sim, bob, .. } => sim.set_picture(&bob.id, content),
        }
    }

    /// Bob says something there; its id, where the network has any.
    pub fn say(&self, text: &str) -> Option<String> {
        match &self.ground {
            Ground::Gitter { sim, room, bob, .. } => Some(sim.say(&room.id, &bob.id, text).id),
            Ground::Matterbridge { sim } => {
                sim.say(matterbridge::Message::from_irc(GATEWAY, "bob", text));
                None
            }
            Ground::Mattermost {
                sim, channel, bob, ..
            } => Some(sim.say(&channel.id, &bob.id, text).id),
        }
    }

    /// Bob edits what he said, where he can.
    pub fn edit(&self, id: &str, text: &str) {
        match &self.ground {
            Ground::Gitter { sim, room, .. } => drop(sim.edit(&room.id, id, text)),
            Ground::Matterbridge { .. } => {}
            Ground::Mattermost { sim, .. } => sim.edit(id, text),
        }
    }

    /// Bob takes back what he said, where he can.
    pub fn delete(&self, id: &str) {
        match &self.ground {
            Ground::Gitter { sim, room, .. } => drop(sim.delete(&room.id, id)),
            Ground::Matterbridge { .. } => {}
            Ground::Mattermost { sim, .. } => sim.delete(id),
        }
    }

    /// What the bridge's messages there say now.
    pub fn read(&self) -> Vec<String> {
        match &self.ground {
            Ground::Gitter { sim, room, bot, .. } => {
                let mut messages = sim.messages(&room.id);
                messages.retain(|message| message.from_user_id == bot.id);
                messages.into_iter().map(|message| message.text).collect()
            }
            Ground::Matterbridge { .. } => self.ground.by_bridge(),
            Ground::Mattermost {
                sim, channel, bot, ..
            } => {
                let mut posts = sim.posts(&channel.id);
                posts.retain(|post| post.user_id == bot.id);
                posts.into_iter().map(|post| post.message).collect()
            }
        }
    }

    /// Everything that stands there, whoever wrote it.
    pub fn all(&self) -> Vec<String> {
        match &self.ground {
            Ground::Gitter { sim, room, .. } => {
                let messages = sim.messages(&room.id).into_iter();
                messages.map(|message| message.text).collect()
            }
            Ground::Matterbridge { .. } => self.ground.by_bridge(),
            Ground::Mattermost { sim, channel, .. } => {
                let posts = sim.posts(&channel.id).into_iter();
                posts.map(|post| post.message).collect()
            }
        }
    }

    /// Everything that the bridge ever said there, and when it could be seen.
    pub fn seen(&self) -> Vec<(String, Option<Instant>)> {
        let texts = self.ground.by_bridge();
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = texts.into_iter().enumerate();
        seen.map(|(number, text)| (text, times.get(number).copied()))
            .collect()
    }

    /// Breaks every connection to the silo; returns how many there were.
    pub fn cut(&self) -> usize {
        match &self.ground {
            Ground::Gitter { sim, .. } => sim.faults().cut_realtime(gitter::Cut::Reset),
            Ground::Matterbridge { sim } => sim.cut(gitter::Cut::Reset),
            Ground::Mattermost { sim, .. } => sim.cut(gitter::Cut::Reset),
        }
    }

    /// What comes next over the feed is preceded by something that is no JSON.
    pub fn garble(&self) {
        match &self.ground {
            Ground::Gitter { .. } => {}
            Ground::Matterbridge { sim } => sim.faults().garbage(1),
            Ground::Mattermost { sim, .. } => sim.faults().garbage(1),
        }
    }

    /// Texts that the silo itself lost: nobody was told, or whoever was told had the only copy.
    pub fn lost_by_itself(&self) -> Vec<String> {
        let Ground::Matterbridge { sim } = &self.ground else {
            return Vec::new();
        };
        let lost = sim.overwritten().into_iter().chain(sim.handed_out());
        lost.map(|message| message.text).collect()
    }

    /// The Matterbridge behind it.
    pub fn matterbridge(&self) -> Option<&MatterbridgeSim> {
        match &self.ground {
            Ground::Matterbridge { sim } => Some(sim),
            _ => None,
        }
    }

    /// The Mattermost behind it, and the channel there.
    pub fn mattermost(&self) -> Option<(&MattermostSim, &mattermost::Channel)> {
        match &self.ground {
            Ground::Mattermost { sim, channel, .. } => Some((sim, channel)),
            _ => None,
        }
    }
}

/// Notes the moment for everything that is new.
fn stamp(seen: &Mutex<Vec<Instant>>, count: usize) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    while seen.len() < count {
        seen.push(Instant::now());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Ground {
    /// Everything that the bridge ever said there, in order.
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
