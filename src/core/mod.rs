//! What both sides understand, and how it moves: messages, texts and files, the inbox, the lanes of a portal, budgets.
//! Knows neither Matrix nor any silo.

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
