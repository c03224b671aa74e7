//! The output of demo, kills and bench: steps with the time they took, lines, and bold text where the terminal can show
//! it.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The width of every line.
pub const WIDTH: usize = 100;

/// Standard output.
pub struct Console {
    weight: bool,
    /// When the current step began; its line is completed when the step ends.
    step: Mutex<Option<Instant>>,
}

impl Console {
    /// Plain, unless standard output is a terminal that supports styles.
    #[must_use]
    pub fn new() -> Self {
        let weight = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            weight,
            step: Mutex::default(),
        }
    }

    /// Begins a step; the previous step has ended.
    pub fn step(&self, text: &str) {
        self.end_step();
        write(&format!("  {text:<80}"));
        *self.lock() = Some(Instant::now());
    }

    /// Ends the last step.
    pub fn end_step(&self) {
        if let Some(began) = self.lock().take() {
            write(&format!("{:>8.1} s\n", began.elapsed().as_secs_f64()));
        }
    }

    /// Prints a line.
    pub fn line(&self, text: &str) {
        self.end_step();
        write(&format!("{text}\n"));
    }

    /// Prints a heading, with a rule to the end of the line.
    pub fn heading(&self, text: &str) {
        let rule = "─".repeat(WIDTH.saturating_sub(text.chars().count() + 6));
        self.line(&format!("\n  {} {rule}\n", self.strong(text)));
    }

    /// Bold, on a terminal.
    #[must_use]
    pub fn strong(&self, text: &str) -> String {
        self.with("1", text)
    }

    /// Faint, on a terminal.
    #[must_use]
    pub fn faint(&self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.weight {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that closed the pipe is no reason to stop the program.
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .ok();
}

/// At most `width` characters, on one line.
#[must_use]
pub fn clip(text: &str, width: usize) -> String {
    let text = text.replace(['\n', '\r', '\t'], " ");
    if text.chars().count() <= width {
        return text;
    }
    text.chars()
        .take(width.saturating_sub(1))
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::clip;

    #[test]
    fn a_clipped_text_is_one_line_of_its_width() {
        assert_eq!(clip("ab\ncd", 5), "ab cd");
        assert_eq!(clip("abcdef", 5), "abcd…");
        assert_eq!(clip("äöüßéè", 5).chars().count(), 5);
    }
}
