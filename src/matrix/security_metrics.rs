//! Counters of what the trust policy refused, by class: numbers that should not grow. No ids.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use footbridge_store::SkipRule;

/// A class of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecurityClass {
    /// A message from a device that its owner has not signed.
    UntrustedDevice,
    /// A message of a user whose identity changed, held until an admin has approved the identity.
    IdentityChanged,
    /// A message whose room key came from a backup, a file or a third party.
    InsecureKey,
    /// A message whose room key belongs to a user other than its sender.
    SenderMismatch,
    /// A replayed ciphertext in a new event.
    Replay,
    /// A ciphertext of another room.
    ForeignRoom,
    /// A plaintext message in a room that is or was encrypted.
    Plaintext,
    /// An edit of another user's message, or of a message of another room.
    ForeignEdit,
    /// A redaction or a state event inside of an encrypted event, which no homeserver has checked.
    Unchecked,
    /// An event that was shown as the bridge's own, in an encrypted room, with a content that the bridge did not send.
    ReadBack,
    /// A send that was held because the homeserver reported an encrypted room as unencrypted.
    Downgrade,
    /// A send that the SDK did not encrypt although it said that it would.
    SentInClear,
}

impl SecurityClass {
    const ALL: [Self; 12] = [
        Self::UntrustedDevice,
        Self::IdentityChanged,
        Self::InsecureKey,
        Self::SenderMismatch,
        Self::Replay,
        Self::ForeignRoom,
        Self::Plaintext,
        Self::ForeignEdit,
        Self::Unchecked,
        Self::ReadBack,
        Self::Downgrade,
        Self::SentInClear,
    ];

    /// The name of the class, which is also the rule by which messages are skipped.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::UntrustedDevice => SkipRule::UntrustedDevice.as_str(),
            Self::IdentityChanged => "identity-changed",
            Self::InsecureKey => SkipRule::InsecureKey.as_str(),
            Self::SenderMismatch => SkipRule::SenderMismatch.as_str(),
            Self::Replay => SkipRule::Replayed.as_str(),
            Self::ForeignRoom => SkipRule::ForeignRoom.as_str(),
            Self::Plaintext => SkipRule::PlaintextInEncryptedRoom.as_str(),
            Self::ForeignEdit => SkipRule::ForeignEdit.as_str(),
            Self::Unchecked => SkipRule::RedactionOrStateEncrypted.as_str(),
            Self::ReadBack => "forged-read-back",
            Self::Downgrade => "downgrade",
            Self::SentInClear => "sent-in-clear",
        }
    }

    /// The class of a rule, if it is one of the trust policy.
    const fn from_rule(rule: SkipRule) -> Option<Self> {
        Some(match rule {
            SkipRule::UntrustedDevice => Self::UntrustedDevice,
            SkipRule::InsecureKey => Self::InsecureKey,
            SkipRule::SenderMismatch => Self::SenderMismatch,
            SkipRule::Replayed => Self::Replay,
            SkipRule::ForeignRoom => Self::ForeignRoom,
            SkipRule::PlaintextInEncryptedRoom => Self::Plaintext,
            SkipRule::ForeignEdit => Self::ForeignEdit,
            SkipRule::RedactionOrStateEncrypted => Self::Unchecked,
            _ => return None,
        })
    }
}

/// The counters, since the start of the process.
#[derive(Debug, Default)]
pub(super) struct SecurityMetrics([AtomicU64; SecurityClass::ALL.len()]);

impl SecurityMetrics {
    pub(super) fn record(&self, class: SecurityClass, times: u64) {
        let counters = SecurityClass::ALL.iter().zip(&self.0);
        for (_, counter) in counters.filter(|(other, _)| **other == class) {
            counter.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// Counts a message that was skipped by this rule, if it is one of the trust policy.
    pub(super) fn skipped(&self, rule: SkipRule) {
        if let Some(class) = SecurityClass::from_rule(rule) {
            self.record(class, 1);
        }
    }

    /// Every class with its count.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let counters = SecurityClass::ALL.iter().zip(&self.0);
        counters
            .map(|(class, count)| (class.as_str().to_owned(), count.load(Ordering::Relaxed)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_the_name_of_the_rule_that_it_counts() {
        for rule in SkipRule::ALL {
            if let Some(class) = SecurityClass::from_rule(*rule) {
                assert_eq!(class.as_str(), rule.as_str());
            }
        }
    }

    #[test]
    fn every_class_is_shown_and_counts_for_itself() {
        let metrics = SecurityMetrics::default();
        assert_eq!(
            metrics.counts().len(),
            SecurityClass::ALL.len(),
            "no name twice"
        );
        assert!(metrics.counts().values().all(|count| *count == 0));
        metrics.record(SecurityClass::Replay, 2);
        metrics.skipped(SkipRule::SenderMismatch);
        metrics.skipped(SkipRule::NotAMessage);
        let recorded: Vec<_> = metrics
            .counts()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        let wanted = [("replayed", 2), ("sender-mismatch", 1)];
        assert_eq!(
            recorded,
            wanted.map(|(name, count)| (name.to_owned(), count))
        );
    }
}
