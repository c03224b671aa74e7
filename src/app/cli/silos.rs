//! `footbridge silos`: what is relayed between a room and each kind of silo.

use footbridge_silo::KINDS;

use super::console;
use crate::config::Exit;

/// Prints the table of each kind for a terminal. It needs no configuration.
pub fn run() -> Exit {
    let tables = KINDS.iter().map(|kind| {
        let (title, word) = (kind.title, kind.word);
        format!("{title} (kind = \"{word}\")\n\n{}", kind.lines())
    });
    console::say(&tables.collect::<Vec<_>>().join("\n"));
    Exit::Fine
}
