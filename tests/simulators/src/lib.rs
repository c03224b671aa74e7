//! Simulators of the silos: what a client of each one's API sees, with its quirks and with faults that a test injects. They
//! know nothing of the bridge. Never shipped.

#![expect(
    clippy::disallowed_methods,
    reason = "these rules are for the code of the bridge"
)]

pub mod call_faults;
pub mod channel;
pub mod connections;
pub mod file_server;
pub mod gitter;
pub mod matterbridge;
pub mod mattermost;
mod server;

/// The register of simulators: one line per kind.
pub static KINDS: &[&channel::SimulatorKind] = &[
    &gitter::SIMULATOR,
    &matterbridge::SIMULATOR,
    &mattermost::SIMULATOR,
];
