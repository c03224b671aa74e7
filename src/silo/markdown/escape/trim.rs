//! Blanks at the ends of text between marks.

use super::{InlineWriter, ZERO_WIDTH_SPACE, rules::is_ascii_space};

impl InlineWriter {
    /// Removes the blanks from the ends of the text after this mark. A leading one moves in front of the mark: it may
    /// be there to end a URL.
    pub(super) fn trim_behind(&mut self, mark: &str, inner_at: usize) {
        let written = self.out.split_off(inner_at);
        let mark_at = self.out.len().saturating_sub(mark.len());
        let before = self
            .out
            .get(..mark_at)
            .and_then(|out| out.chars().next_back());
        if written.starts_with(char::is_whitespace) && before.is_some_and(|c| !is_ascii_space(c)) {
            self.out.insert(mark_at, ' ');
        }
        let written = written.trim();
        if mark == "~~" && self.rules.addresses_first && written.starts_with('`') {
            // Gitter would look for a mail address first.
            self.out.push(ZERO_WIDTH_SPACE);
        }
        self.out.push_str(written);
    }
}
