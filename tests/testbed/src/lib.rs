//! Throwaway surroundings for the bridge: never shipped.

pub mod gitter;
