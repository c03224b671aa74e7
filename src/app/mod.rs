//! Footbridge links end-to-end encrypted Matrix rooms to chat apps, as an ordinary client.

// The types of the SDK's futures are deeply nested.
#![recursion_limit = "512"]

// What people and machines ask a running bridge for.
pub mod admin;
pub mod media_gateway;
pub mod control;

// What runs the bridge.
pub mod config;
pub mod bridge;
pub mod shutdown;
pub mod cli;

// Parsers of what strangers can send, for the fuzz targets.
#[cfg(any(test, feature = "testbed"))]
pub mod fuzz;
