//! Footbridge joins end-to-end encrypted Matrix rooms to chat apps, as an ordinary client.

// The SDK's futures are deep.
#![recursion_limit = "512"]

// What people and machines ask of a running bridge.
pub mod admin;
pub mod media_gateway;
pub mod control;

// The frame.
pub mod config;
pub mod bridge;
pub mod shutdown;
pub mod cli;

// What strangers can send, for the fuzz targets.
#[cfg(any(test, feature = "testbed"))]
pub mod fuzz;
