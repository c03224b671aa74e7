//! The processes of a running Synapse: the server and its keeper, which kills the server when this end of a pipe
//! closes.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, bail};

pub(super) struct Running {
    keeper: Child,
    /// Closing it makes the keeper kill the server.
    leash: Option<ChildStdin>,
    pid: u32,
    home: PathBuf,
}

impl Running {
    pub(super) fn spawn(python: &Path, home: &Path, config: &[PathBuf]) -> anyhow::Result<Self> {
        let log = File::create(home.join("output.log"))?;
        let mut command = Command::new(python);
        command.arg("-c").arg(include_str!("keeper.py")).arg(home);
        for file in config {
            command.arg("-c").arg(file);
        }
        // Its own process group: Ctrl-C in a terminal reaches only this process, which then ends the server.
        command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut keeper = command
            .spawn()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let leash = keeper.stdin.take();
        let mut line = String::new();
        if let Some(output) = keeper.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let mut running = Self {
            keeper,
            leash,
            pid: 0,
            home: home.to_owned(),
        };
        let Ok(pid) = line.trim().parse() else {
            running.keeper.wait()?;
            bail!("Synapse could not be started\n{}", running.last_words())
        };
        running.pid = pid;
        Ok(running)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The last lines of the server's output, if it has ended by itself.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.keeper.try_wait()?.map(|_| self.last_words()))
    }

    /// The last lines that the server printed and logged.
    pub(super) fn last_words(&self) -> String {
        let mut words = String::new();
        for name in ["output.log", "synapse.log"] {
            let text = std::fs::read_to_string(self.home.join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(15)) {
                words.push_str(line);
                words.push('\n');
            }
        }
        words
    }

    /// Stops the server with SIGTERM and waits for it. Blocks.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        if let Some(leash) = self.leash.as_mut() {
            leash
                .write_all(b"stop\n")
                .context("the keeper of Synapse has ended")?;
        }
        self.keeper.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.leash = None;
        // A keeper that ended before has nothing left to report.
        self.keeper.wait().ok();
    }
}
