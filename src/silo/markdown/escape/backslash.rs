//! Backslashes that mean themselves.

use super::InlineWriter;

/// What no backslash escapes.
pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

impl InlineWriter {
    /// Before a letter or a digit a backslash means itself in every grammar, and Mattermost shows both of two there. Before
    /// anything else it is written twice.
    pub(super) fn backslash(&mut self, next: Option<char>) {
        self.out.push('\\');
        if !next.is_some_and(is_word) {
            self.out.push('\\');
            self.twice_at = Some(self.out.len());
        }
    }

    /// A letter follows in another run of text.
    pub(super) fn before_word(&mut self) {
        if self.twice_at == Some(self.out.len()) && self.out.ends_with('\\') {
            self.out.pop();
        }
    }
}
