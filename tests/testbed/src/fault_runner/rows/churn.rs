//! Members who come and go between messages, and devices that nobody signed: who is not in the room has no key.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use footbridge_matrix::person::{Identity, TestClient};
use tempfile::TempDir;
use tokio::time::Instant;

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::report::{Arrived, Verdict};
use crate::scenario::{Load, PASSWORD, RoomObserver, Scenario};

/// How long anything may take to show.
const TIMEOUT: Duration = Duration::from_mins(2);
/// An unsigned device is added with every so many changes.
const DEVICE_EVERY: usize = 20;

pub(super) fn rows() -> Vec<Row> {
    vec![Row {
        id: "F37",
        title: "members and devices come and go between messages",
        help: "A guest joins or leaves before every message, and devices are added that nobody signed. The guest's own client \
               must read what was said while the guest was there, and nothing else; the devices nothing at all.",
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

/// The scene: a guest with a client of their own, and devices of the guest's account that nobody signed.
struct ChurnScenario<'a> {
    context: &'a Context<'a>,
    rig: FaultScenario,
    name: String,
    user: String,
    guest: TestClient,
    /// What the guest's client is shown.
    room_observer: RoomObserver,
    files: TempDir,
    devices: Vec<TestClient>,
    /// What Mary says in the channel.
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

    /// One change, and one message after it.
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
        // What follows the change comes out at the other end: the bridge knows of the change.
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
        // Back in the room the guest is shown what was said meanwhile.
        if steps.is_multiple_of(2) {
            self.come().await?;
        }
        let scene = &self.rig.scene;
        wait(scene, "the guest is shown everything", || {
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
        let arrived = heard(&scene.room_observer, scene, &self.load);
        outcome
            .verdict
            .join(Verdict::of(&self.load.said(), &arrived));
        outcome.injections = u64::try_from(steps + devices)?;
        outcome.note(&format!(
            "keys to who had left: {to_leaver} of {}, to {devices} unsigned devices: {to_unsigned} of \
             {shown_to_unsigned}; the guest read {} of {}",
            self.not_for_guest.len(),
            read.intersection(&self.for_guest).count(),
            self.for_guest.len()
        ));
        if to_leaver > 0 {
            outcome.object("a key reached somebody who had left");
        }
        if to_unsigned > 0 {
            outcome.object("a key reached an unsigned device");
        }
        if devices > 0 && shown_to_unsigned == 0 {
            outcome.object("the unsigned devices were shown nothing");
        }
        Ok(outcome)
    }
}

/// Copies of the load by the bridge, as a client read them.
fn heard(ear: &RoomObserver, scene: &Scenario, load: &Load) -> Vec<Arrived> {
    let arrived = ear.pick(&scene.stage.room, |heard| {
        let text = heard
            .text()
            .filter(|_| heard.seen.sender == scene.bridge_user)?;
        let at = Some(heard.at);
        let numbers = load.numbers_in(text).into_iter();
        Some(
            numbers
                .map(|number| Arrived { number, at })
                .collect::<Vec<_>>(),
        )
    });
    arrived.concat()
}

fn read_by(ear: &RoomObserver, scene: &Scenario, load: &Load) -> BTreeSet<u32> {
    let heard = heard(ear, scene, load);
    heard.iter().map(|arrived| arrived.number).collect()
}

/// How many events of the bridge a client was shown and never could read.
fn closed_to(ear: &RoomObserver, scene: &Scenario) -> usize {
    let (mut open, mut closed) = (BTreeSet::new(), BTreeSet::new());
    ear.pick(&scene.stage.room, |heard| -> Option<()> {
        if heard.seen.sender == scene.bridge_user && heard.seen.encrypted {
            let id = heard.seen.event_id.clone();
            if heard.seen.undecryptable {
                closed.insert(id);
            } else {
                open.insert(id);
            }
        }
        None
    });
    closed.difference(&open).count()
}

/// How many events of the bridge this device can read, and how many not.
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
