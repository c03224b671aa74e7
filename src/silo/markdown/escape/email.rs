//! Code that is no part of a mail address.

use super::InlineWriter;
use crate::markdown::Flavour;

/// What Gitter takes for the name in a mail address (`inline.email` of its marked): the mark of code, too.
fn in_mailbox(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c)
}

impl InlineWriter {
    /// Whether Gitter, which looks for mail addresses before it looks for what is struck out, would take the mark of this code
    /// for a part of one. The end of the code would then begin another.
    pub(super) fn extends_email(&self, code: &str) -> bool {
        let name = code.split_once('@').map(|(name, _)| name);
        self.flavour == Flavour::Gitter
            && name.is_some_and(|name| name.chars().all(in_mailbox))
            && self.out.ends_with(in_mailbox)
    }
}
