//! What was refused for the sake of trust, counted by class: the numbers that should stay where they are. No ids.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// A class of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecurityClass {
    /// A message from a device that its owner has not signed.
    UntrustedDevice,
    /// A message of somebody whose identity changed, held until somebody in charge has looked at it.
    IdentityChanged,
    /// A message whose key came from a backup, a file or a third party.
    InsecureKey,
    /// A message whose key belongs to somebody other than its sender.
    SenderMismatch,
    /// An old ciphertext under a new event.
    Replay,
    /// A ciphertext of another room.
    ForeignRoom,
    /// A message in the clear in a room that was ever encrypted.
    Plaintext,
    /// An edit of somebody else's message, or of another room's.
    ForeignEdit,
    /// A redaction or a state event inside of an encrypted event, where no homeserver has checked it.
    Unchecked,
    /// Something that was shown as an event of ours, in an encrypted room, and is not what we sent.
    ReadBack,
    /// A send that was held because the room, once encrypted, was said not to be.
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

    /// Its name. A rule by which messages are skipped has the same.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::UntrustedDevice => "untrusted-device",
            Self::IdentityChanged => "identity-changed",
            Self::InsecureKey => "insecure-key",
            Self::SenderMismatch => "sender-mismatch",
            Self::Replay => "replayed",
            Self::ForeignRoom => "foreign-room",
            Self::Plaintext => "plaintext-in-encrypted-room",
            Self::ForeignEdit => "foreign-edit",
            Self::Unchecked => "redaction-or-state-encrypted",
            Self::ReadBack => "forged-read-back",
            Self::Downgrade => "downgrade",
            Self::SentInClear => "sent-in-clear",
        }
    }

    /// The class of a rule, if it is one of trust.
    fn from_rule(rule: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alarm| alarm.as_str() == rule)
    }
}

/// The counters, from the start of the process.
#[derive(Debug, Default)]
pub(super) struct SecurityMetrics([AtomicU64; SecurityClass::ALL.len()]);

impl SecurityMetrics {
    pub(super) fn record(&self, alarm: SecurityClass, times: u64) {
        let counters = SecurityClass::ALL.iter().zip(&self.0);
        for (_, counter) in counters.filter(|(class, _)| **class == alarm) {
            counter.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// Counts a message that was skipped by this rule, if it is one of trust.
    pub(super) fn skipped(&self, rule: &str) {
        if let Some(alarm) = SecurityClass::from_rule(rule) {
            self.record(alarm, 1);
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
    fn every_class_is_shown_and_counts_for_itself() {
        let alarms = SecurityMetrics::default();
        assert_eq!(
            alarms.counts().len(),
            SecurityClass::ALL.len(),
            "no name twice"
        );
        assert!(alarms.counts().values().all(|count| *count == 0));
        alarms.record(SecurityClass::Replay, 2);
        alarms.skipped("sender-mismatch");
        alarms.skipped("not-a-message");
        let raised: Vec<_> = alarms
            .counts()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        let wanted = [("replayed", 2), ("sender-mismatch", 1)];
        assert_eq!(raised, wanted.map(|(name, count)| (name.to_owned(), count)));
    }
}
