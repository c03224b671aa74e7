//! Faults of the bridge's own files.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Cut, Fault, Matcher, Rule};
use crate::synapse::{Limits, Synapse};

/// How long a start may take that must be refused.
const REFUSAL: Duration = Duration::from_secs(20);

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "F09",
            title: "database files truncated, emptied or missing",
            help: "Each database in the data directory in turn: the bridge refuses to start and leaves the file \
                   unchanged; with the original file it continues.",
            run: |context| Box::pin(damaged(context)),
        },
        Row {
            id: "F16",
            title: "the homeserver forgets transactions",
            help: "Responses to sends are lost, and the homeserver restarts without its record of transaction ids: \
                   the bridge reconciles what has an unknown outcome and repeats nothing.",
            run: |context| Box::pin(forgotten(context)),
        },
        Row {
            id: "F21",
            title: "the disk is full, again and again",
            help: "The data directory is on a small file system of its own, which is filled at random moments under \
                   traffic both ways. It has to be mounted: as root, or under `unshare --map-root-user --mount`.",
            run: |context| Box::pin(full(context)),
        },
        Row {
            id: "F22",
            title: "another process locks the database",
            help: "Another process holds the write lock of the store for up to 30 s under traffic both ways.",
            run: |context| Box::pin(busy(context)),
        },
        Row {
            id: "F24",
            title: "an old copy of the data directory is restored",
            help: "Copies are taken while the bridge runs and while it is stopped, before traffic and before a quiet \
                   time. The start with each must be refused with code 78; with the current directory it continues.",
            run: |context| Box::pin(old_copy(context)),
        },
        Row {
            id: "F25",
            title: "a second instance on the same store, and on a copy of it",
            help: "Each ends with code 75, and the first continues undisturbed.",
            run: |context| Box::pin(second(context)),
        },
    ]
}

fn databases(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(databases(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "db" || extension == "sqlite3")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()?;
    anyhow::ensure!(status.success(), "cannot copy {}", from.display());
    Ok(())
}

async fn damaged(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    rig.talk(10, 10.0).await?;
    rig.scene.bridge.terminate().await?;
    rig.traffic.say_in_room(&rig.scene, 0).await?;
    let data = rig.scene.bridge.data_directory();
    let safe = data.with_file_name("safe");
    copy(&data, &safe)?;
    let (mut injections, mut objections) = (0, Vec::new());
    for file in databases(&data)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let whole = std::fs::read(&file)?;
        for keep in [Some(whole.len() / 2), Some(0), None] {
            let harmed = keep.map(|keep| whole.get(..keep).unwrap_or_default().to_vec());
            match &harmed {
                Some(bytes) => std::fs::write(&file, bytes)?,
                None => std::fs::remove_file(&file)?,
            }
            injections += 1;
            let code = rig.scene.bridge.attempt("run", REFUSAL).await?;
            let how = keep.map_or("missing".to_owned(), |keep| format!("cut to {keep} bytes"));
            if code.is_none_or(|code| code == 0) {
                objections.push(format!("{name} {how}: the bridge started nevertheless"));
            }
            if std::fs::read(&file).ok() != harmed {
                objections.push(format!("{name} {how}: overwritten"));
            }
            std::fs::remove_dir_all(&data)?;
            copy(&safe, &data)?;
        }
    }
    rig.launch()?;
    rig.scene.bridge.wait_ready().await?;
    let mut outcome = rig.finish("F09").await?;
    outcome.injections = injections;
    outcome.objections.extend(objections);
    Ok(outcome)
}

async fn forgotten(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let synapse = Synapse::start(Limits::Relaxed).await?;
    let plan = ScenarioOptions {
        delivery: "unknown_after = \"1s\"",
        ..ScenarioOptions::default()
    };
    let rig = FaultScenario::open_on(context, &synapse, plan).await?;
    let homeserver = rig.homeserver()?;
    for _ in 0..context.pick(1, 3, 20) {
        let lost = Fault::DropReply(Cut::Reset);
        homeserver.add(Rule::times("send", Matcher::sends(), lost, 1));
        let before = homeserver.fault_count();
        for _ in 0..4 {
            rig.traffic.say_in_channel(&rig.scene, 0);
        }
        crate::scenario::until(Duration::from_secs(20), || {
            homeserver.fault_count() > before
        })
        .await?;
        homeserver.down().await;
        synapse.stop().await?;
        let database = synapse.database();
        tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            let sql = rusqlite::Connection::open(database)?;
            sql.execute("DELETE FROM event_txn_id_device_id", [])?;
            Ok(())
        })
        .await??;
        synapse.restart().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        homeserver.up().await?;
        rig.arrive(Duration::from_mins(1)).await;
    }
    rig.talk(3, 3.0).await?;
    rig.finish("F16").await
}

/// A mounted file system, unmounted when the row ends, however it ends.
struct Mounted(PathBuf);

impl Mounted {
    fn over(directory: &Path, mebibytes: u32) -> anyhow::Result<Self> {
        let size = format!("size={mebibytes}m");
        let mut mount = std::process::Command::new("mount");
        let status = mount
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory)
            .status()?;
        anyhow::ensure!(
            status.success(),
            "a small file system has to be mounted: run it as root or under `unshare --map-root-user --mount`"
        );
        Ok(Self(directory.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, because a process may still have a file of it open.
        let mut unmount = std::process::Command::new("umount");
        unmount.arg("-l").arg(&self.0).status().ok();
    }
}

async fn full(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    rig.scene.bridge.terminate().await?;
    let data = rig.scene.bridge.data_directory();
    let away = data.with_file_name("away");
    std::fs::rename(&data, &away)?;
    std::fs::DirBuilder::new().mode(0o700).create(&data)?;
    let disk = Mounted::over(&data, 24)?;
    copy(&away.join("."), &data)?;
    // Without a reserve, so that the bridge writes until the disk is full.
    let config = rig.scene.bridge.directory().join("config.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(
        &config,
        text.replace("[store]\n", "[store]\nmin_free_mib = 0\n"),
    )?;
    rig.launch()?;
    rig.scene.bridge.wait_ready().await?;
    let ballast = data.join("ballast");
    let rounds = context.pick(2, 8, 50);
    let work = rig.while_talking(4.0, async {
        for _ in 0..rounds {
            fill(&ballast)?;
            tokio::time::sleep(Duration::from_millis(rand::random_range(500..4_000))).await;
            std::fs::remove_file(&ballast)?;
            tokio::time::sleep(Duration::from_millis(rand::random_range(500..4_000))).await;
        }
        Ok(())
    });
    let ((), ends) = rig.supervised(work).await?;
    let mut outcome = rig.finish("F21").await?;
    rig.scene.bridge.terminate().await?;
    drop(disk);
    outcome.injections = rounds;
    if !ends.is_empty() {
        outcome.object(&format!("it ended by itself, codes {ends:?}"));
    }
    Ok(outcome)
}

/// Writes until the disk is full.
fn fill(ballast: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(ballast)?;
    for size in [1 << 20, 4096] {
        let block = vec![0_u8; size];
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}

async fn busy(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    let database = rig.scene.bridge.data_directory().join("footbridge.db");
    let holds = context.pick(2, 5, 20);
    let longest = context.pick(2_000, 12_000, 30_000);
    let work = rig.while_talking(4.0, async {
        for hold in 0..holds {
            let (file, length) = (
                database.clone(),
                Duration::from_millis(100 + longest * hold / (holds - 1).max(1)),
            );
            tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
                let sql = rusqlite::Connection::open(file)?;
                sql.busy_timeout(Duration::from_secs(30))?;
                sql.execute_batch("BEGIN IMMEDIATE")?;
                std::thread::sleep(length);
                sql.execute_batch("ROLLBACK")?;
                Ok(())
            })
            .await??;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    });
    let ((), ends) = rig.supervised(work).await?;
    rig.scene.bridge.wait_ready().await?;
    let mut outcome = rig.finish("F22").await?;
    outcome.injections = holds;
    outcome.remark = format!("held for up to {} s", (100 + longest) / 1000);
    if !ends.is_empty() {
        outcome.object(&format!("it ended by itself, codes {ends:?}"));
    }
    Ok(outcome)
}

async fn old_copy(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    let data = rig.scene.bridge.data_directory();
    let (old, new) = (data.with_file_name("old"), data.with_file_name("new"));
    let mut codes = Vec::new();
    for round in 0..context.pick(3, 6, 40) {
        let how = round % 3;
        if how == 0 {
            // Most backups are made like this: while the bridge runs.
            let held = rig.scene.bridge.hold_store()?;
            copy(&data, &old)?;
            drop(held);
        } else {
            rig.scene.bridge.terminate().await?;
            copy(&data, &old)?;
            rig.launch()?;
        }
        rig.scene.bridge.wait_ready().await?;
        if how != 1 {
            // New devices use one-time keys, and room keys change: the old copy does not know of that.
            rig.traffic
                .say_as_new_member(&rig.scene, context.synapse)
                .await?;
            rig.traffic.forget_keys(&rig.scene).await?;
            rig.talk(5, 5.0).await?;
            rig.arrive(Duration::from_mins(1)).await;
        }
        rig.scene.bridge.terminate().await?;
        std::fs::rename(&data, &new).context("cannot move the data directory")?;
        std::fs::rename(&old, &data)?;
        rig.traffic.say_in_room(&rig.scene, 0).await?;
        codes.push(rig.scene.bridge.attempt("run", REFUSAL * 2).await?);
        std::fs::remove_dir_all(&data)?;
        std::fs::rename(&new, &data)?;
        rig.launch()?;
        rig.scene.bridge.wait_ready().await?;
    }
    let mut outcome = rig.finish("F24").await?;
    outcome.injections = u64::try_from(codes.len())?;
    let refused = codes.iter().filter(|code| **code == Some(78)).count();
    outcome.note(&format!("{refused} of {} refused with 78", codes.len()));
    if refused < codes.len() {
        outcome.object(&format!("exit codes {codes:?}"));
    }
    Ok(outcome)
}

async fn second(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let rig = FaultScenario::open(context, ScenarioOptions::default()).await?;
    let mut slowest = Duration::ZERO;
    let (mut codes, mut copies) = (Vec::new(), Vec::new());
    rig.while_talking(5.0, async {
        for _ in 0..context.pick(2, 5, 50) {
            let began = Instant::now();
            codes.push(rig.scene.bridge.attempt("run", REFUSAL).await?);
            slowest = slowest.max(began.elapsed());
        }
        Ok(())
    })
    .await?;
    rig.arrive(Duration::from_mins(1)).await;
    for _ in 0..context.pick(1, 3, 20) {
        let held = rig.scene.bridge.hold_store()?;
        let elsewhere = rig.scene.bridge.copy_elsewhere()?;
        drop(held);
        copies.push(elsewhere.attempt("run", REFUSAL * 2).await?);
    }
    rig.talk(3, 3.0).await?;
    let mut outcome = rig.finish("F25").await?;
    outcome.injections = u64::try_from(codes.len() + copies.len())?;
    outcome.remark = format!(
        "{} on the same directory, slowest end {} ms; {} on a copy",
        codes.len(),
        slowest.as_millis(),
        copies.len()
    );
    if codes.iter().chain(&copies).any(|code| *code != Some(75)) {
        outcome.object(&format!("exit codes {codes:?}, on copies {copies:?}"));
    }
    Ok(outcome)
}
