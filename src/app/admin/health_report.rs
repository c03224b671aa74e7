//! What `/health/ready` answers, as `footbridge status` reads it back.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

/// The body of `/health/ready`. Ages are in seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HealthReport {
    /// Whether all of it is well.
    pub ready: bool,
    /// Which store it is: the directory's place on this machine. Who reads this compares it with its own.
    #[serde(default)]
    pub store_place: Option<String>,
    /// Whether the store answers.
    pub store: bool,
    /// `well`, `low` (little space: nothing is read), `full` or `busy` (nothing can be written for now).
    #[serde(default)]
    pub store_state: String,
    /// Free space where the store is, in bytes, where the file system tells.
    #[serde(default)]
    pub store_free_bytes: Option<u64>,
    /// How long ago the homeserver last answered a sync; absent before the first.
    pub sync_age_seconds: Option<u64>,
    /// Each silo's feed: `live`, `connecting` or `down`.
    pub silos: BTreeMap<String, String>,
    /// How many of each silo's channels are closed to the account.
    #[serde(default)]
    pub channels_closed: BTreeMap<String, usize>,
    /// How many portals' rooms do not let the account in: it is not in them, or may not write what waits for them.
    #[serde(default)]
    pub rooms_closed: usize,
    /// Portals that the configuration has.
    pub portals: usize,
    /// Of those, the ones that run.
    pub portals_running: usize,
    /// Age of the oldest message still owed to anyone.
    pub oldest_pending_seconds: Option<u64>,
    /// Accounts that the other side wants slower at the moment.
    #[serde(default)]
    pub limited: Vec<Limited>,
    /// When lanes of such accounts will be empty, as far as it can be told.
    #[serde(default)]
    pub backlogs: Vec<Backlog>,
    /// What was refused for the sake of trust since the start, by class.
    #[serde(default)]
    pub security: BTreeMap<String, u64>,
    /// Events that the homeserver's syncs left out and audits found, since the start.
    #[serde(default)]
    pub missed_events: u64,
    /// Answers that were left out since the start because somebody asked too often, by network.
    #[serde(default)]
    pub answers_withheld: BTreeMap<String, u64>,
    /// Notices that were put off since the start because there were too many of them.
    #[serde(default)]
    pub notices_withheld: u64,
}

/// Where a directory is, however it is called: `device:inode`. `None` where there is none.
#[must_use]
pub fn place_of(directory: &Path) -> Option<String> {
    let facts = std::fs::metadata(directory).ok()?;
    Some(format!("{}:{}", facts.dev(), facts.ino()))
}

/// An account that the other side wants slower.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Limited {
    /// `matrix`, or the silo's name.
    pub account: String,
    /// From one event to the next; absent until it is learnt.
    pub seconds_per_event: Option<f64>,
    /// How many messages an event has carried lately.
    pub messages_per_event: f64,
}

/// What a lane of a limited account still has before it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Backlog {
    /// The portal.
    pub portal: i64,
    /// `matrix` or `silo`
    pub toward: String,
    /// An estimate, at the pace of now.
    pub empty_after_seconds: u64,
}
