//! Measures what a large file costs between an encrypted room and a channel: the time, the bridge's additional memory,
//! and how long the homeserver alone takes for the same bytes.

#![expect(
    clippy::indexing_slicing,
    reason = "this scenario has one room and one channel"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use footbridge_simulators::mattermost::{self, MattermostChannel};
use footbridge_testbed::console::Console;
use footbridge_testbed::multi_silo::{MultiSiloOptions, MultiSiloScenario};
use footbridge_testbed::report::{Table, short};
use footbridge_testbed::scenario::until;
use footbridge_testbed::synapse::Synapse;

use super::seconds;

const TIMEOUT: Duration = Duration::from_mins(10);

/// Sends a file of `megabytes` each way.
pub async fn measure(
    synapse: &Synapse,
    binary: &Path,
    megabytes: usize,
    table: &mut Table,
    console: &Console,
) -> anyhow::Result<()> {
    console.step("A room and a channel of Mattermost");
    let plan = MultiSiloOptions::of_one(binary.to_owned(), &mattermost::SIMULATOR);
    let scene = MultiSiloScenario::build(synapse, plan).await?;
    let MattermostChannel { sim, channel, .. } = mattermost(&scene)?;
    // A small file each way first, so that connections and caches are as in daily use.
    exchange(&scene, 10_000).await?;
    let bytes = megabytes * 1_000_000;

    console.step(&format!("{megabytes} MB from the room to the channel"));
    let before = scene.bridge.usage_anew()?;
    let began = Instant::now();
    let alone = {
        let content = pattern(bytes);
        scene
            .ann
            .send_file(
                &scene.rooms[0],
                ("big.bin", "application/octet-stream"),
                content,
                None,
            )
            .await?;
        began.elapsed()
    };
    let began = Instant::now();
    until(TIMEOUT, || {
        let posts = sim.posts(&channel.id);
        posts.last().is_some_and(|post| {
            let files = sim.files_of(post);
            files.iter().any(|(_, content)| content.len() == bytes)
        })
    })
    .await?;
    row(
        table,
        &scene,
        ("room → channel", megabytes),
        began.elapsed(),
        alone,
        before.resident_kib,
    )?;

    console.step(&format!("{megabytes} MB from the channel to the room"));
    let before = scene.bridge.usage_anew()?;
    let bob = sim.add_user("carrier");
    sim.join(&channel.id, &bob.id);
    let began = Instant::now();
    sim.say_file(&channel.id, &bob.id, "large.bin", &pattern(bytes));
    until(TIMEOUT, || arrived(&scene, bytes)).await?;
    row(
        table,
        &scene,
        ("channel → room", megabytes),
        began.elapsed(),
        alone,
        before.resident_kib,
    )?;
    Ok(())
}

fn row(
    table: &mut Table,
    scene: &MultiSiloScenario,
    (way, megabytes): (&str, usize),
    took: Duration,
    alone: Duration,
    resident: u64,
) -> anyhow::Result<()> {
    let extra = scene.bridge.usage()?.peak_kib.saturating_sub(resident) / 1024;
    let speed = f64::from(u32::try_from(megabytes)?) / seconds(took);
    table.row(&[
        &format!("{megabytes} MB {way}"),
        &format!("{speed:.1} MB/s, {extra} MB more memory"),
        &format!(
            "{} in all; Ann's own client took {} to encrypt and upload it",
            short(Some(took)),
            short(Some(alone))
        ),
    ]);
    Ok(())
}

fn mattermost(scene: &MultiSiloScenario) -> anyhow::Result<&MattermostChannel> {
    let channel = scene.sites.first().and_then(|site| site.of());
    channel.context("no Mattermost")
}

/// Sends a small file each way.
async fn exchange(scene: &MultiSiloScenario, bytes: usize) -> anyhow::Result<()> {
    let MattermostChannel { sim, channel, .. } = mattermost(scene)?;
    let file = ("small.bin", "application/octet-stream");
    scene
        .ann
        .send_file(&scene.rooms[0], file, pattern(bytes), None)
        .await?;
    until(TIMEOUT, || sim.posts(&channel.id).len() == 1).await?;
    let bob = sim.add_user("herald");
    sim.join(&channel.id, &bob.id);
    sim.say_file(&channel.id, &bob.id, "small.bin", &pattern(bytes));
    until(TIMEOUT, || arrived(scene, bytes)).await
}

fn arrived(scene: &MultiSiloScenario, bytes: usize) -> bool {
    let sizes = scene.room_observer.pick(&scene.rooms[0], |event| {
        let ours = event.seen.sender == scene.bridge_user;
        let size = event.seen.content["info"]["size"].as_u64();
        size.filter(|_| ours)
    });
    sizes.contains(&u64::try_from(bytes).unwrap_or_default())
}

/// Bytes that no encoding compresses much.
fn pattern(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut all = Vec::with_capacity(bytes + 8);
    while all.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_le_bytes());
    }
    all.truncate(bytes);
    all
}
