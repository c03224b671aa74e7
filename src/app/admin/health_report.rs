//! The response of `/health/ready`, which `footbridge status` reads as well.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

/// The body of `/health/ready`. Ages are in seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HealthReport {
    /// Whether the bridge is ready: nothing below is wrong.
    pub ready: bool,
    /// Which store the bridge uses: the directory's place on this machine. A reader compares it with its own.
    #[serde(default)]
    pub store_place: Option<String>,
    /// Whether the store answers.
    pub store: bool,
    /// `well`, `low` (little disk space: the bridge reads nothing), `full` or `busy` (nothing can be written for now).
    #[serde(default)]
    pub store_state: String,
    /// Free disk space of the store in bytes, if the file system reports it.
    #[serde(default)]
    pub store_free_bytes: Option<u64>,
    /// How long ago the homeserver last answered a sync; absent before the first.
    pub sync_age_seconds: Option<u64>,
    /// Each silo's feed: `live`, `connecting` or `down`.
    pub silos: BTreeMap<String, String>,
    /// How many of each silo's channels are closed to the account.
    #[serde(default)]
    pub channels_closed: BTreeMap<String, usize>,
    /// How many portals have a room that does not let the account in: the account is not in it, or may not write the
    /// pending messages.
    #[serde(default)]
    pub rooms_closed: usize,
    /// Portals of the configuration and of the command line.
    pub portals: usize,
    /// How many of them run.
    pub portals_running: usize,
    /// Age of the oldest pending message, without those of portals on hold.
    pub oldest_pending_seconds: Option<u64>,
    /// Accounts that the other side rate-limits at the moment.
    #[serde(default)]
    pub limited: Vec<Limited>,
    /// When lanes of such accounts will be empty, where that can be estimated.
    #[serde(default)]
    pub backlogs: Vec<Backlog>,
    /// Security rejections since the start, by class.
    #[serde(default)]
    pub security: BTreeMap<String, u64>,
    /// Events that the homeserver's syncs left out and audits found, since the start.
    #[serde(default)]
    pub missed_events: u64,
    /// Answers withheld since the start because somebody asked too often, by network.
    #[serde(default)]
    pub answers_withheld: BTreeMap<String, u64>,
    /// Notices withheld since the start because there were too many of them.
    #[serde(default)]
    pub notices_withheld: u64,
}

/// The identity of a directory, whatever path names it: `device:inode`. `None` where the directory does not exist.
#[must_use]
pub fn place_of(directory: &Path) -> Option<String> {
    let metadata = std::fs::metadata(directory).ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// An account that the other side rate-limits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Limited {
    /// `matrix`, or the silo's name.
    pub account: String,
    /// Seconds from one event to the next; absent until it is known.
    pub seconds_per_event: Option<f64>,
    /// How many messages an event has carried lately, on average.
    pub messages_per_event: f64,
}

/// The backlog of a lane of a rate-limited account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Backlog {
    /// The portal.
    pub portal: i64,
    /// `matrix` or `silo`.
    pub toward: String,
    /// An estimate at the current pace.
    pub empty_after_seconds: u64,
}
