//! The store on real files: its operations, what it keeps secret, and which failures it survives.

// Marked although all of it is a test: the lints read the mark.
#[cfg(test)]
mod support;
#[cfg(test)]
mod arriving;
#[cfg(test)]
mod delivering;
#[cfg(test)]
mod failing;
#[cfg(test)]
mod files;
#[cfg(test)]
mod bundles;
#[cfg(test)]
mod conservation;
#[cfg(test)]
mod delivered_texts;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod opening_the_store;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod undecryptable_notices;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod before_link;
#[cfg(test)]
mod transient_errors;
#[cfg(test)]
mod control;
#[cfg(test)]
mod link_barriers;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod changes;
