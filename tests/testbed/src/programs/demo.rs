//! The main purpose, live: a throwaway Synapse, a simulated Gitter, one bridge, users on both sides, and a crash in the
//! middle. Exit code 0 only if nothing was lost, doubled or reordered.

mod talk;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use footbridge_testbed::arguments::Demo;
use footbridge_testbed::bridge::build;
use footbridge_testbed::console::Console;
use footbridge_testbed::report::{Table, short};
use footbridge_testbed::scenario::{Options, PASSWORD, Scenario};
use footbridge_testbed::synapse::{Limits, Synapse, install};

use self::talk::Talk;
use anyhow::Context as _;

pub async fn run(arguments: &Demo, console: &Console) -> anyhow::Result<bool> {
    let verdict = OnceLock::new();
    tokio::select! {
        outcome = play(console, arguments.stay, &verdict) => outcome?,
        // What was started is stopped by being dropped.
        _ = tokio::signal::ctrl_c() => console.line("\n  Stopped."),
    }
    Ok(verdict.get() == Some(&true))
}

async fn play(console: &Console, stay: bool, verdict: &OnceLock<bool>) -> anyhow::Result<()> {
    console.heading("Footbridge: an encrypted Matrix room and a Gitter channel");
    let synapse = start_homeserver(console).await?;
    console.step("Building the bridge");
    let binary = build::footbridge().await?;
    let options = Options::new(binary);
    let scene = Scenario::set_up(&synapse, options, &|text| console.step(text)).await?;
    console.step("The bridge starts and accepts the invitation");
    scene.open().await?;
    console.end_step();

    let talk = Talk {
        scene: &scene,
        synapse: &synapse,
        console,
    };
    console.heading("A conversation, and what the homeserver stores of it");
    converse(&talk).await?;
    console.heading("The bridge is killed (SIGKILL) while both sides keep writing");
    crash(&scene, console).await?;
    let calm = Calm::begin(&scene);
    chat(&scene, 15, Duration::from_millis(250)).await?;
    scene.settle(Duration::from_mins(1)).await?;
    console.heading("Messages sent and messages arrived");
    let clean = judge(&scene, &synapse, &calm, console).await?;
    verdict.get_or_init(|| clean);
    if stay {
        explain(&scene, &synapse, console).await?;
        return std::future::pending().await;
    }
    console.step("Taking everything down");
    scene.bridge.terminate().await?;
    drop(scene);
    drop(synapse);
    console.end_step();
    Ok(())
}

async fn start_homeserver(console: &Console) -> anyhow::Result<Synapse> {
    if !install::is_installed() {
        let version = install::VERSION;
        console.step(&format!(
            "Fetching Synapse {version} from PyPI, only this time"
        ));
        tokio::task::spawn_blocking(install::python).await??;
    }
    console.step("Starting a throwaway Synapse");
    Synapse::start(Limits::Relaxed).await
}

async fn converse(talk: &Talk<'_>) -> anyhow::Result<()> {
    talk.ann(
        "nobody else can read",
        "Hello from a room nobody else can read.",
    )
    .await?;
    let mary = "Hi Ann! Everybody can read **this channel**, and so `can you`.";
    talk.in_channel(&talk.scene.mary, "Everybody can read", mary)
        .await?;
    let oak = talk
        .ann(
            "under the old oak",
            "Shall we meet at three, under the old oak?",
        )
        .await?;
    talk.ann_edits(&oak, "at four", "Shall we meet at four, under the old oak?")
        .await?;
    let tom = "See <https://example.org>, and *bring* umbrellas :umbrella:";
    talk.in_channel(&talk.scene.tom, "umbrellas", tom).await?;
    let slip = "Oops, wrong channel, forget this line.";
    let slip = talk
        .in_channel(&talk.scene.tom, "wrong channel", slip)
        .await?;
    talk.is_deleted(&talk.scene.tom, &slip).await
}

async fn crash(scene: &Scenario, console: &Console) -> anyhow::Result<()> {
    let axe = async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let pid = scene.bridge.pid().context("the bridge is not running")?;
        scene.bridge.kill().await?;
        let (here, there) = (
            scene.toward_channel().lost.len(),
            scene.toward_room().lost.len(),
        );
        console.line(&format!(
            "  Killed process {pid}; pending messages: {here} toward the channel, {there} toward the room"
        ));
        anyhow::Ok(())
    };
    tokio::try_join!(chat(scene, 25, Duration::from_millis(150)), axe)?;
    let (here, there) = (
        scene.toward_channel().lost.len(),
        scene.toward_room().lost.len(),
    );
    console.line(&format!(
        "  Without it, {here} messages wait for the channel and {there} for the room"
    ));
    let began = Instant::now();
    scene.bridge.start().await?;
    console.line(&format!(
        "  Started again, ready after {}",
        short(Some(began.elapsed()))
    ));
    scene.settle(Duration::from_mins(3)).await?;
    console.line(&format!(
        "  Everything had arrived {} after the start",
        short(Some(began.elapsed()))
    ));
    Ok(())
}

/// Users on both sides write at the same time.
async fn chat(scene: &Scenario, messages: usize, pause: Duration) -> anyhow::Result<()> {
    let ann = async {
        for _ in 0..messages {
            scene.say_in_room().await?;
            tokio::time::sleep(pause).await;
        }
        anyhow::Ok(())
    };
    let mary = async {
        for _ in 0..messages {
            scene.say_in_channel();
            tokio::time::sleep(pause).await;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(ann, mary).map(drop)
}

/// The number of messages before the part without kills: latencies are measured after them.
struct Calm {
    in_room: usize,
    in_channel: usize,
}

impl Calm {
    fn begin(scene: &Scenario) -> Self {
        Self {
            in_room: scene.from_room.said().len(),
            in_channel: scene.from_channel.said().len(),
        }
    }
}

async fn judge(
    scene: &Scenario,
    synapse: &Synapse,
    calm: &Calm,
    console: &Console,
) -> anyhow::Result<bool> {
    let (mut there, mut here) = (scene.toward_channel(), scene.toward_room());
    let longest = there.percentile(100).max(here.percentile(100));
    there.latencies = scene.toward_channel_from(calm.in_room).latencies;
    here.latencies = scene.toward_room_from(calm.in_channel).latencies;
    let mut table = Table::of_verdicts();
    table
        .verdict("room → channel", &there)
        .verdict("channel → room", &here);
    console.line(&table.to_string());
    console.line(&format!(
        "  Latency from sending to visible, after the crash; because of it, one message took {}",
        short(longest)
    ));
    let encrypted = scene.all_encrypted(synapse).await?;
    console.line(&format!(
        "  On the homeserver: {encrypted} events, every one of them encrypted"
    ));
    let tally = scene.bridge.conservation().await?;
    console.line(&format!(
        "  The bridge's own count: {} accepted = {} delivered + {} skipped + {} failed + {} pending",
        tally.accepted, tally.delivered, tally.skipped, tally.failed, tally.pending
    ));
    let clean = there.is_clean() && here.is_clean();
    console.line(if clean {
        "  Nothing lost, doubled or out of order.\n"
    } else {
        "  Messages were lost, doubled or out of order.\n"
    });
    Ok(clean)
}

async fn explain(scene: &Scenario, synapse: &Synapse, console: &Console) -> anyhow::Result<()> {
    let you = synapse.register("you", PASSWORD).await?;
    scene.ann.invite(&scene.stage.room, &you).await?;
    let channel = &scene.stage.channel;
    console.heading("Join in");
    console.line(&format!(
        "  In the room, with Element or any client that encrypts:
      homeserver   {}
      user         {you}
      password     {PASSWORD}
      room         The quiet room 1, you are invited ({})
    Let it set up encryption when it offers to: the bridge relays only what comes from signed devices.

  In the channel:
      a page       {}
      a command    curl -H 'content-type: application/json' {}/say \\
                     -d '{{\"room\": \"{}\", \"user\": \"{}\", \"text\": \"Hello\"}}'

  The bridge:
      health       {}/health/ready
      metrics      {}/metrics
      files        {}

  Ctrl-C ends it all.",
        synapse.url(),
        scene.stage.room,
        scene.sim.control_url(),
        scene.sim.control_url(),
        channel.uri,
        scene.mary.username,
        scene.bridge.admin_url(),
        scene.bridge.admin_url(),
        scene.bridge.directory().display(),
    ));
    Ok(())
}
