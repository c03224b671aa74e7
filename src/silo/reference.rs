//! The silos' own grammars, written apart from what we write and read by: whom a text calls there, and what it shows.

pub mod gitter;
pub mod mattermost;

#[cfg(test)]
mod calls_tests;
#[cfg(test)]
mod gitter_html;
#[cfg(test)]
mod gitter_tests;
#[cfg(test)]
mod matterbridge_tests;
#[cfg(test)]
mod shown_tests;
