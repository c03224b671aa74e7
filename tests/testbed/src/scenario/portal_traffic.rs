//! Users who write in every portal of a scenario at once, with separate numbers in each portal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::TestClient;
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{Load, PASSWORD, RoomAndChannel, Scenario, unique};
use crate::report::{Arrived, Verdict};
use crate::synapse::Synapse;

/// The messages of one portal.
struct PortalTalk {
    pair: RoomAndChannel,
    from_room: Load,
    from_channel: Load,
}

/// The messages of all portals.
pub struct PortalTraffic {
    talks: Vec<PortalTalk>,
    /// The messages of guests, who joined the first room after the bridge.
    from_guests: Load,
    /// The guests who are still in the room, with their files.
    guests: Mutex<Vec<(TestClient, TempDir)>>,
}

impl PortalTraffic {
    /// Nothing sent yet; users write in the first `portals` portals only.
    #[must_use]
    pub fn in_first(scene: &Scenario, portals: usize) -> Self {
        let talk = |pair: &RoomAndChannel| PortalTalk {
            pair: pair.clone(),
            from_room: Load::new('r'),
            from_channel: Load::new('c'),
        };
        Self {
            talks: scene.pairs.iter().take(portals).map(talk).collect(),
            from_guests: Load::new('g'),
            guests: Mutex::default(),
        }
    }

    /// How many portals there are.
    #[must_use]
    pub fn portals(&self) -> usize {
        self.talks.len()
    }

    /// Ann sends the next numbered message in one portal, each in turn.
    pub async fn say_in_room(&self, scene: &Scenario, turn: usize) -> anyhow::Result<()> {
        if let Some(talk) = self.talks.get(turn % self.talks.len().max(1)) {
            let text = talk.from_room.number();
            scene.ann.say(&talk.pair.room, &text).await?;
        }
        Ok(())
    }

    /// A new guest joins the first room, on an unknown device, and sends a numbered message. Earlier guests leave once
    /// all messages of guests have arrived: the keys for hundreds of them would cost more than what is tested. If a
    /// guest left before the bridge could query their devices, it could not attribute the message to a device.
    pub async fn say_as_new_member(
        &self,
        scene: &Scenario,
        synapse: &Synapse,
    ) -> anyhow::Result<()> {
        let room = &scene.stage.room;
        let mut guests = self.guests.lock().await;
        let arrived = copies_in_channel(scene, &scene.stage, &self.from_guests);
        if arrived.len() >= self.from_guests.said().len() {
            for (guest, _) in guests.drain(..) {
                guest.leave(room).await?;
            }
        }
        let name = format!("guest{}", unique());
        let user = synapse.register(&name, PASSWORD).await?;
        let files = tempfile::tempdir()?;
        let guest = TestClient::login(&synapse.url(), &name, PASSWORD, files.path()).await?;
        scene.ann.invite(room, &user).await?;
        guest.join(room).await?;
        // The client must know the members, who get the room key.
        guest.sync(Duration::ZERO).await?;
        let text = self.from_guests.number();
        guest.say(room, &text).await?;
        guests.push((guest, files));
        Ok(())
    }

    /// Mary sends the next numbered message in one portal, each in turn.
    pub fn say_in_channel(&self, scene: &Scenario, turn: usize) {
        if let Some(talk) = self.talks.get(turn % self.talks.len().max(1)) {
            let text = talk.from_channel.number();
            scene.sim.say(&talk.pair.channel.id, &scene.mary.id, &text);
        }
    }

    /// Mary replies to this message of the first channel in its thread, numbered like all of her messages there.
    pub fn say_in_thread(&self, scene: &Scenario, parent: &str) {
        if let Some(talk) = self.talks.first() {
            let text = talk.from_channel.number();
            scene
                .sim
                .say_in_thread(&talk.pair.channel.id, &scene.mary.id, parent, &text);
        }
    }

    /// Sends `each_way` messages each way at this pace.
    pub async fn talk(
        &self,
        scene: &Scenario,
        each_way: usize,
        per_second: f64,
    ) -> anyhow::Result<()> {
        let pause = Duration::from_secs_f64(1.0 / per_second.max(0.01));
        let in_rooms = async {
            let mut clock = tokio::time::interval(pause);
            for turn in 0..each_way {
                clock.tick().await;
                self.say_in_room(scene, turn).await?;
            }
            anyhow::Ok(())
        };
        let in_channels = async {
            let mut clock = tokio::time::interval(pause);
            for turn in 0..each_way {
                clock.tick().await;
                self.say_in_channel(scene, turn);
            }
            anyhow::Ok(())
        };
        tokio::try_join!(in_rooms, in_channels)?;
        Ok(())
    }

    /// Sends messages each way at this pace until it is stopped.
    pub async fn talk_until(
        &self,
        scene: &Scenario,
        per_second: f64,
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let pause = Duration::from_secs_f64(1.0 / per_second.max(0.01));
        let in_rooms = async {
            let mut clock = tokio::time::interval(pause);
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                clock.tick().await;
                self.say_in_room(scene, turn).await?;
                turn += 1;
            }
            anyhow::Ok(())
        };
        let in_channels = async {
            let mut clock = tokio::time::interval(pause);
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                clock.tick().await;
                self.say_in_channel(scene, turn);
                turn += 1;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(in_rooms, in_channels)?;
        Ok(())
    }

    /// Ann discards her room keys: her next message in each portal needs a new one, which the bridge must receive.
    pub async fn forget_keys(&self, scene: &Scenario) -> anyhow::Result<()> {
        for talk in &self.talks {
            scene.ann.discard_room_key(&talk.pair.room).await?;
        }
        Ok(())
    }

    /// The present result of room → channel in all portals.
    #[must_use]
    pub fn toward_channels(&self, scene: &Scenario) -> Verdict {
        let mut all = Verdict::default();
        for talk in &self.talks {
            let arrived = copies_in_channel(scene, &talk.pair, &talk.from_room);
            all.join(Verdict::of(&talk.from_room.said(), &arrived));
        }
        let arrived = copies_in_channel(scene, &scene.stage, &self.from_guests);
        all.join(Verdict::of(&self.from_guests.said(), &arrived));
        all
    }

    /// The present result of channel → room in all portals.
    #[must_use]
    pub fn toward_rooms(&self, scene: &Scenario) -> Verdict {
        let mut all = Verdict::default();
        for talk in &self.talks {
            let mut arrived = Vec::new();
            scene
                .room_observer
                .pick(&talk.pair.room, |event| -> Option<()> {
                    let text = event
                        .text()
                        .filter(|_| event.seen.sender == scene.bridge_user)?;
                    for number in talk.from_channel.numbers_in(text) {
                        let at = Some(event.at);
                        arrived.push(Arrived { number, at });
                    }
                    None
                });
            all.join(Verdict::of(&talk.from_channel.said(), &arrived));
        }
        all
    }

    /// How many extra copies of messages are in the channels.
    #[must_use]
    pub fn spare_copies_in_channels(&self, scene: &Scenario) -> usize {
        let spare = |talk: &PortalTalk| {
            let mut numbers: Vec<u32> = copies_in_channel(scene, &talk.pair, &talk.from_room)
                .iter()
                .map(|copy| copy.number)
                .collect();
            let copies = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            copies - numbers.len()
        };
        self.talks.iter().map(spare).sum()
    }

    /// How many messages have not arrived yet, both ways.
    #[must_use]
    pub fn missing(&self, scene: &Scenario) -> usize {
        self.toward_channels(scene).lost.len() + self.toward_rooms(scene).lost.len()
    }

    /// How many messages were sent, both ways.
    #[must_use]
    pub fn said(&self) -> usize {
        let both = |talk: &PortalTalk| talk.from_room.said().len() + talk.from_channel.said().len();
        self.talks.iter().map(both).sum::<usize>() + self.from_guests.said().len()
    }

    /// The marks in the texts of this traffic, to search for traces of them.
    #[must_use]
    pub fn marks(&self) -> Vec<&[u8]> {
        self.talks
            .iter()
            .flat_map(|talk| {
                [
                    talk.from_room.mark().as_bytes(),
                    talk.from_channel.mark().as_bytes(),
                ]
            })
            .collect()
    }
}

fn copies_in_channel(scene: &Scenario, pair: &RoomAndChannel, load: &Load) -> Vec<Arrived> {
    let mut arrived = Vec::new();
    for message in scene.sim.messages(&pair.channel.id) {
        if message.from_user_id == scene.bot.id {
            for number in load.numbers_in(&message.text) {
                let at = scene.watch.time_of(&message.id);
                arrived.push(Arrived { number, at });
            }
        }
    }
    arrived
}
