//! The one integration binary: the bridge against a real Synapse, the silos' simulators and real files.

// Marked although all of it is a test: the lints read the mark.
#[cfg(test)]
mod house_rules;
#[cfg(test)]
mod ci;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod lane_failures;
#[cfg(test)]
mod failure_notices;
#[cfg(test)]
mod bundling;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod example_config;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod command_lines;
#[cfg(test)]
mod content;
#[cfg(test)]
mod silo_contract;
#[cfg(test)]
mod files;
#[cfg(test)]
mod history;
#[cfg(test)]
mod links;
#[cfg(test)]
mod pictures;
#[cfg(test)]
mod reactions;
#[cfg(test)]
mod gitter;
#[cfg(test)]
mod gitter_windows;
#[cfg(test)]
mod gitter_wire;
#[cfg(test)]
mod matterbridge;
#[cfg(test)]
mod mattermost;
#[cfg(test)]
mod conversation;
#[cfg(test)]
mod fan_out;
#[cfg(test)]
mod faulty_server;
#[cfg(test)]
mod two_bridges;
#[cfg(test)]
mod message_kinds;
#[cfg(test)]
mod room_profiles;
#[cfg(test)]
mod silos;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod whole_bridge;
#[cfg(test)]
mod persons;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod lifetime;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod environment_faults;
#[cfg(test)]
mod at_rest;
#[cfg(test)]
mod burst;
#[cfg(test)]
mod control;
