//! What an arrival says: readable, waiting for its key, kept where it is, or asked of the bridge itself.

use crate::Millis;

/// The letter in the envelope.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// Readable: the neutral message, serialised.
    Ready(Vec<u8>),
    /// Not decryptable yet: the raw event. Its lanes hold at it until `hold_until`, then let others pass.
    Waiting {
        /// The session whose key is missing.
        session: String,
        /// The event as received.
        raw: Vec<u8>,
        /// How long its lanes wait for it.
        hold_until: Millis,
    },
    /// Accepted and at once settled as skipped by this rule. Nothing is kept of it but its id.
    Skipped(&'static str),
    /// Something asked of the bridge itself: settled as skipped (`command`), and kept until it is answered.
    Command(Vec<u8>),
}

impl Payload {
    /// The rule by which it reaches no other place.
    pub(crate) fn skipped_by(&self) -> Option<&'static str> {
        match self {
            Self::Skipped(rule) => Some(rule),
            Self::Command(_) => Some("command"),
            Self::Ready(_) | Self::Waiting { .. } => None,
        }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready(..)",
            Self::Waiting { .. } => "Waiting(..)",
            Self::Skipped(_) => "Skipped(..)",
            Self::Command(_) => "Command(..)",
        })
    }
}
