//! Members who come and go between messages, and devices that nobody signed: who is not in the room has no key.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use footbridge::matrix::person::{Identity, Person};
use tokio::time::Instant;

use super::super::{Context, Outcome, Plan, Rig, Row};
use crate::report::{Arrived, Verdict};
use crate::scenario::{Ear, Load, PASSWORD, Scenario};

/// How long anything may take to show.
const PATIENCE: Duration = Duration::from_mins(2);
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
    let rig = Rig::open(context, Plan::default()).await?;
    let (scene, room) = (&rig.scene, &rig.scene.stage.room);
    let files = tempfile::tempdir()?;
    let name = format!("guest{:08x}", rand::random::<u32>());
    let user = context.synapse.register(&name, PASSWORD).await?;
    let home = files.path().join("guest");
    let guest = Person::login(&context.synapse.url(), &name, PASSWORD, &home).await?;
    let ear = Ear::open(guest.clone());
    let load = Load::new('k');
    let (mut devices, mut for_guest, mut not_for_guest) =
        (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let steps: usize = context.pick(8, 60, 250);
    for step in 0..steps {
        let is_in = step % 2 == 0;
        if is_in {
            scene.ann.invite(room, &user).await?;
            guest.join(room).await?;
        } else {
            guest.leave(room).await?;
        }
        if step % DEVICE_EVERY == 2 {
            let home = files.path().join(format!("device{step}"));
            let url = context.synapse.url();
            let device = Person::login_as(&url, &name, PASSWORD, &home, Identity::None).await?;
            devices.push(device);
        }
        // What follows the change comes out at the other end: the bridge knows of the change.
        rig.crowd.say_in_room(scene, 0).await?;
        rig.arrive(PATIENCE).await;
        let number = u32::try_from(load.said().len())?;
        scene
            .sim
            .say(&scene.stage.channel.id, &scene.mary.id, &load.number());
        wait(scene, "Ann reads it", || {
            read_by(&scene.ear, scene, &load).contains(&number)
        })
        .await?;
        if is_in {
            for_guest.insert(number);
        } else {
            not_for_guest.insert(number);
        }
        if step % 50 == 49 {
            context.tell(&format!("{} of {steps} changes", step + 1));
        }
    }
    // Back in the room the guest is shown what was said meanwhile.
    if steps.is_multiple_of(2) {
        scene.ann.invite(room, &user).await?;
        guest.join(room).await?;
    }
    let never_read = || closed_to(&ear, scene);
    wait(scene, "the guest is shown everything", || {
        read_by(&ear, scene, &load).is_superset(&for_guest) && never_read() >= not_for_guest.len()
    })
    .await?;
    let read = read_by(&ear, scene, &load);
    let to_leaver = read.intersection(&not_for_guest).count();
    let mut to_unsigned = 0;
    let mut shown_to_unsigned = 0;
    for device in &devices {
        let (open, closed) = seen_by(device, scene).await?;
        to_unsigned += open;
        shown_to_unsigned += closed;
    }
    let mut outcome = rig.finish("F37").await?;
    let arrived: Vec<_> = heard(&scene.ear, scene, &load);
    outcome.verdict.join(Verdict::of(&load.said(), &arrived));
    outcome.injections = u64::try_from(steps + devices.len())?;
    outcome.note(&format!(
        "keys to who had left: {to_leaver} of {}, to {} unsigned devices: {to_unsigned} of {shown_to_unsigned}; the guest \
         read {} of {}",
        not_for_guest.len(),
        devices.len(),
        read.intersection(&for_guest).count(),
        for_guest.len()
    ));
    if to_leaver > 0 {
        outcome.object("a key reached somebody who had left");
    }
    if to_unsigned > 0 {
        outcome.object("a key reached an unsigned device");
    }
    if !devices.is_empty() && shown_to_unsigned == 0 {
        outcome.object("the unsigned devices were shown nothing");
    }
    Ok(outcome)
}

/// Copies of the load by the bridge, as a client read them.
fn heard(ear: &Ear, scene: &Scenario, load: &Load) -> Vec<Arrived> {
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

fn read_by(ear: &Ear, scene: &Scenario, load: &Load) -> BTreeSet<u32> {
    let heard = heard(ear, scene, load);
    heard.iter().map(|arrived| arrived.number).collect()
}

/// How many events of the bridge a client was shown and never could read.
fn closed_to(ear: &Ear, scene: &Scenario) -> usize {
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
async fn seen_by(device: &Person, scene: &Scenario) -> anyhow::Result<(usize, usize)> {
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
    let deadline = Instant::now() + PATIENCE;
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
