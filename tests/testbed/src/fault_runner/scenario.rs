//! The scenario of a row: the bridge between proxies, users in every portal, and the comparison at the end.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{Context, Outcome};
use crate::proxy::{Matcher, Proxy, Rule};
use crate::scenario::{Options, PortalTraffic, Proxies, Scenario};
use crate::synapse::Synapse;

/// How long the last messages may take to arrive after the faults have ended.
const TIMEOUT: Duration = Duration::from_mins(3);
/// How long the row waits for unwanted copies.
const AFTERMATH: Duration = Duration::from_millis(1500);
/// The largest number of pending messages per portal: more would only wait in the queue.
const BACKLOG: usize = 30;

/// The options that differ from row to row.
pub struct ScenarioOptions {
    /// How many portals have numbered messages.
    pub portals: usize,
    /// How many more portals there are, without numbered messages.
    pub spare: usize,
    /// `realtime` or `stream`.
    pub feed: &'static str,
    /// Seconds for which the bridge looks for a copy of a message whose sending was interrupted. The simulator shows
    /// every copy at once, so the smallest allowed value is enough.
    pub settle: &'static str,
    /// More lines for `[[silo]]`.
    pub silo: &'static str,
    /// Whether the rooms are encrypted from the start.
    pub encrypted: bool,
    /// More lines for `[matrix]`.
    pub matrix: &'static str,
    /// Lines for `[delivery]`.
    pub delivery: &'static str,
    /// How many requests the silo allows in a minute.
    pub requests_per_minute: u32,
    /// The value of `FOOTBRIDGE_LOG`.
    pub log_filter: &'static str,
    /// The fault during the bridge's first login, which is killed then.
    pub fault_at_login: Option<Rule>,
}

impl Default for ScenarioOptions {
    fn default() -> Self {
        Self {
            portals: 1,
            spare: 0,
            feed: "realtime",
            settle: "1s",
            silo: "",
            encrypted: true,
            matrix: "",
            delivery: "",
            requests_per_minute: 60_000,
            log_filter: "info",
            fault_at_login: None,
        }
    }
}

/// The bridge, its surroundings, and the users.
pub struct FaultScenario {
    /// The bridge, the homeserver, the silo and the users.
    pub scene: Scenario,
    /// The numbered messages.
    pub traffic: PortalTraffic,
    began: Instant,
    restarts: AtomicU32,
    /// Forged messages that the bridge must hold without end.
    pub held: AtomicU64,
    keep: Option<PathBuf>,
}

impl FaultScenario {
    /// Opens the scenario. The bridge runs, and a first message was relayed each way in every portal.
    pub async fn open(context: &Context<'_>, plan: ScenarioOptions) -> anyhow::Result<Self> {
        Self::open_on(context, context.synapse, plan).await
    }

    /// Like [`Self::open`], on another homeserver.
    pub async fn open_on(
        context: &Context<'_>,
        synapse: &Synapse,
        plan: ScenarioOptions,
    ) -> anyhow::Result<Self> {
        context.tell("Setting the scene");
        let mut options =
            Options::new(context.binary.clone()).with_budget(plan.requests_per_minute);
        options.silo_options = format!(
            "requests_per_minute = {}\nsettle = \"{}\"\nfeed = \"{}\"\n{}",
            plan.requests_per_minute, plan.settle, plan.feed, plan.silo
        );
        plan.matrix.clone_into(&mut options.matrix_options);
        plan.delivery.clone_into(&mut options.delivery_options);
        "users = [\"{ann}\"]\n\n[consent]\ndelay = \"0s\"".clone_into(&mut options.admin_options);
        plan.log_filter.clone_into(&mut options.log_filter);
        options.encrypted = plan.encrypted;
        options.proxies = Some(context.seed);
        options.portals = plan.portals + plan.spare;
        options.fault_at_login = plan.fault_at_login;
        let scene = Scenario::set_up(synapse, options, &|_| ()).await?;
        scene.open().await?;
        let rig = Self {
            traffic: PortalTraffic::in_first(&scene, plan.portals),
            scene,
            began: Instant::now(),
            restarts: AtomicU32::new(0),
            held: AtomicU64::new(0),
            keep: context.keep.clone(),
        };
        // Faults at the first contact are another row.
        rig.traffic
            .talk(&rig.scene, rig.traffic.portals(), 50.0)
            .await?;
        rig.arrive(TIMEOUT).await;
        ensure!(
            rig.traffic.missing(&rig.scene) == 0,
            "the first messages did not arrive\n{}",
            rig.scene.bridge.logs_end()
        );
        context.tell("Doing harm");
        Ok(rig)
    }

    fn proxies(&self) -> anyhow::Result<&Proxies> {
        let proxies = self.scene.proxies.as_ref();
        proxies.context("this scenario has no proxies")
    }

    /// The proxy of the homeserver.
    pub fn homeserver(&self) -> anyhow::Result<&Proxy> {
        Ok(&self.proxies()?.homeserver)
    }

    /// The proxy of Gitter's REST API.
    pub fn api(&self) -> anyhow::Result<&Proxy> {
        Ok(&self.proxies()?.api)
    }

    /// The proxies of Gitter's two feeds.
    pub fn feeds(&self) -> anyhow::Result<[&Proxy; 2]> {
        let proxies = self.proxies()?;
        Ok([&proxies.stream, &proxies.realtime])
    }

    /// All proxies.
    pub fn everywhere(&self) -> anyhow::Result<[&Proxy; 4]> {
        Ok(self.proxies()?.all())
    }

    /// How many faults were injected so far.
    pub fn fault_count(&self) -> anyhow::Result<u64> {
        Ok(self.proxies()?.fault_count())
    }

    /// Sends `each_way` messages each way.
    pub async fn talk(&self, each_way: usize, per_second: f64) -> anyhow::Result<()> {
        self.traffic.talk(&self.scene, each_way, per_second).await
    }

    /// Sends messages both ways during `work`, and a little longer.
    pub async fn while_talking<T>(
        &self,
        per_second: f64,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let stop = AtomicBool::new(false);
        let talking = self.traffic.talk_until(&self.scene, per_second, &stop);
        let work = async {
            let outcome = work.await;
            stop.store(true, Ordering::Relaxed);
            outcome
        };
        let ((), outcome) = tokio::try_join!(talking, work)?;
        Ok(outcome)
    }

    /// Sends messages both ways until so many faults were injected, as fast as messages arrive, but no faster than
    /// this.
    pub async fn talk_until_struck(
        &self,
        strikes: u64,
        per_second: f64,
        longest: Duration,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + longest;
        let block = self.traffic.portals() * 4;
        while self.fault_count()? < strikes && Instant::now() < deadline {
            if self.traffic.missing(&self.scene) > BACKLOG * self.traffic.portals() {
                tokio::time::sleep(Duration::from_millis(300)).await;
                continue;
            }
            self.talk(block, per_second).await?;
        }
        Ok(())
    }

    /// Kills the bridge and starts it again at once.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.scene.bridge.kill().await?;
        self.launch()
    }

    /// Starts the bridge again.
    pub fn launch(&self) -> anyhow::Result<()> {
        self.count_restart();
        self.scene.bridge.launch()
    }

    /// Starts the bridge again so that it aborts at this crash point (see `footbridge_core::crash_points`).
    pub fn launch_armed(&self, point: &str) -> anyhow::Result<()> {
        self.count_restart();
        self.scene.bridge.launch_armed(point)
    }

    /// Waits until the bridge has ended by itself, and clears it away; `None` if it still runs after `patience`.
    pub async fn death(&self, patience: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        while self.scene.bridge.ended()?.is_none() {
            if Instant::now() > deadline {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Some(self.scene.bridge.reap().await?))
    }

    /// Counts a restart that the caller made.
    pub fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs `work` while the bridge is restarted whenever it ends by itself, as a service manager does; returns the
    /// exit codes.
    pub async fn supervised<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(T, Vec<i32>)> {
        let mut ends = Vec::new();
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return Ok((outcome?, ends)),
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            if self.scene.bridge.ended()?.is_some() {
                let status = self.scene.bridge.reap().await?;
                ends.push(status.code().unwrap_or(-1));
                self.launch()?;
            }
        }
    }

    /// Waits until everything has arrived, or until `patience` is over.
    pub async fn arrive(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.traffic.missing(&self.scene) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Ends a row: stops the faults, waits until everything has arrived, and compares what was sent with what arrived.
    pub async fn finish(&self, fault: &'static str) -> anyhow::Result<Outcome> {
        self.finish_within(fault, TIMEOUT).await
    }

    /// Like [`Self::finish`], with another timeout.
    pub async fn finish_within(
        &self,
        fault: &'static str,
        patience: Duration,
    ) -> anyhow::Result<Outcome> {
        self.proxies()?.clear();
        self.arrive(patience).await;
        let mut objections = Vec::new();
        let held = self.held.load(Ordering::Relaxed);
        let settled = self.scene.bridge.settle_but(held, Duration::from_mins(1));
        if let Err(error) = settled.await {
            objections.push(first_line(&error));
        }
        tokio::time::sleep(AFTERMATH).await;
        match self.scene.bridge.conservation().await {
            Ok(tally) if tally.failed > 0 => {
                objections.push(format!("{} messages ended as failed", tally.failed));
            }
            Ok(_) => {}
            Err(error) => objections.push(first_line(&error)),
        }
        if let Some(keep) = &self.keep {
            self.keep_records(keep, fault)?;
        }
        let mut verdict = self.traffic.toward_channels(&self.scene);
        verdict.join(self.traffic.toward_rooms(&self.scene));
        Ok(Outcome {
            fault,
            injections: self.fault_count()?,
            verdict,
            restarts: self.restarts.load(Ordering::Relaxed),
            objections,
            took: self.began.elapsed(),
            ..Outcome::default()
        })
    }
}

impl FaultScenario {
    /// For faults that make messages fail: exactly the messages that did not arrive must have ended as failed.
    pub async fn expect_failures(&self, outcome: &mut Outcome) -> anyhow::Result<()> {
        let failed = self.scene.bridge.conservation().await?.failed;
        let lost = outcome.verdict.lost.len();
        if failed > 0 && usize::try_from(failed).is_ok_and(|failed| failed == lost) {
            outcome.verdict.lost.clear();
            outcome.forgive_failures();
            outcome.note(&format!("{failed} ended as failed, as they must"));
        } else {
            outcome.object(&format!("{lost} did not arrive, {failed} ended as failed"));
        }
        Ok(())
    }

    fn keep_records(&self, directory: &Path, fault: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory)?;
        std::fs::write(
            directory.join(format!("{fault}.log")),
            self.scene.bridge.logs(),
        )?;
        let mut requests = String::new();
        for (name, proxy) in ["homeserver", "api", "stream", "realtime"]
            .into_iter()
            .zip(self.everywhere()?)
        {
            for request in proxy.recorded_requests(self.began, &Matcher::all()) {
                let at = request.at.duration_since(self.began).as_secs_f64();
                let (method, path) = (request.method, request.path);
                writeln!(requests, "{at:9.3} {name} {method} {path}")?;
            }
        }
        std::fs::write(directory.join(format!("{fault}.requests")), requests)?;
        Ok(())
    }
}

/// The first line of an error: the rest is a log.
pub(super) fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().to_owned()
}
