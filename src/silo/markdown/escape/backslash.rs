//! Literal backslashes.

use super::InlineWriter;

/// What no backslash escapes.
pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

impl InlineWriter {
    /// Before a letter or a digit a backslash is literal in every grammar, and Mattermost shows both of two there.
    /// Before anything else it is doubled.
    pub(super) fn backslash(&mut self, next: Option<char>) {
        self.out.push('\\');
        if !next.is_some_and(is_word) {
            self.out.push('\\');
            self.twice_at = Some(self.out.len());
        }
    }

    /// Undoes the doubling before a letter that follows in another piece of text.
    pub(super) fn before_word(&mut self) {
        if self.twice_at == Some(self.out.len()) && self.out.ends_with('\\') {
            self.out.pop();
        }
    }
}
