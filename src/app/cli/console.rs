//! The output streams: answers go to stdout; diagnostics, progress and the log go to stderr.

use std::io::{IsTerminal, Write};

use crate::config::{ColorChoice, Report};

/// Writes an answer to stdout, ending its line.
pub fn say(text: &str) {
    // A reader that closed the pipe (`status | head`) is no error of the program, and nobody is left to report it to.
    let _unread = line(&mut std::io::stdout().lock(), text);
}

/// Writes to stderr, ending its line.
pub fn warn(text: &str) {
    let _unread = line(&mut std::io::stderr().lock(), text);
}

/// Writes a report to stderr, with colours on a terminal.
pub fn print_report(report: &Report) {
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = if coloured {
        ColorChoice::Always
    } else {
        ColorChoice::Never
    };
    warn(&report.render(style));
}

/// Whether a person at a terminal can be asked.
#[must_use]
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn line(stream: &mut impl Write, text: &str) -> std::io::Result<()> {
    stream.write_all(text.trim_end_matches('\n').as_bytes())?;
    stream.write_all(b"\n")?;
    stream.flush()
}
