//! The store on real files: its verbs, what it keeps secret, and what it survives.

// Marked although all of it is a test: the lints read the mark.
#[cfg(test)]
mod ground;
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
mod crossed;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod doors;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod telling;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod unlinked;
#[cfg(test)]
mod hindered;
#[cfg(test)]
mod control;
#[cfg(test)]
mod openings;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod changes;
