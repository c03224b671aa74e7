//! Wiring: opens the store, builds both sides, starts every task.
