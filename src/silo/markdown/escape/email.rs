//! Code that must not become a part of a mail address.

use super::InlineWriter;

/// What Gitter accepts in the local part of a mail address (`inline.email` of its marked); this includes the mark of
/// code.
fn in_mailbox(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c)
}

impl InlineWriter {
    /// Whether Gitter, which looks for mail addresses before strikethrough, would take the opening mark of this code
    /// for a part of one. The closing mark would then open other code.
    pub(super) fn extends_email(&self, code: &str) -> bool {
        let name = code.split_once('@').map(|(name, _)| name);
        self.rules.addresses_first
            && name.is_some_and(|name| name.chars().all(in_mailbox))
            && self.out.ends_with(in_mailbox)
    }
}
