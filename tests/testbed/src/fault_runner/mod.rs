//! The fault rig: every row of the fault catalogue is a run of the real bridge under numbered messages with one kind of
//! harm, compared at both ends. The tool `faults` runs them and prints one table.

mod side_traffic;
mod outcome;
pub mod rows;
pub mod silos;
pub mod soak;
mod scenario;

use std::path::PathBuf;
use std::pin::Pin;

pub use outcome::{Outcome, table};
pub use scenario::{FaultScenario, ScenarioOptions};

use crate::synapse::Synapse;

/// How much of a row is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Some seconds, for `cargo test`.
    Tiny,
    /// Half a minute or so.
    Small,
    /// As many as the release gate asks for.
    Full,
}

/// What every row needs.
pub struct Context<'a> {
    /// The homeserver of rows that do not harm it.
    pub synapse: &'a Synapse,
    /// The `footbridge` program, built with kill points.
    pub binary: PathBuf,
    /// How much.
    pub size: Size,
    /// For all dice.
    pub seed: u64,
    /// Where the bridge's log and the requests that came by are kept.
    pub keep: Option<PathBuf>,
    /// Hears what is being done.
    pub tell: &'a (dyn Fn(&str) + Sync),
}

impl Context<'_> {
    /// The value for the size that is run.
    pub fn pick<T>(&self, tiny: T, small: T, full: T) -> T {
        match self.size {
            Size::Tiny => tiny,
            Size::Small => small,
            Size::Full => full,
        }
    }

    /// Says what is being done.
    pub fn tell(&self, text: &str) {
        (self.tell)(text);
    }
}

/// The future of a row.
pub type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Outcome>> + 'a>>;

/// One row of the fault catalogue.
pub struct Row {
    /// `F01` …
    pub id: &'static str,
    /// What goes wrong, in a few words.
    pub title: &'static str,
    /// What is done and what must come of it.
    pub help: &'static str,
    /// Runs it.
    pub run: for<'a> fn(&'a Context<'a>) -> Running<'a>,
}
