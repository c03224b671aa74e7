//! Members who join and leave between messages, and devices that are not cross-signed: no one outside the room may get
//! a room key.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client::{Identity, TestClient};
use anyhow::ensure;
use tempfile::TempDir;
use tokio::time::Instant;

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::report::{Arrived, Verdict};
use crate::scenario::{Load, PASSWORD, RoomObserver, Scenario};

/// How long anything may take to become visible.
const TIMEOUT: Duration = Duration::from_mins(2);
/// An unsigned device is added with every `DEVICE_EVERY`-th change.
const DEVICE_EVERY: usize = 20;

pub(super) fn rows() -> Vec<Row> {
    vec![Row {
        id: "F37",
        title: "members and devices change between messages",
        help: "A guest joins or leaves before every message, and unsigned devices are added. The guest's own client \
               must be able to read what was sent while the guest was a member, and nothing else; the unsigned \
               devices nothing at all.",
        run: |context| Box::pin(churn(context)),
    }]
}

async fn churn(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let mut scene = ChurnScenario::open(context).await?;
    let steps: usize = context.pick(8, 60, 250);
    for step in 0..steps {
        scene.step(step).await?;
        if step % 50 == 49 {
            context.tell(&format!("{} of {steps} changes", step + 1));
        }
    }
    scene.end(steps).await
}

/// A guest with their own client, and unsigned devices of the guest's account.
struct ChurnScenario<'a> {
    context: &'a Context<'a>,
    rig: FaultScenario,
    name: String,
    user: String,
    guest: TestClient,
    /// The events that the guest's client receives.
    room_observer: RoomObserver,
    files: TempDir,
    devices: Vec<TestClient>,
    /// The numbered messages of Mary in the channel.
    load: Load,
    for_guest: BTreeSet<u32>,
    not_for_guest: BTreeSet<u32>,
}

impl<'a> ChurnScenario<'a> {
    async fn open(context: &'a Context<'a>) -> anyhow::Result<Self> {
        let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
        let files = tempfile::tempdir()?;
        let name = format!("guest{:08x}", rand::random::<u32>());
        let user = context.synapse.register(&name, PASSWORD).await?;
        let home = files.path().join("guest");
        let guest = TestClient::login(&context.synapse.url(), &name, PASSWORD, &home).await?;
        Ok(Self {
            context,
            rig,
            name,
            user,
            room_observer: RoomObserver::open(guest.clone()),
            guest,
            files,
            devices: Vec::new(),
            load: Load::new('k'),
            for_guest: BTreeSet::new(),
            not_for_guest: BTreeSet::new(),
        })
    }

    async fn come(&self) -> anyhow::Result<()> {
        let room = &self.rig.scene.stage.room;
        self.rig.scene.ann.invite(room, &self.user).await?;
        self.guest.join(room).await
    }

    /// Makes one change, and sends one message after it.
    async fn step(&mut self, step: usize) -> anyhow::Result<()> {
        let is_in = step.is_multiple_of(2);
        if is_in {
            self.come().await?;
        } else {
            self.guest.leave(&self.rig.scene.stage.room).await?;
        }
        if step % DEVICE_EVERY == 2 {
            let home = self.files.path().join(format!("device{step}"));
            let url = self.context.synapse.url();
            let device =
                TestClient::login_as(&url, &self.name, PASSWORD, &home, Identity::None).await?;
            self.devices.push(device);
        }
        // When a message after the change has arrived, the bridge has processed the change.
        let scene = &self.rig.scene;
        self.rig.traffic.say_in_room(scene, 0).await?;
        self.rig.arrive(TIMEOUT).await;
        let number = u32::try_from(self.load.said().len())?;
        scene
            .sim
            .say(&scene.stage.channel.id, &scene.mary.id, &self.load.number());
        wait(scene, "Ann reads it", || {
            read_by(&scene.room_observer, scene, &self.load).contains(&number)
        })
        .await?;
        if is_in {
            self.for_guest.insert(number);
        } else {
            self.not_for_guest.insert(number);
        }
        Ok(())
    }

    async fn end(mut self, steps: usize) -> anyhow::Result<Outcome> {
        // Back in the room, the guest receives the events that were sent meanwhile.
        if steps.is_multiple_of(2) {
            self.come().await?;
        }
        let scene = &self.rig.scene;
        wait(scene, "the guest received everything", || {
            read_by(&self.room_observer, scene, &self.load).is_superset(&self.for_guest)
                && closed_to(&self.room_observer, scene) >= self.not_for_guest.len()
        })
        .await?;
        let read = read_by(&self.room_observer, scene, &self.load);
        let to_leaver = read.intersection(&self.not_for_guest).count();
        let (mut to_unsigned, mut shown_to_unsigned) = (0, 0);
        for device in std::mem::take(&mut self.devices) {
            let (open, closed) = seen_by(&device, scene).await?;
            to_unsigned += open;
            shown_to_unsigned += closed;
        }
        let devices = steps.saturating_sub(2).div_ceil(DEVICE_EVERY);
        let mut outcome = self.rig.finish("F37").await?;
        let arrived = copies_read(&scene.room_observer, scene, &self.load);
        outcome
            .verdict
            .join(Verdict::of(&self.load.said(), &arrived));
        outcome.injections = u64::try_from(steps + devices)?;
        outcome.note(&format!(
            "keys sent to the former member: {to_leaver} of {}, to {devices} unsigned devices: {to_unsigned} of \
             {shown_to_unsigned}; the guest read {} of {}",
            self.not_for_guest.len(),
            read.intersection(&self.for_guest).count(),
            self.for_guest.len()
        ));
        if to_leaver > 0 {
            outcome.object("a room key was sent to a former member");
        }
        if to_unsigned > 0 {
            outcome.object("a room key was sent to an unsigned device");
        }
        if devices > 0 && shown_to_unsigned == 0 {
            outcome.object("the unsigned devices received no events");
        }
        Ok(outcome)
    }
}

/// The bridge's copies of the load, as a client read them.
fn copies_read(observer: &RoomObserver, scene: &Scenario, load: &Load) -> Vec<Arrived> {
    let arrived = observer.pick(&scene.stage.room, |event| {
        let text = event
            .text()
            .filter(|_| event.seen.sender == scene.bridge_user)?;
        let at = Some(event.at);
        let numbers = load.numbers_in(text).into_iter();
        Some(
            numbers
                .map(|number| Arrived { number, at })
                .collect::<Vec<_>>(),
        )
    });
    arrived.concat()
}

fn read_by(observer: &RoomObserver, scene: &Scenario, load: &Load) -> BTreeSet<u32> {
    let arrived = copies_read(observer, scene, load);
    arrived.iter().map(|arrived| arrived.number).collect()
}

/// How many events of the bridge a client received and never could decrypt.
fn closed_to(observer: &RoomObserver, scene: &Scenario) -> usize {
    let (mut open, mut closed) = (BTreeSet::new(), BTreeSet::new());
    observer.pick(&scene.stage.room, |event| -> Option<()> {
        if event.seen.sender == scene.bridge_user && event.seen.encrypted {
            let id = event.seen.event_id.clone();
            if event.seen.undecryptable {
                closed.insert(id);
            } else {
                open.insert(id);
            }
        }
        None
    });
    closed.difference(&open).count()
}

/// How many events of the bridge this device can decrypt, and how many not.
async fn seen_by(device: &TestClient, scene: &Scenario) -> anyhow::Result<(usize, usize)> {
    let (mut open, mut closed) = (0, 0);
    for _ in 0..2 {
        for seen in device.sync(Duration::ZERO).await? {
            if seen.sender == scene.bridge_user && seen.encrypted {
                if seen.undecryptable {
                    closed += 1;
                } else {
                    open += 1;
                }
            }
        }
    }
    Ok((open, closed))
}

async fn wait(scene: &Scenario, what: &str, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        ensure!(
            Instant::now() < deadline,
            "waited in vain: {what}\n{}",
            scene.bridge.logs_end()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
