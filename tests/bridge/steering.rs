//! What people see of a failure and what they can do about it, between a real Synapse and the Gitter simulator.
