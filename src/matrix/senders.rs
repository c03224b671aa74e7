//! Who sent what, of late: an edit counts only when it comes from the author.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
};

use footbridge_store::{Arrival, Place, RemoteId};
use matrix_sdk::deserialized_responses::TimelineEvent;

/// How many events are remembered.
const REMEMBERED: usize = 16_384;

/// Who wrote the message that arrived, for the store: it knows that longer than this memory.
pub(super) fn writer(
    arrival: &Arrival,
    event: &TimelineEvent,
) -> Option<(Place, RemoteId, String)> {
    let message = arrival.message.clone()?;
    Some((arrival.place.clone(), message, event.sender()?.to_string()))
}

/// A bounded memory of event → sender. It keeps hashes under a key of its own: whoever chooses ids cannot make
/// them collide.
#[derive(Debug, Default)]
pub(super) struct Senders {
    hasher: RandomState,
    by_event: HashMap<u64, u64>,
    order: VecDeque<u64>,
    complained: HashSet<u64>,
}

impl Senders {
    /// Remembers who sent an event.
    pub(super) fn remember(&mut self, event: &str, sender: &str) {
        let event = self.hasher.hash_one(event);
        if self
            .by_event
            .insert(event, self.hasher.hash_one(sender))
            .is_some()
        {
            return;
        }
        self.order.push_back(event);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_event.remove(&oldest);
        }
    }

    /// Whether this is who sent the event; `None` when that is not remembered.
    pub(super) fn sent(&self, sender: &str, event: &str) -> Option<bool> {
        self.by_event
            .get(&self.hasher.hash_one(event))
            .map(|known| *known == self.hasher.hash_one(sender))
    }

    /// A number for this sender, the first time they are complained of. It means nothing outside of this process.
    pub(super) fn first_complaint(&mut self, sender: &str) -> Option<u64> {
        let sender = self.hasher.hash_one(sender);
        (self.complained.len() < REMEMBERED && self.complained.insert(sender)).then_some(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_author_is_known_and_the_oldest_is_forgotten() {
        let mut senders = Senders::default();
        senders.remember("$first", "@a:x");
        assert_eq!(senders.sent("@a:x", "$first"), Some(true));
        assert_eq!(senders.sent("@b:x", "$first"), Some(false));
        assert_eq!(senders.sent("@a:x", "$other"), None);
        for number in 0..REMEMBERED {
            senders.remember(&format!("${number}"), "@b:x");
        }
        assert_eq!(senders.sent("@a:x", "$first"), None);
        assert_eq!(senders.sent("@b:x", "$0"), Some(true));
        assert_eq!(senders.by_event.len(), REMEMBERED);
    }

    #[test]
    fn a_sender_is_complained_of_once() {
        let mut senders = Senders::default();
        assert!(senders.first_complaint("@a:x").is_some());
        assert!(senders.first_complaint("@a:x").is_none());
        assert!(senders.first_complaint("@b:x").is_some());
    }
}
