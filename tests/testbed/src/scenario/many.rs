//! Many portals with two silos, one of which gets slow: how that affects the portals of the other silo. Both states
//! alternate in one run, so that the ratio is meaningful on any machine.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::TestClient;
use anyhow::anyhow;

use super::{ChannelObserver, Load, PASSWORD, RoomAndChannel, RoomObserver, access, unique, until};
use crate::bridge::{BridgeProcess, Setup};
use crate::report::{Arrived, Verdict};
use crate::synapse::Synapse;
use footbridge_simulators::gitter::{self, Fault, GitterSim, Room, RoomOptions, User};

/// More requests a minute than anything here uses.
const BUDGET: &str = "requests_per_minute = 60000";
/// The additional delay of the slow silo's responses.
const SLOW_MS: u64 = 10_000;
/// How long the messages of one block may take.
const TIMEOUT: Duration = Duration::from_mins(2);

/// The options of the measurement.
pub struct ManyOptions {
    /// The `footbridge` program.
    pub binary: PathBuf,
    /// The number of portals, with the slow one.
    pub portals: usize,
    /// The number of blocks of each kind.
    pub blocks: usize,
    /// Messages per portal, block and direction.
    pub messages: usize,
}

/// The result for the portals of the fast silo: latencies in both directions together.
#[derive(Default)]
pub struct Outcome {
    /// While both silos were fast.
    pub calm: Verdict,
    /// While the other silo was slow.
    pub beside: Verdict,
}

impl Outcome {
    /// The ratio of the latencies at this percentile: with a slow silo to without.
    #[must_use]
    pub fn ratio(&self, percent: usize) -> Option<f64> {
        let beside = self.beside.percentile(percent)?;
        Some(beside.as_secs_f64() / self.calm.percentile(percent)?.as_secs_f64())
    }
}

/// A silo with its bot and users.
struct SiloSide {
    sim: GitterSim,
    bot: User,
    mary: User,
}

impl SiloSide {
    async fn start() -> anyhow::Result<Self> {
        let options = gitter::Options {
            rate_limit: 60_000,
            ..gitter::Options::default()
        };
        let sim = GitterSim::start(options).await?;
        let (bot, mary) = (
            sim.add_user("footbridge-bot", "Footbridge"),
            sim.add_user("mary", "Mary"),
        );
        Ok(Self { sim, bot, mary })
    }

    fn channel(&self, uri: &str) -> anyhow::Result<Room> {
        let channel = self.sim.add_room(uri, RoomOptions::default());
        for user in [&self.bot, &self.mary] {
            self.sim
                .join(&channel.id, &user.id)
                .map_err(|refusal| anyhow!("{refusal}"))?;
        }
        Ok(channel)
    }

    fn say(&self, pair: &RoomAndChannel, load: &Load) {
        self.sim
            .say(&pair.channel.id, &self.mary.id, &load.number());
    }
}

/// The scenario of the measurement.
struct ManyScenario {
    bridge: BridgeProcess,
    bridge_user: String,
    good: SiloSide,
    slow: SiloSide,
    pairs: Vec<RoomAndChannel>,
    slow_pair: RoomAndChannel,
    ann: TestClient,
    room_observer: RoomObserver,
    watch: ChannelObserver,
    _files: tempfile::TempDir,
}

/// Runs the measurement.
pub async fn measure(
    synapse: &Synapse,
    plan: &ManyOptions,
    tell: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Outcome> {
    let many = ManyScenario::set_up(synapse, plan, tell).await?;
    tell("A first message is sent in every portal");
    many.block(1, false).await?;
    let mut outcome = Outcome::default();
    for number in 1..=plan.blocks {
        tell(&format!("Block {number}: both silos fast, then one slow"));
        join(&mut outcome.calm, many.block(plan.messages, false).await?);
        join(&mut outcome.beside, many.block(plan.messages, true).await?);
    }
    many.bridge.conservation().await?;
    Ok(outcome)
}

fn join(all: &mut Verdict, one: Verdict) {
    all.messages += one.messages;
    all.lost.extend(one.lost);
    all.doubled.extend(one.doubled);
    all.unknown.extend(one.unknown);
    all.latencies.extend(one.latencies);
    all.latencies.sort_unstable();
}

impl ManyScenario {
    async fn set_up(
        synapse: &Synapse,
        plan: &ManyOptions,
        tell: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
        let (good, slow) = (SiloSide::start().await?, SiloSide::start().await?);
        let tag = unique();
        let files = tempfile::Builder::new()
            .prefix("footbridge-many-")
            .tempdir()?;
        let ann_name = format!("ann{tag}");
        synapse.register(&ann_name, PASSWORD).await?;
        let ann = TestClient::login(&synapse.url(), &ann_name, PASSWORD, files.path()).await?;
        let bridge_user = synapse.register(&format!("bridge{tag}"), PASSWORD).await?;
        tell("Ann creates the encrypted rooms");
        let mut pairs = Vec::new();
        for number in 0..plan.portals.max(2) {
            let invited = [bridge_user.clone()];
            let room = ann
                .create_room(&format!("Room {number}"), true, &invited)
                .await?;
            let side = if number == 0 { &slow } else { &good };
            let channel = side.channel(&format!("footbridge/lounge{number}"))?;
            pairs.push(RoomAndChannel { room, channel });
        }
        let slow_pair = pairs.remove(0);
        let bridge = BridgeProcess::prepare(&Setup {
            binary: plan.binary.clone(),
            homeserver: synapse.url(),
            user: bridge_user.clone(),
            password: PASSWORD.to_owned(),
            silos: vec![access(&good.sim, &good.bot, second_silo(&slow, &slow_pair)).setup()],
            matrix_options: String::new(),
            delivery_options: String::new(),
            admin_options: String::new(),
            media_options: String::new(),
            portals: pairs.iter().map(RoomAndChannel::portal).collect(),
            log_filter: "warn".to_owned(),
        })?;
        bridge.login().await?;
        let many = Self {
            bridge,
            bridge_user,
            room_observer: RoomObserver::open(ann.clone()),
            watch: ChannelObserver::open(&good.sim),
            good,
            slow,
            pairs,
            slow_pair,
            ann,
            _files: files,
        };
        tell("The bridge starts and joins them");
        many.bridge.start().await?;
        many.until_joined().await?;
        Ok(many)
    }

    async fn until_joined(&self) -> anyhow::Result<()> {
        for pair in self.pairs.iter().chain([&self.slow_pair]) {
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
            until(TIMEOUT, joined).await?;
        }
        Ok(())
    }

    /// Sends messages in every portal and waits until all have arrived.
    async fn block(&self, messages: usize, slowly: bool) -> anyhow::Result<Verdict> {
        let faults = self.slow.sim.faults();
        if slowly {
            faults.sometimes("*", Fault::Delay { ms: SLOW_MS }, 1.0);
        }
        let (from_room, from_channel) = (Load::new('r'), Load::new('c'));
        let unmeasured = Load::new('s');
        for _ in 0..messages {
            // The slow silo always has something to do.
            self.slow.say(&self.slow_pair, &unmeasured);
            self.ann
                .say(&self.slow_pair.room, &unmeasured.number())
                .await?;
            for pair in &self.pairs {
                self.good.say(pair, &from_channel);
                self.ann.say(&pair.room, &from_room.number()).await?;
            }
        }
        let verdicts = || {
            let there = Verdict::of(&from_room.said(), &self.in_channels(&from_room));
            let here = Verdict::of(&from_channel.said(), &self.in_rooms(&from_channel));
            (there, here)
        };
        let complete = || {
            let (there, here) = verdicts();
            there.lost.is_empty() && here.lost.is_empty()
        };
        // The verdict reports the missing messages.
        let _complete = until(TIMEOUT, complete).await;
        let (mut both, here) = verdicts();
        join(&mut both, here);
        if slowly {
            faults.clear();
            // The next block must begin with an idle bridge.
            self.bridge.settle(TIMEOUT).await?;
        }
        Ok(both)
    }

    fn in_channels(&self, load: &Load) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        for pair in &self.pairs {
            for message in self.good.sim.messages(&pair.channel.id) {
                let number = load
                    .number_in(&message.text)
                    .filter(|_| message.from_user_id == self.good.bot.id);
                if let Some(number) = number {
                    let at = self.watch.time_of(&message.id);
                    arrived.push(Arrived { number, at });
                }
            }
        }
        arrived
    }

    fn in_rooms(&self, load: &Load) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        for pair in &self.pairs {
            arrived.extend(self.room_observer.pick(&pair.room, |event| {
                let text = event
                    .text()
                    .filter(|_| event.seen.sender == self.bridge_user)?;
                let number = load.number_in(text)?;
                let at = Some(event.at);
                Some(Arrived { number, at })
            }));
        }
        arrived
    }
}

/// The configuration of the second silo and its one portal, to be added after the options of the first.
fn second_silo(slow: &SiloSide, pair: &RoomAndChannel) -> String {
    let (api, stream, realtime) = (
        slow.sim.api_url(),
        slow.sim.stream_url(),
        slow.sim.realtime_url(),
    );
    let (token, room, channel) = (&slow.bot.token, &pair.room, &pair.channel.uri);
    format!(
        "{BUDGET}\n\n[[silo]]\nname = \"slow\"\nkind = \"gitter\"\ntoken = \"{token}\"\napi = \"{api}\"\n\
         stream = \"{stream}\"\nrealtime = \"{realtime}\"\n{BUDGET}\n\n\
         [[portal]]\nroom = \"{room}\"\nsilo = \"slow\"\nchannel = \"{channel}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::report::Said;

    fn of(latencies: &[u64]) -> Verdict {
        let said: Vec<Said> = (0_u32..)
            .zip(latencies)
            .map(|(number, _)| Said {
                number,
                at: Instant::now(),
            })
            .collect();
        let arrived: Vec<Arrived> = said
            .iter()
            .zip(latencies)
            .map(|(said, ms)| Arrived {
                number: said.number,
                at: Some(said.at + Duration::from_millis(*ms)),
            })
            .collect();
        Verdict::of(&said, &arrived)
    }

    #[test]
    fn the_ratio_is_of_the_same_share_in_both_states() {
        let mut outcome = Outcome::default();
        assert_eq!(outcome.ratio(50), None);
        join(&mut outcome.calm, of(&[100, 10]));
        join(&mut outcome.calm, of(&[20]));
        join(&mut outcome.beside, of(&[10, 40, 300]));
        assert_eq!(outcome.calm.messages, 3);
        // In whole hundredths, because a quotient of two times in seconds is seldom a round number.
        let percent = |share| outcome.ratio(share).map(|ratio| (ratio * 100.0).round());
        assert_eq!(percent(50), Some(200.0));
        assert_eq!(percent(95), Some(300.0));
    }
}
