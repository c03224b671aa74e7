//! The parts that both sides share: messages, texts and files, the inbox, the lanes of a portal, budgets. Knows neither Matrix
//! nor any silo.

pub mod message;
pub mod text;
pub mod names;
pub mod persons;
pub mod file;
pub mod spool;
pub mod image;
pub mod media_links;
pub mod peer_bridges;
pub mod room_profile;
pub mod capabilities;
pub mod render;
pub mod plan;
pub mod outlet;
pub mod http_client;
pub mod http_server;
pub mod media_fetcher;
pub mod reactions;
pub mod inbox;
pub mod lane;
pub mod backoff;
pub mod bounded;
pub mod budget;
pub mod rate_limiter;
pub mod error_chain;
pub mod clock;
pub mod secret;
pub mod config_keys;
pub mod crash_points;
