//! The one integration binary: the bridge against a real Synapse, the silo's simulator and real files.

mod house_rules;
mod lanes;
mod bad_input;
mod example_config;
mod commands;
mod silo_contract;
mod gitter;
mod matrix;
