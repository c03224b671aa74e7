//! The content of an arrival: decrypted, waiting for its room key, skipped, or a command to the bridge.

use crate::{Millis, SkipRule};

/// The content of an arrival.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// Decrypted: the neutral message, serialised.
    Ready(Vec<u8>),
    /// Not decryptable yet: the raw event. Its lanes wait for it until `key_wait_until`, then others may pass.
    Undecryptable {
        /// The session whose room key is missing.
        session: String,
        /// The event as received.
        raw: Vec<u8>,
        /// Until when its lanes wait for it.
        key_wait_until: Millis,
    },
    /// Accepted and at once settled as skipped by this rule. Only its id is kept.
    Skipped(SkipRule),
    /// A command to the bridge: settled as skipped (`command`), and kept until it is answered.
    Command(Vec<u8>),
}

impl Payload {
    /// The rule by which it reaches no other place.
    pub(crate) fn skip_rule(&self) -> Option<SkipRule> {
        match self {
            Self::Skipped(rule) => Some(*rule),
            Self::Command(_) => Some(SkipRule::Command),
            Self::Ready(_) | Self::Undecryptable { .. } => None,
        }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready(..)",
            Self::Undecryptable { .. } => "Undecryptable(..)",
            Self::Skipped(_) => "Skipped(..)",
            Self::Command(_) => "Command(..)",
        })
    }
}
