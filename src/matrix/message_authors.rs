//! The senders of recent events: an edit counts only when it comes from the author.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use footbridge_core::inbox::Arrival;
use footbridge_store::{Place, RemoteId, Store};
use matrix_sdk::{Room, deserialized_responses::TimelineEvent, ruma::EventId};
use tokio::time::sleep;
use tracing::warn;

use super::{event_fields::EventFields, request_error::RequestError};

/// How often an edit's author is looked up before the edit is skipped.
const MAX_LOOKUPS: u32 = 3;
/// How many events are remembered.
const CAPACITY: usize = 16_384;

/// The author of an arrival's message, for the store, which remembers it longer than this cache.
pub(super) fn writer(
    arrival: &Arrival,
    event: &TimelineEvent,
) -> Option<(Place, RemoteId, String)> {
    let message = arrival.message.clone()?;
    Some((arrival.place.clone(), message, event.sender()?.to_string()))
}

/// A bounded cache of event → sender. It keeps hashes with a key of its own, so that nobody who chooses ids can make
/// them collide.
#[derive(Debug, Default)]
struct SenderCache {
    hasher: RandomState,
    by_event: HashMap<u64, u64>,
    order: VecDeque<u64>,
}

impl SenderCache {
    /// Remembers who sent an event. The first sender is kept: an event has one sender for ever, and a homeserver that
    /// shows it again with another one lies.
    fn remember(&mut self, event: &str, sender: &str) {
        let event = self.hasher.hash_one(event);
        let Entry::Vacant(place) = self.by_event.entry(event) else {
            return;
        };
        place.insert(self.hasher.hash_one(sender));
        self.order.push_back(event);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_event.remove(&oldest);
        }
    }

    /// Whether this user sent the event; `None` if the event is not remembered.
    fn sent(&self, sender: &str, event: &str) -> Option<bool> {
        self.by_event
            .get(&self.hasher.hash_one(event))
            .map(|known| *known == self.hasher.hash_one(sender))
    }
}

/// The result of comparing the sender of an edit with the author of its message.
pub(super) enum AuthorCheck {
    /// The same user.
    Same,
    /// Another user.
    Other,
    /// The same user, by the homeserver's claim only.
    Claimed,
}

impl AuthorCheck {
    fn known(is_same: bool) -> Self {
        if is_same { Self::Same } else { Self::Other }
    }
}

/// Knows who wrote which message.
#[derive(Debug)]
pub(super) struct MessageAuthors {
    store: Store,
    recent: Mutex<SenderCache>,
}

impl MessageAuthors {
    pub(super) fn of(store: Store) -> Self {
        Self {
            store,
            recent: Mutex::default(),
        }
    }

    /// Remembers who sent an event.
    pub(super) fn remember(&self, place: &Place, envelope: &EventFields) {
        let mut senders = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        senders.remember(&in_room(place, &envelope.event_id), &envelope.sender);
    }

    /// Whether this user wrote the message: only the author may edit it. The store knows the authors of relayed
    /// messages, the cache those of messages that are about to be relayed, and in an encrypted room both know them from
    /// the session that decrypted the event. The homeserver is asked only about events that neither knows, and in an
    /// encrypted room its answer proves nothing.
    pub(super) async fn check(&self, room: &Room, user: &str, event: &RemoteId) -> AuthorCheck {
        let place = Place::room(room.room_id().as_str());
        match self.store.is_author(&place, event, user).await {
            Ok(Some(known)) => return AuthorCheck::known(known),
            Ok(None) => {}
            Err(error) => warn!(error = %error, "Failed to read the author of a message"),
        }
        let remembered = {
            let senders = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            senders.sent(user, &in_room(&place, event.as_str()))
        };
        if let Some(known) = remembered {
            return AuthorCheck::known(known);
        }
        let Ok(event) = <&EventId>::try_from(event.as_str()) else {
            return AuthorCheck::Other;
        };
        for attempt in 1..=MAX_LOOKUPS {
            match room.event(event, None).await {
                Ok(found) => {
                    return match found.sender() {
                        Some(sender) if sender == user => AuthorCheck::Claimed,
                        _ => AuthorCheck::Other,
                    };
                }
                Err(error) => match RequestError::from(&error) {
                    RequestError::Unknown(_)
                    | RequestError::NotSent(_)
                    | RequestError::RateLimited(_) => {
                        sleep(Duration::from_secs(attempt.into())).await;
                    }
                    _ => return AuthorCheck::Other,
                },
            }
        }
        warn!(matrix.room = %room.room_id(), "Edit skipped: its author could not be looked up");
        AuthorCheck::Other
    }
}

/// An event id qualified by its room: no edit reaches into another room.
fn in_room(place: &Place, event: &str) -> String {
    format!("{}/{event}", place.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_author_is_known_and_the_oldest_is_forgotten() {
        let mut senders = SenderCache::default();
        senders.remember("$first", "@a:x");
        assert_eq!(senders.sent("@a:x", "$first"), Some(true));
        assert_eq!(senders.sent("@b:x", "$first"), Some(false));
        assert_eq!(senders.sent("@a:x", "$other"), None);
        for number in 0..CAPACITY {
            senders.remember(&format!("${number}"), "@b:x");
        }
        assert_eq!(senders.sent("@a:x", "$first"), None);
        assert_eq!(senders.sent("@b:x", "$0"), Some(true));
        assert_eq!(senders.by_event.len(), CAPACITY);
    }

    #[test]
    fn c20_a_second_showing_under_another_name_changes_no_author() {
        let mut senders = SenderCache::default();
        for sender in ["@a:x", "@b:x", "@a:x"] {
            senders.remember("$event", sender);
        }
        assert_eq!(senders.sent("@a:x", "$event"), Some(true));
        assert_eq!(senders.sent("@b:x", "$event"), Some(false));
        assert_eq!(senders.order.len(), 1);
    }
}
