//! Runs the rows of the fault catalogue: each is a run of the real bridge under numbered messages with one kind of
//! fault, compared at both ends. The program `faults` runs them and prints one table.

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
    /// About half a minute.
    Small,
    /// As many faults as the release gate requires.
    Full,
}

/// What every row needs.
pub struct Context<'a> {
    /// The homeserver of the rows that inject no faults into it.
    pub synapse: &'a Synapse,
    /// The `footbridge` program, built with crash points.
    pub binary: PathBuf,
    /// How many faults.
    pub size: Size,
    /// The seed of all random choices.
    pub seed: u64,
    /// The directory for the bridge's log and the list of its requests.
    pub keep: Option<PathBuf>,
    /// Called with what is being done.
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

    /// Reports what is being done.
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
    /// The fault, in a few words.
    pub title: &'static str,
    /// What the row does, and what the bridge must do.
    pub help: &'static str,
    /// Runs it.
    pub run: for<'a> fn(&'a Context<'a>) -> Running<'a>,
}
