//! The silos' own grammars, written independently of the bridge's reader and writer: whom a text mentions there, and
//! what the silo shows.

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
