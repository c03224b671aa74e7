//! The testbed: a throwaway Synapse, the bridge as a process, and test clients. Never shipped.

#![recursion_limit = "512"]
#![expect(
    clippy::disallowed_methods,
    reason = "these rules are for the code of the bridge"
)]

pub mod arguments;
pub mod bridge;
pub mod client;
pub mod console;
pub mod members;
pub mod ports;
pub mod proxy;
pub mod report;
pub mod fault_runner;
pub mod scenario;
pub mod signal;
pub mod synapse;
pub mod multi_silo;
