//! Memory and CPU time of a process, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// Linux counts CPU time for user space in hundredths of a second, on every architecture.
const MILLISECONDS_PER_TICK: u64 = 10;

/// The resources that a process uses.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Resident memory in KiB.
    pub resident_kib: u64,
    /// The part of it that the process allocated, without the pages of programs and files, in KiB.
    pub anonymous_kib: u64,
    /// The largest resident memory so far, in KiB.
    pub peak_kib: u64,
    /// User and system time since it started.
    pub cpu: Duration,
    /// Open files and sockets.
    pub files: usize,
}

impl Usage {
    /// Resets the peak (`proc(5)`, `clear_refs`).
    pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
        let path = format!("/proc/{pid}/clear_refs");
        fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
    }

    /// Reads the usage of a process on this machine. Linux only.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let status = read("status")?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Ok(Self {
            resident_kib: kib(&status, "VmRSS:").context("the process has no memory")?,
            anonymous_kib: kib(&status, "RssAnon:").unwrap_or_default(),
            peak_kib: kib(&status, "VmHWM:").unwrap_or_default(),
            cpu: cpu(&read("stat")?).context("cannot parse /proc")?,
            files,
        })
    }
}

fn kib(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time are the 14th and 15th field. The second field, the name, may contain blanks, but it ends at the
/// last bracket.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * MILLISECONDS_PER_TICK,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_blanks() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 500 0 0 0 150 25 0 0 20 0 5 0 100 1000 200";
        assert_eq!(cpu(stat), Some(Duration::from_millis(1750)));
    }

    #[test]
    fn our_own_process_uses_memory() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(
            usage.resident_kib > 500 && usage.peak_kib >= usage.resident_kib && usage.files >= 3
        );
    }
}
