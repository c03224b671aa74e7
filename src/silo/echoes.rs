//! The bridge's own recent actions in a silo, by message id. Silos publish a message before they answer the request
//! that made it, so the feed asks here (and the store) whether a message of its own account is an echo.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

/// How long an id is kept: longer than the ten minutes in which Gitter allows edits, and than any late response.
const TTL: Duration = Duration::from_hours(1);
/// The most texts.
const MAX_SEARCHES: usize = 200;
/// The most ids; older ones are looked up in the store.
const MAX_ECHOES: usize = 1_000;

/// Ids of the bridge's own actions. They are a cache: the store's links are authoritative.
#[derive(Default)]
pub struct Echoes {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    marks: HashMap<String, EchoState>,
    order: VecDeque<(Instant, String)>,
    /// Room and text (as a hash) of each search for a message with an unknown outcome.
    sought: VecDeque<(Instant, u64)>,
    hashes: RandomState,
}

#[derive(Clone, Copy, Default)]
struct EchoState {
    /// Whether the bridge made it.
    made: bool,
    /// Whether the bridge deleted it, or is about to.
    removed: bool,
}

impl Echoes {
    /// The bridge made this message.
    pub fn made(&self, id: &str) {
        self.mark(id, |mark| mark.made = true);
    }

    /// The bridge is about to delete this message.
    pub fn note_removing(&self, id: &str) {
        self.mark(id, |mark| mark.removed = true);
    }

    /// The bridge did not delete this message: it still exists, whoever made it.
    pub fn cancel_removing(&self, id: &str) {
        if let Some(mark) = self.inner().marks.get_mut(id) {
            mark.removed = false;
        }
    }

    /// Whether the bridge made it recently.
    pub fn has_made(&self, id: &str) -> bool {
        self.inner().marks.get(id).is_some_and(|mark| mark.made)
    }

    /// Whether the bridge deleted it recently.
    pub fn has_removed(&self, id: &str) -> bool {
        let inner = self.inner();
        inner.marks.get(id).is_some_and(|mark| mark.removed)
    }

    /// The bridge searches for a message of its account that may or may not exist.
    pub fn note_search(&self, room: &str, text: &str) {
        let mut inner = self.inner();
        let hash = inner.hashes.hash_one((room, text));
        inner.sought.retain(|(_, other)| *other != hash);
        if inner.sought.len() >= MAX_SEARCHES {
            inner.sought.pop_front();
        }
        inner.sought.push_back((Instant::now(), hash));
    }

    /// Whether a message of the bridge's account without a link is one that a search did not find in time.
    pub fn is_late_echo(&self, room: &str, text: &str) -> bool {
        let inner = self.inner();
        let hash = inner.hashes.hash_one((room, text));
        let mut sought = inner.sought.iter();
        sought.any(|(at, other)| *other == hash && at.elapsed() <= TTL)
    }

    /// The next change after the future is enabled.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn mark(&self, id: &str, change: fn(&mut EchoState)) {
        let now = Instant::now();
        let mut inner = self.inner();
        while let Some((at, _)) = inner.order.front()
            && (inner.order.len() >= MAX_ECHOES || now.duration_since(*at) > TTL)
        {
            if let Some((_, old)) = inner.order.pop_front() {
                inner.marks.remove(&old);
            }
        }
        if !inner.marks.contains_key(id) {
            inner.order.push_back((now, id.to_owned()));
        }
        change(inner.marks.entry(id.to_owned()).or_default());
        drop(inner);
        self.changed.notify_waiters();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ids_are_forgotten_after_an_hour() {
        let echoes = Echoes::default();
        echoes.made("a");
        echoes.note_removing("a");
        assert!(echoes.has_made("a") && echoes.has_removed("a"));
        tokio::time::advance(Duration::from_secs(3601)).await;
        echoes.made("b");
        assert!(!echoes.has_made("a") && echoes.has_made("b") && !echoes.has_removed("b"));
        echoes.note_removing("b");
        echoes.cancel_removing("b");
        echoes.cancel_removing("c");
        assert!(echoes.has_made("b") && !echoes.has_removed("b") && !echoes.has_made("c"));
    }

    /// A moderator's redaction deletes somebody else's message in the silo.
    #[test]
    fn what_we_could_not_delete_is_not_ours_for_that() {
        let echoes = Echoes::default();
        echoes.note_removing("theirs");
        assert!(echoes.has_removed("theirs") && !echoes.has_made("theirs"));
        echoes.cancel_removing("theirs");
        assert!(!echoes.has_removed("theirs") && !echoes.has_made("theirs"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_looked_for_is_remembered_by_room_and_text() {
        let echoes = Echoes::default();
        echoes.note_search("room", "text");
        assert!(echoes.is_late_echo("room", "text"));
        assert!(!echoes.is_late_echo("room", "other") && !echoes.is_late_echo("other", "text"));
        tokio::time::advance(Duration::from_secs(3601)).await;
        assert!(!echoes.is_late_echo("room", "text"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let echoes = Echoes::default();
        for number in 0..MAX_ECHOES + 50 {
            echoes.made(&number.to_string());
        }
        assert_eq!(echoes.inner().marks.len(), MAX_ECHOES);
        assert!(echoes.has_made(&(MAX_ECHOES + 49).to_string()) && !echoes.has_made("0"));
    }
}
