//! `footbridge silos`: what crosses between a room and each kind of silo.

use super::console;
use crate::{config::Exit, silo::KINDS};

/// Prints one table per kind. It needs no configuration.
pub fn run() -> Exit {
    let tables = KINDS.iter().map(|kind| {
        let (title, word) = (kind.title, kind.word);
        format!("{title} (kind = \"{word}\")\n\n{}", kind.table())
    });
    console::say(&tables.collect::<Vec<_>>().join("\n"));
    Exit::Fine
}
