//! The state of the connection to a silo, reported by every task that knows a part of it.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::FeedState;

/// The state of one account's feed.
#[derive(Default)]
pub struct FeedHealth(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    listening: bool,
    signed_out: bool,
    dropped: bool,
    /// All channels that are listened to.
    rooms: HashSet<String>,
    /// Channels that are not caught up since the last connection.
    behind: HashSet<String>,
    closed: HashSet<String>,
    /// How often a connection ended.
    interruptions: u64,
}

impl FeedHealth {
    /// Sets the channels that are listened to; all of them have to catch up. The state of any other channel is dropped:
    /// its portal was removed.
    pub fn begin<'a>(&self, rooms: impl Iterator<Item = &'a str>) {
        let mut inner = self.inner();
        inner.listening = true;
        let rooms: HashSet<String> = rooms.map(ToOwned::to_owned).collect();
        inner.closed.retain(|room| rooms.contains(room));
        inner.behind.clone_from(&rooms);
        inner.rooms = rooms;
    }

    /// These channels have to catch up again: a connection ended.
    pub fn behind<'a>(&self, rooms: impl Iterator<Item = &'a str>) {
        let mut inner = self.inner();
        inner.interruptions += 1;
        for room in rooms {
            inner.behind.insert(room.to_owned());
        }
    }

    /// All channels have to catch up again.
    pub fn all_behind(&self) {
        let mut inner = self.inner();
        inner.interruptions += 1;
        let Inner { rooms, behind, .. } = &mut *inner;
        behind.clone_from(rooms);
    }

    /// How often a connection ended.
    pub fn interruptions(&self) -> u64 {
        self.inner().interruptions
    }

    /// The messages of all channels arrive as they are written.
    pub fn all_caught_up(&self) {
        self.inner().behind.clear();
    }

    /// The listener stopped.
    pub fn stopped(&self) {
        self.inner().listening = false;
    }

    /// A channel's messages arrive as they are written. Returns whether the channel was closed before.
    pub fn caught_up(&self, room: &str) -> bool {
        let mut inner = self.inner();
        inner.behind.remove(room);
        inner.closed.remove(room)
    }

    /// A channel is closed to the account. Returns whether that is new.
    pub fn close(&self, room: &str) -> bool {
        self.inner().closed.insert(room.to_owned())
    }

    /// Whether a channel is closed to the account.
    pub fn is_closed(&self, room: &str) -> bool {
        self.inner().closed.contains(room)
    }

    /// The channels that are closed to the account, in order.
    pub fn closed(&self) -> Vec<String> {
        let mut closed: Vec<String> = self.inner().closed.iter().cloned().collect();
        closed.sort_unstable();
        closed
    }

    /// The channels that are closed to the account or not caught up, sorted.
    pub fn waiting(&self) -> Vec<String> {
        let inner = self.inner();
        let mut waiting: Vec<String> = inner.behind.union(&inner.closed).cloned().collect();
        waiting.sort_unstable();
        waiting
    }

    /// The silo refuses the token.
    pub fn signed_out(&self) {
        self.inner().signed_out = true;
    }

    /// The silo accepts the token again.
    pub fn note_signed_in(&self) {
        self.inner().signed_out = false;
    }

    /// Whether the silo refuses the token.
    pub fn is_signed_out(&self) -> bool {
        self.inner().signed_out
    }

    /// The silo accepts the account's messages and does not publish them. Returns whether that is new.
    pub fn dropped(&self) -> bool {
        !std::mem::replace(&mut self.inner().dropped, true)
    }

    /// A message was published: the silo drops nothing.
    pub fn published(&self) {
        self.inner().dropped = false;
    }

    /// The overall state. A closed channel does not count, unless all channels are closed.
    pub fn state(&self) -> FeedState {
        let inner = self.inner();
        let nothing_left = !inner.rooms.is_empty() && inner.rooms.is_subset(&inner.closed);
        if inner.signed_out || inner.dropped || nothing_left {
            FeedState::Down
        } else if inner.listening && inner.behind.is_subset(&inner.closed) {
            FeedState::Live
        } else {
            FeedState::Connecting
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feed_is_live_when_every_channel_is_caught_up_with() {
        let health = FeedHealth::default();
        assert_eq!(health.state(), FeedState::Connecting);
        health.begin(["a", "b"].into_iter());
        health.caught_up("a");
        assert_eq!(health.state(), FeedState::Connecting);
        health.caught_up("b");
        assert_eq!(health.state(), FeedState::Live);
    }

    #[test]
    fn a_state_that_needs_a_person_is_reported_before_all_others() {
        let health = FeedHealth::default();
        health.begin(["a", "b"].into_iter());
        health.caught_up("a");
        health.caught_up("b");
        assert!(health.close("a") && !health.close("a"));
        health.behind(["a", "b"].into_iter());
        assert_eq!(health.state(), FeedState::Connecting);
        health.caught_up("b");
        assert_eq!(
            (health.state(), health.closed().len()),
            (FeedState::Live, 1)
        );
        health.close("b");
        assert_eq!(health.state(), FeedState::Down);
        assert!(health.caught_up("a") && health.caught_up("b"));
        assert_eq!(
            (health.state(), health.closed().len()),
            (FeedState::Live, 0)
        );
        assert!(health.dropped() && !health.dropped());
        assert_eq!(health.state(), FeedState::Down);
        health.published();
        assert_eq!(health.state(), FeedState::Live);
        health.signed_out();
        assert_eq!(health.state(), FeedState::Down);
        health.note_signed_in();
        assert_eq!(health.state(), FeedState::Live);
    }

    #[test]
    fn what_is_no_longer_listened_to_is_forgotten() {
        let health = FeedHealth::default();
        health.begin(["a", "b", "c"].into_iter());
        health.close("a");
        health.caught_up("c");
        assert_eq!(health.waiting(), ["a", "b"]);
        health.begin(["c"].into_iter());
        assert_eq!(
            (health.waiting(), health.closed().len()),
            (vec!["c".to_owned()], 0)
        );
        health.caught_up("c");
        assert_eq!(health.state(), FeedState::Live);
    }
}
