//! Measures what a large encrypted room costs: the first message, later ones, a new room key after a member left, and
//! how long a message for another room waits meanwhile; in the first process after the login and in a restarted one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use footbridge_testbed::bridge::BridgeProcess;
use footbridge_testbed::console::Console;
use footbridge_testbed::members::{self, Member};
use footbridge_testbed::report::{Table, short};
use footbridge_testbed::scenario::{Options, RoomAndChannel, Scenario};
use footbridge_testbed::synapse::Synapse;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{BUDGET, seconds};

const TIMEOUT: Duration = Duration::from_mins(5);
/// The time between two messages for the other room.
const BEAT: Duration = Duration::from_millis(100);
/// The number of messages of which the mean is taken.
const STEADY: u32 = 5;

/// A large room, a room with few members, and an observer in both.
struct LargeRoomScenario {
    scene: Scenario,
    crowded: RoomAndChannel,
    quiet: RoomAndChannel,
    members: Vec<Member>,
    listener: Member,
}

/// Measures one size of room.
pub async fn measure(
    synapse: &Synapse,
    binary: &Path,
    count: usize,
    table: &mut Table,
    console: &Console,
) -> anyhow::Result<()> {
    console.step(&format!("A room of {count} members"));
    let mut stage = LargeRoomScenario::set_up(synapse, binary, count, console).await?;
    for name in ["first run", "restarted"] {
        console.step(&format!("{count} members, {name}"));
        let began = Instant::now();
        if name == "first run" {
            stage.scene.open().await?;
        } else {
            stage.scene.bridge.terminate().await?;
            stage.scene.bridge.start().await?;
        }
        let spent = calm(&stage.scene.bridge).await?;
        let mut row = |measured: &str, value: &str, remarks: &str| {
            table.row(&[
                &format!("{count} members, {name}: {measured}"),
                value,
                remarks,
            ]);
        };
        row(
            "start",
            &format!("{:.2} s CPU", seconds(spent)),
            &format!("until the bridge is idle, {}", short(Some(began.elapsed()))),
        );
        let (wall, cpu) = stage.message().await?;
        row("first message", &cost(wall, cpu), "");
        let (mut wall, mut cpu) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..STEADY {
            let (one, spent) = stage.message().await?;
            (wall, cpu) = (wall + one, cpu + spent);
        }
        row(
            "further message",
            &cost(wall / STEADY, cpu / STEADY),
            "mean of five",
        );
        let worst = stage
            .beside(async { Ok(()) }, Duration::from_secs(3))
            .await?;
        row(
            "another room's worst delay at rest",
            &short(Some(worst.1)),
            "",
        );
        let leaver = stage.members.pop().context("nobody can leave")?;
        leaver.leave(&stage.crowded.room).await?;
        calm(&stage.scene.bridge).await?;
        let ((wall, cpu), worst) = stage.new_key().await?;
        row(
            "new room key",
            &cost(wall, cpu),
            "with ten messages a second for another room",
        );
        row(
            "another room's worst delay meanwhile",
            &short(Some(worst)),
            "",
        );
        let peak = stage.scene.bridge.usage()?.peak_kib / 1024;
        row("memory", &format!("{peak} MB at most"), "");
    }
    stage.scene.bridge.terminate().await.map(drop)
}

impl LargeRoomScenario {
    async fn set_up(
        synapse: &Synapse,
        binary: &Path,
        count: usize,
        console: &Console,
    ) -> anyhow::Result<Self> {
        let mut options = Options::new(binary.to_owned()).with_budget(BUDGET);
        options.portals = 2;
        let scene = Scenario::set_up(synapse, options, &|text| console.step(text)).await?;
        let [crowded, quiet] = scene.pairs.as_slice() else {
            anyhow::bail!("there are not two rooms");
        };
        let (crowded, quiet) = (crowded.clone(), quiet.clone());
        for pair in [&crowded, &quiet] {
            let public = json!({ "join_rule": "public" });
            scene
                .ann
                .send_state(&pair.room, ("m.room.join_rules", ""), public)
                .await?;
        }
        console.step(&format!("{count} people join"));
        let tag: u32 = rand::random();
        let members = members::register(synapse, &format!("member{tag}x"), count).await?;
        members::join(&members, &crowded.room).await?;
        let mut others = members::register(synapse, &format!("other{tag}x"), 4).await?;
        let listener = others.pop().context("there is no listener")?;
        members::join(&others, &quiet.room).await?;
        for pair in [&crowded, &quiet] {
            listener.join(&pair.room).await?;
        }
        Ok(Self {
            scene,
            crowded,
            quiet,
            members,
            listener,
        })
    }

    fn say(&self, pair: &RoomAndChannel) {
        let text = self.scene.from_channel.number();
        let mary = &self.scene.mary.id;
        self.scene.sim.say(&pair.channel.id, mary, &text);
    }

    /// Sends one message for the large room: how long it took, and the bridge's CPU time.
    async fn message(&self) -> anyhow::Result<(Duration, Duration)> {
        let (mut arrivals, task) = self.listen(&self.crowded).await?;
        let before = self.scene.bridge.usage()?.cpu;
        let began = Instant::now();
        self.say(&self.crowded);
        let at = tokio::time::timeout(TIMEOUT, arrivals.recv()).await?;
        drop(task);
        let wall = at.context("the listener ended")? - began;
        calm(&self.scene.bridge).await?;
        Ok((wall, self.scene.bridge.usage()?.cpu.saturating_sub(before)))
    }

    /// Like [`Self::message`], with a message for the other room every tenth of a second: also the longest of their
    /// delays.
    async fn new_key(&self) -> anyhow::Result<((Duration, Duration), Duration)> {
        // The cost of the other messages is subtracted.
        let idle = self
            .beside(async { Ok(()) }, Duration::from_secs(5))
            .await?
            .0;
        let (mut arrivals, task) = self.listen(&self.crowded).await?;
        let message = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let began = Instant::now();
            self.say(&self.crowded);
            let at = tokio::time::timeout(TIMEOUT, arrivals.recv()).await?;
            anyhow::Ok(at.context("the listener ended")? - began)
        };
        let began = Instant::now();
        let before = self.scene.bridge.usage()?.cpu;
        let mut wall = Duration::ZERO;
        let (_, worst) = self
            .beside(
                async {
                    wall = message.await?;
                    Ok(())
                },
                Duration::from_secs(3),
            )
            .await?;
        drop(task);
        let spent = self.scene.bridge.usage()?.cpu.saturating_sub(before);
        let others = idle.mul_f64(began.elapsed().as_secs_f64() / 5.0);
        Ok(((wall, spent.saturating_sub(others)), worst))
    }

    /// Sends messages for the other room during `work`, and for `after` longer: the bridge's CPU time, and the longest
    /// time that one of them took.
    async fn beside(
        &self,
        work: impl Future<Output = anyhow::Result<()>>,
        after: Duration,
    ) -> anyhow::Result<(Duration, Duration)> {
        let (mut arrivals, task) = self.listen(&self.quiet).await?;
        let before = self.scene.bridge.usage()?.cpu;
        let mut sent = Vec::new();
        let mut clock = tokio::time::interval(BEAT);
        let work = async {
            work.await?;
            tokio::time::sleep(after).await;
            anyhow::Ok(())
        };
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => break done?,
                _ = clock.tick() => {
                    sent.push(Instant::now());
                    self.say(&self.quiet);
                }
            }
        }
        let mut worst = Duration::ZERO;
        for sent in sent {
            let at = tokio::time::timeout(TIMEOUT, arrivals.recv()).await?;
            worst = worst.max(at.context("the listener ended")?.duration_since(sent));
        }
        drop(task);
        let spent = self.scene.bridge.usage()?.cpu.saturating_sub(before);
        Ok((spent, worst))
    }

    /// The times at which encrypted events of the bridge arrive in a room from now on.
    async fn listen(
        &self,
        pair: &RoomAndChannel,
    ) -> anyhow::Result<(mpsc::UnboundedReceiver<Instant>, JoinSet<()>)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (listener, room) = (self.listener.clone(), pair.room.clone());
        let bridge = self.scene.bridge_user.clone();
        let (_, mut since) = listener.receive(&room, &bridge, None).await?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((events, next)) = listener.receive(&room, &bridge, Some(&since)).await {
                since = next;
                for _ in 0..events {
                    if sender.send(Instant::now()).is_err() {
                        return;
                    }
                }
            }
        });
        Ok((receiver, task))
    }
}

/// Waits until the bridge has used hardly any CPU time for two seconds; returns its CPU time since the start.
async fn calm(bridge: &BridgeProcess) -> anyhow::Result<Duration> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let before = bridge.usage()?.cpu;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = bridge.usage()?.cpu;
        if after.saturating_sub(before) <= Duration::from_millis(30) {
            return Ok(after);
        }
        anyhow::ensure!(Instant::now() < deadline, "the bridge does not become idle");
    }
}

fn cost(wall: Duration, cpu: Duration) -> String {
    format!("{:.2} s, {:.2} s CPU", seconds(wall), seconds(cpu))
}
