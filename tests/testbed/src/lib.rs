//! The testbed: a throwaway Synapse, silo simulators, the bridge as a process, and people who talk. Never shipped.

#![recursion_limit = "512"]
#![expect(clippy::disallowed_methods, reason = "the testbed is its own frame")]

pub mod arguments;
pub mod bridge;
pub mod console;
pub mod gitter;
pub mod matterbridge;
pub mod mattermost;
pub mod members;
pub mod ports;
pub mod proxy;
pub mod report;
pub mod rig;
pub mod scenario;
pub mod shelf;
pub mod signal;
mod strikes;
pub mod synapse;
pub mod town;
