//! The store on real files: its verbs, what it keeps secret, and what it survives.

mod ground;

mod conservation;
mod disk;
mod doors;
mod secrets;
mod verbs;
