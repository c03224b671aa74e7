//! Sessions whose sender's device is not known to be cross-signed: until when the bridge waits for the signature, and
//! whose devices are to be queried meanwhile.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use super::trust_policy::TrustHold;

/// How long it may take until the sender's device is known to be signed. Device changes arrive by other ways than
/// messages and may come after them.
const TRUST_WAIT: Duration = Duration::from_secs(10);
/// The most senders who are remembered as warned of.
const MAX_WARNED: usize = 16_384;

/// The sessions, by session id.
#[derive(Debug)]
pub(super) struct UnverifiedSessions {
    /// The shortest time to wait, whatever for.
    key_wait: Duration,
    /// How long the sender's device list may take.
    device_wait: Duration,
    deadlines: Mutex<HashMap<String, Instant>>,
    /// The senders of these sessions, until their devices have been queried.
    unknown_senders: Mutex<HashSet<String>>,
    warned: Mutex<WarnedSenders>,
}

/// Senders who were warned of, as hashes with a key of this process.
#[derive(Debug, Default)]
struct WarnedSenders {
    hasher: RandomState,
    seen: HashSet<u64>,
}

impl WarnedSenders {
    /// A number for this sender, at their first warning. It means nothing outside of this process.
    fn first_warning(&mut self, sender: &str) -> Option<u64> {
        let sender = self.hasher.hash_one(sender);
        (self.seen.len() < MAX_WARNED && self.seen.insert(sender)).then_some(sender)
    }
}

impl UnverifiedSessions {
    /// `key_wait` is how long a lane waits for a room key, `device_wait` how long the sender's device list may take.
    pub(super) fn of(key_wait: Duration, device_wait: Duration) -> Self {
        Self {
            key_wait,
            device_wait,
            deadlines: Mutex::default(),
            unknown_senders: Mutex::default(),
            warned: Mutex::default(),
        }
    }

    /// Holds the entries of this session until its sender's device is known or trusted. Returns the deadline.
    pub(super) fn hold(&self, session: &str, sender: &str, hold: TrustHold) -> Instant {
        let deadline = Instant::now() + self.key_wait.max(self.longest(hold));
        *self.lock().entry(session.to_owned()).or_insert_with(|| {
            self.lock_senders().insert(sender.to_owned());
            deadline
        })
    }

    /// The session is no longer watched.
    pub(super) fn remove(&self, session: &str) {
        self.lock().remove(session);
    }

    /// All sessions that are watched.
    pub(super) fn all(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// The sessions whose deadline has passed.
    pub(super) fn due(&self) -> Vec<String> {
        let now = Instant::now();
        let sessions = self.lock();
        let due = sessions.iter().filter(|(_, deadline)| **deadline <= now);
        due.map(|(session, _)| session.clone()).collect()
    }

    /// When the first deadline passes.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.lock().values().min().copied()
    }

    /// Takes the senders whose devices have not been queried yet.
    pub(super) fn take_unknown_senders(&self) -> HashSet<String> {
        std::mem::take(&mut *self.lock_senders())
    }

    /// Warns once per sender that their messages are not relayed, without naming them.
    pub(super) fn warn_untrusted_sender(&self, sender: &str) {
        let first = {
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            warned.first_warning(sender)
        };
        if let Some(sender) = first {
            warn!(
                sender = format!("{sender:016x}"),
                "Messages from an unverified device are not relayed"
            );
        }
    }

    /// The longest time that a message may be held for this reason.
    fn longest(&self, hold: TrustHold) -> Duration {
        match hold {
            TrustHold::DeviceList => self.device_wait,
            TrustHold::Signature => TRUST_WAIT,
            // There is no limit for an admin's approval; this only bounds how long the session is watched.
            TrustHold::Approval => Duration::from_hours(365 * 24),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.deadlines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_senders(&self) -> MutexGuard<'_, HashSet<String>> {
        self.unknown_senders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timeouts;

    fn sessions() -> UnverifiedSessions {
        UnverifiedSessions::of(Duration::from_secs(1), Timeouts::default().device_wait)
    }

    #[test]
    fn p02_a_device_list_has_a_minute_and_a_person_all_the_time() {
        let sessions = sessions();
        let waits =
            [TrustHold::Signature, TrustHold::DeviceList].map(|hold| sessions.longest(hold));
        assert_eq!(waits, [10, 60].map(Duration::from_secs));
        assert!(sessions.longest(TrustHold::Approval) > Timeouts::default().key_limit);
    }

    #[tokio::test(start_paused = true)]
    async fn p02_the_first_deadline_of_a_session_stands() {
        let sessions = sessions();
        let first = sessions.hold("s", "@a:x", TrustHold::Signature);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(sessions.hold("s", "@a:x", TrustHold::DeviceList), first);
        sessions.hold("later", "@b:x", TrustHold::DeviceList);
        assert_eq!(sessions.next_deadline(), Some(first));
        assert!(sessions.due().is_empty());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(sessions.due(), ["s"]);
        sessions.remove("s");
        assert_eq!(sessions.all(), ["later"]);
        assert_eq!(sessions.take_unknown_senders().len(), 2);
        assert!(sessions.take_unknown_senders().is_empty());
    }

    #[test]
    fn a_sender_is_complained_of_once() {
        let mut senders = WarnedSenders::default();
        assert!(senders.first_warning("@a:x").is_some());
        assert!(senders.first_warning("@a:x").is_none());
        assert!(senders.first_warning("@b:x").is_some());
    }
}
