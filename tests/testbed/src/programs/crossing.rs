//! Two encrypted rooms that are linked through a Matterbridge: the first room to a gateway, which relays to a channel
//! of a Mattermost, which is linked to the second room. Counts what arrives, and what the Matterbridge itself loses.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use footbridge_simulators::{
    matterbridge::{self, MatterbridgeChannel},
    mattermost,
};
use footbridge_testbed::arguments::Crossing as Arguments;
use footbridge_testbed::bridge::build;
use footbridge_testbed::console::Console;
use footbridge_testbed::multi_silo::{GatewayRelay, MultiSiloOptions, MultiSiloScenario};
use footbridge_testbed::report::{Table, Verdict, short};
use footbridge_testbed::scenario::{Load, until};
use footbridge_testbed::synapse::{Limits, Synapse};

pub async fn run(arguments: &Arguments, console: &Console) -> anyhow::Result<bool> {
    console.heading(&format!(
        "{} messages each way, {} a second, a buffer of {}",
        arguments.messages, arguments.rate, arguments.buffer
    ));
    console.step("Building the bridge");
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => build::footbridge().await?,
    };
    console.step("Starting a throwaway Synapse");
    let synapse = Synapse::start(Limits::Relaxed).await?;
    let plan = MultiSiloOptions {
        binary,
        sites: vec![&matterbridge::SIMULATOR, &mattermost::SIMULATOR],
        rooms: 2,
        portals: vec![(0, 0), (1, 1)],
        log_filter: "warn".to_owned(),
        ..MultiSiloOptions::default()
    };
    let scene = MultiSiloScenario::build(&synapse, plan).await?;
    let (Some(gateway), Some(channel)) = (scene.sites.first(), scene.sites.get(1)) else {
        anyhow::bail!("there are no channels");
    };
    let bridge = gateway
        .of::<MatterbridgeChannel>()
        .context("the first is no Matterbridge")?;
    bridge.sim.set_buffer(arguments.buffer);
    let _joint = GatewayRelay::between(gateway, channel).context("these cannot be linked")?;
    let loads = (Load::new('a'), Load::new('b'));
    console.step("Talking");
    let began = Instant::now();
    let mut beat = tokio::time::interval(Duration::from_secs_f64(1.0 / arguments.rate));
    for number in 0..arguments.messages {
        beat.tick().await;
        for (load, room) in [(&loads.0, 0), (&loads.1, 1)] {
            let room: &String = scene.rooms.get(room).context("there is no such room")?;
            scene.ann.say(room, &load.number()).await?;
        }
        if arguments.away > 0 && number == arguments.messages / 2 {
            // Otherwise messages still on their way would arrive after those that are sent meanwhile.
            let arrived = || scene.into_channel(&loads.1, 1).lost.is_empty();
            until(Duration::from_mins(1), arrived).await?;
            scene.bridge.terminate().await?;
            // A user on the far side of the gateway keeps writing.
            for _ in 0..arguments.away * 4 {
                channel.say(&loads.1.number());
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            scene.bridge.start().await?;
        }
    }
    let verdicts = || (scene.into_room(&loads.0, 1), scene.into_room(&loads.1, 0));
    let deadline = Instant::now() + Duration::from_mins(6);
    loop {
        let (there, back) = verdicts();
        let lost = lost_by_itself(&gateway.lost_by_itself(), &loads.1);
        let missing = back.lost.iter().filter(|number| !lost.contains(number));
        if (there.lost.is_empty() && missing.count() == 0) || Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    scene.bridge.conservation().await?;
    let (there, mut back) = verdicts();
    let by_itself = lost_by_itself(&gateway.lost_by_itself(), &loads.1);
    let (lost, missing): (Vec<u32>, Vec<u32>) = back
        .lost
        .iter()
        .partition(|number| by_itself.contains(number));
    back.lost = missing;
    console.line(&shown(&there, &back, lost.len()).to_string());
    for (name, verdict) in [("first → second", &there), ("second → first", &back)] {
        if !verdict.is_clean() {
            let (lost, misplaced) = (&verdict.lost, &verdict.misplaced);
            console.line(&format!(
                "  {name}: lost {lost:?}, out of order {misplaced:?}"
            ));
        }
    }
    console.line(&format!("  lost by the API: {lost:?}"));
    console.line(&format!("  {} in all", short(Some(began.elapsed()))));
    Ok(there.is_clean() && back.is_clean())
}

fn lost_by_itself(texts: &[String], load: &Load) -> BTreeSet<u32> {
    texts
        .iter()
        .filter_map(|text| load.number_in(text))
        .collect()
}

fn shown(there: &Verdict, back: &Verdict, by_itself: usize) -> Table {
    let mut table = Table::new(&[
        "direction",
        "messages",
        "lost",
        "doubled",
        "reordered",
        "lost by the API",
        "longest delay",
    ]);
    for (name, verdict, lost) in [
        ("first room → second", there, 0),
        ("second room → first", back, by_itself),
    ] {
        table.row(&[
            name,
            &verdict.messages.to_string(),
            &verdict.lost.len().to_string(),
            &(verdict.doubled.len() + verdict.unknown.len()).to_string(),
            &verdict.misplaced.len().to_string(),
            &lost.to_string(),
            &short(verdict.longest()),
        ]);
    }
    table
}
