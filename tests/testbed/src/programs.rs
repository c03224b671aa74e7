//! The programs of the testbed, one per subcommand.

pub mod bench;
pub mod burst;
pub mod crossing;
pub mod demo;
pub mod faults;
pub mod gitter_sim;
pub mod kills;
pub mod many;
pub mod mattermost_sim;
