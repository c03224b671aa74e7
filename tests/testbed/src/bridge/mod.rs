//! The bridge as its operator runs it: the real program with a real configuration, in its own process, which tests can
//! start, query, kill and start again.

pub mod build;
mod configuration;
mod metrics;
mod usage;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

pub use configuration::{PortalSetup, Setup, SiloAccess, SiloSetup};
pub use metrics::{Metrics, Tally};
pub use usage::Usage;

use crate::ports::free_port;

/// How long the bridge may take to start on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(2);

/// The bridge's directory and, while the bridge runs, its process. Dropping it kills the process and removes the
/// directory.
pub struct BridgeProcess {
    // First, because fields are dropped in this order.
    running: Mutex<Option<Running>>,
    directory: TempDir,
    binary: PathBuf,
    log_filter: String,
    admin: u16,
    http: reqwest::Client,
}

struct Running {
    child: Child,
    pid: u32,
    /// A shell that kills the bridge when this end of its pipe closes, in case the test process is killed first.
    leash: Child,
}

impl BridgeProcess {
    /// Writes the configuration and its secrets into a new directory. Starts nothing.
    pub fn prepare(setup: &Setup) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("footbridge-bridge-")
            .tempdir()?;
        let admin = free_port()?;
        configuration::write(directory.path(), setup, admin)
            .context("cannot write the configuration of the bridge")?;
        Ok(Self {
            directory,
            binary: setup.binary.clone(),
            log_filter: setup.log_filter.clone(),
            admin,
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(10))
                .build()?,
            running: Mutex::default(),
        })
    }

    /// Copies this bridge with all of its files into another directory, with another admin address.
    pub fn copy_elsewhere(&self) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("footbridge-copy-")
            .tempdir()?;
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(self.directory.path().join("."))
            .arg(directory.path())
            .status()?;
        anyhow::ensure!(copied.success(), "cannot copy the bridge's directory");
        let admin = free_port()?;
        let file = directory.path().join("config.toml");
        let config = std::fs::read_to_string(&file)?;
        let config = config.replace(&format!(":{}\"", self.admin), &format!(":{admin}\""));
        std::fs::write(&file, config)?;
        Ok(Self {
            directory,
            binary: self.binary.clone(),
            log_filter: self.log_filter.clone(),
            admin,
            http: self.http.clone(),
            running: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> anyhow::Result<Running> {
        self.lock().take().context("the bridge is not running")
    }

    fn command(&self, verb: &str) -> anyhow::Result<Command> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        let mut command = Command::new(&self.binary);
        command
            .arg("--config")
            .arg(self.directory.path().join("config.toml"))
            .arg(verb)
            .env("FOOTBRIDGE_LOG", &self.log_filter)
            .env_remove("FOOTBRIDGE_SYNAPSE_PYTHON")
            .process_group(0)
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }

    /// Runs `footbridge login`; returns its output, which contains the recovery key.
    pub async fn login(&self) -> anyhow::Result<String> {
        self.run("login").await
    }

    /// Runs any other command to its end; returns its output.
    pub async fn run(&self, verb: &str) -> anyhow::Result<String> {
        let output = self
            .command(verb)?
            .output()
            .await
            .context("cannot run the bridge")?;
        if !output.status.success() {
            bail!(
                "footbridge {verb} failed, {}\n{}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr),
                self.logs_end()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command that is expected to end by itself; returns its exit code, or `None` if it still runs after
    /// `patience`.
    pub async fn attempt(&self, verb: &str, patience: Duration) -> anyhow::Result<Option<i32>> {
        let mut command = self.command(verb)?;
        let mut child = command.stdout(Stdio::null()).spawn()?;
        if let Ok(status) = tokio::time::timeout(patience, child.wait()).await {
            return Ok(Some(status?.code().unwrap_or(-1)));
        }
        child.kill().await?;
        Ok(None)
    }

    /// A command with more than one word, for tests that handle its input and output themselves.
    pub fn prepare_command(&self, words: &[&str]) -> anyhow::Result<Command> {
        let (first, rest) = words.split_first().context("no command")?;
        let mut command = self.command(first)?;
        command.args(rest);
        Ok(command)
    }

    /// Runs a command with more than one word to its end; returns its exit code and its output.
    pub async fn output(&self, words: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let child = self
            .prepare_command(words)?
            .stdout(Stdio::piped())
            .spawn()?;
        // Not `output`, because it would capture stderr, which belongs in the log.
        let output = child.wait_with_output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code(), text))
    }

    /// Runs a command with more than one word, which must succeed; returns its output.
    pub async fn run_words(&self, words: &[&str]) -> anyhow::Result<String> {
        let (code, text) = self.output(words).await?;
        if code != Some(0) {
            bail!("footbridge {words:?} failed, {code:?}\n{}", self.logs_end());
        }
        Ok(text)
    }

    /// Runs `footbridge` with these words so that it aborts at this crash point (see `footbridge_core::crash_points`);
    /// returns the exit code.
    pub async fn output_armed(&self, words: &[&str], point: &str) -> anyhow::Result<Option<i32>> {
        let mut command = self.prepare_command(words)?;
        command.env(footbridge_core::crash_points::VARIABLE, point);
        let mut child = command.stdout(Stdio::null()).spawn()?;
        Ok(child.wait().await?.code())
    }

    /// Runs a command and kills it as soon as the condition is true; fails if the command ends before, or takes too
    /// long.
    pub async fn kill_when(&self, verb: &str, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
        let mut child = self.command(verb)?.stdout(Stdio::null()).spawn()?;
        let deadline = Instant::now() + TIMEOUT;
        while !is_so() {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "footbridge {verb} ended by itself, {status}\n{}",
                    self.logs_end()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "footbridge {verb} did not get that far\n{}",
                    self.logs_end()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(child.kill().await?)
    }

    /// Adds a line below `[admin]` of the configuration.
    pub fn configure_admin(&self, line: &str) -> anyhow::Result<()> {
        let file = self.directory.path().join("config.toml");
        let config = std::fs::read_to_string(&file)?;
        let config = config.replace("[admin]\n", &format!("[admin]\n{line}\n"));
        Ok(std::fs::write(&file, config)?)
    }

    /// Starts `footbridge run` and returns at once.
    pub fn launch(&self) -> anyhow::Result<()> {
        self.launch_with(None)
    }

    /// Starts `footbridge run` with a clock that is `offset` seconds wrong (see `footbridge_core::clock`).
    pub fn launch_at(&self, offset: i64) -> anyhow::Result<()> {
        self.launch_with(Some((footbridge_core::clock::OFFSET, &offset.to_string())))
    }

    /// Starts `footbridge run` so that it aborts at this crash point (see `footbridge_core::crash_points`).
    pub fn launch_armed(&self, point: &str) -> anyhow::Result<()> {
        self.launch_with(Some((footbridge_core::crash_points::VARIABLE, point)))
    }

    fn launch_with(&self, variable: Option<(&str, &str)>) -> anyhow::Result<()> {
        let mut running = self.lock();
        if running.is_some() {
            bail!("the bridge is running already");
        }
        let mut command = self.command("run")?;
        command.envs(variable);
        let child = command
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run the bridge")?;
        let pid = child.id().context("the bridge ended at once")?;
        let leash = Command::new("sh")
            .args(["-c", "read -r _; kill -KILL \"$0\"", &pid.to_string()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run a shell")?;
        *running = Some(Running { child, pid, leash });
        Ok(())
    }

    /// Starts `footbridge run` and waits until it is ready.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.launch()?;
        self.wait_ready().await
    }

    /// Waits until `/health/ready` answers with success.
    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let state = self.ask("/health/ready").await;
            if matches!(&state, Ok((true, _))) {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                bail!("the bridge ended by itself, {status}\n{}", self.logs_end());
            }
            if Instant::now() > deadline {
                let state = state.map(|(_, text)| text).unwrap_or_default();
                bail!(
                    "the bridge is not ready after two minutes: {state}\n{}",
                    self.logs_end()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether `/health/ready` answers with success now.
    pub async fn is_ready(&self) -> anyhow::Result<bool> {
        Ok(self.ask("/health/ready").await?.0)
    }

    async fn ask(&self, path: &str) -> anyhow::Result<(bool, String)> {
        let answer = self
            .http
            .get(format!("{}{path}", self.admin_url()))
            .send()
            .await?;
        Ok((answer.status().is_success(), answer.text().await?))
    }

    /// The exit status, if the process has ended by itself.
    pub fn ended(&self) -> anyhow::Result<Option<ExitStatus>> {
        match self.lock().as_mut() {
            Some(running) => Ok(running.child.try_wait()?),
            None => bail!("the bridge is not running"),
        }
    }

    /// Sends SIGKILL, so that the bridge cannot write anything any more. Returns when the process has ended.
    pub async fn kill(&self) -> anyhow::Result<()> {
        let mut running = self.take()?;
        running.leash.kill().await?;
        running.child.kill().await?;
        Ok(())
    }

    /// Waits for a process that ends by itself, and clears it away.
    pub async fn reap(&self) -> anyhow::Result<ExitStatus> {
        let mut running = self.take()?;
        running.leash.kill().await?;
        Ok(running.child.wait().await?)
    }

    /// Sends SIGTERM, as a service manager does; returns the exit status.
    pub async fn terminate(&self) -> anyhow::Result<ExitStatus> {
        let mut running = self.take()?;
        running.leash.kill().await?;
        crate::signal::send(running.pid, "-TERM")?;
        let ended = tokio::time::timeout(TIMEOUT, running.child.wait()).await;
        ended
            .context("the bridge does not stop")?
            .context("the bridge has no process")
    }

    /// The process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(|running| running.pid)
    }

    /// Everything that it logged, over all of its runs.
    #[must_use]
    pub fn logs(&self) -> String {
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("bridge.log")
    }

    /// The last lines that it logged.
    #[must_use]
    pub fn logs_end(&self) -> String {
        let logs = self.logs();
        let lines: Vec<&str> = logs.lines().collect();
        lines
            .get(lines.len().saturating_sub(20)..)
            .unwrap_or_default()
            .join("\n")
    }

    /// The directory with the configuration, the secrets, the data and the log.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The bridge's data directory: the store and the SDK's databases.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Holds the write lock of the bridge's database, as a backup might, until the result is dropped.
    pub fn hold_store(&self) -> anyhow::Result<rusqlite::Connection> {
        let path = self.data_directory().join("footbridge.db");
        let connection = rusqlite::Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(connection)
    }

    /// The base URL of health and metrics: `http://127.0.0.1:port`.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin)
    }

    /// The current samples of `/metrics`.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        let (_, text) = self
            .ask("/metrics")
            .await
            .context("the bridge shows no metrics")?;
        Ok(Metrics::parse(&text))
    }

    /// The current text of `/metrics`.
    pub async fn metrics_text(&self) -> anyhow::Result<String> {
        Ok(self.ask("/metrics").await?.1)
    }

    /// Fails unless `accepted = delivered + skipped + failed + pending` in every lane; returns the sums.
    pub async fn conservation(&self) -> anyhow::Result<Tally> {
        self.metrics().await?.conservation()
    }

    /// Waits until no message is pending.
    pub async fn settle(&self, patience: Duration) -> anyhow::Result<()> {
        self.settle_but(0, patience).await
    }

    /// Waits until exactly `held` messages are pending, those that the bridge must hold.
    pub async fn settle_but(&self, held: u64, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let pending = self.metrics().await?.sum("footbridge_pending");
            if pending == held {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{pending} messages are still pending\n{}", self.logs_end());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The current usage; the peak is measured anew from now on.
    pub fn usage_anew(&self) -> anyhow::Result<Usage> {
        let usage = self.usage()?;
        Usage::forget_peak(self.pid().context("the bridge is not running")?)?;
        Ok(usage)
    }

    /// Memory and CPU time of the running process.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.pid().context("the bridge is not running")?)
    }
}
