//! The testbed: a throwaway Synapse, silo simulators, the bridge as a process, and people who talk. Never shipped.

#![recursion_limit = "512"]

pub mod gitter;
pub mod ports;
pub mod signal;
pub mod synapse;
