//! Footbridge joins end-to-end encrypted Matrix rooms to chat apps, as an ordinary client.

// The SDK's futures are deep.
#![recursion_limit = "512"]

// The heart: what both sides understand, and how it moves.
pub mod message;
pub mod text;
pub mod names;
pub mod people;
pub mod file;
pub mod spool;
pub mod picture;
pub mod links;
pub mod origin;
pub mod facts;
pub mod outlet;
pub mod http;
pub mod serve;
pub mod fetch;
pub mod reactions;
pub mod inbox;
pub mod portal;
pub mod backoff;
pub mod bounded;
pub mod budget;
pub mod buckets;
pub mod causes;
pub mod clock;
pub mod secret;
pub mod crash;

// The edges.
pub mod matrix;
pub mod silo;
pub mod admin;
pub mod gateway;
pub mod control;

// The frame.
pub mod config;
pub mod bridge;
pub mod shutdown;
pub mod cli;

// What strangers can send, for the fuzz targets.
#[cfg(any(test, feature = "testbed"))]
pub mod fuzz;
