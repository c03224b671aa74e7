//! What we did ourselves, by id. Gitter publishes a message before it answers the request that made it, so the
//! feed asks here (and the store) whether a message of our own account is an echo.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

/// How long an id is remembered: well beyond the ten minutes in which Gitter allows edits.
const REMEMBERED: Duration = Duration::from_hours(1);
/// The most ids that are remembered.
const MOST: usize = 10_000;

/// Ids of our own doings. They are a shortcut: the store's links are the truth.
#[derive(Default)]
pub struct Echoes {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    marks: HashMap<String, Mark>,
    order: VecDeque<(Instant, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Made,
    Removed,
}

impl Echoes {
    /// We made this message.
    pub fn made(&self, id: &str) {
        self.mark(id, Mark::Made);
    }

    /// We are about to delete this message.
    pub fn removing(&self, id: &str) {
        self.mark(id, Mark::Removed);
    }

    /// Whether we made it, not long ago.
    pub fn has_made(&self, id: &str) -> bool {
        self.inner().marks.contains_key(id)
    }

    /// Whether we deleted it, not long ago.
    pub fn has_removed(&self, id: &str) -> bool {
        self.inner().marks.get(id) == Some(&Mark::Removed)
    }

    /// The next change from now on, once it is enabled.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn mark(&self, id: &str, mark: Mark) {
        let now = Instant::now();
        let mut inner = self.inner();
        while let Some((at, _)) = inner.order.front()
            && (inner.order.len() >= MOST || now.duration_since(*at) > REMEMBERED)
        {
            if let Some((_, old)) = inner.order.pop_front() {
                inner.marks.remove(&old);
            }
        }
        if inner.marks.insert(id.to_owned(), mark).is_none() {
            inner.order.push_back((now, id.to_owned()));
        }
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
        echoes.removing("a");
        assert!(echoes.has_made("a") && echoes.has_removed("a"));
        tokio::time::advance(Duration::from_secs(3601)).await;
        echoes.made("b");
        assert!(!echoes.has_made("a") && echoes.has_made("b") && !echoes.has_removed("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let echoes = Echoes::default();
        for number in 0..MOST + 50 {
            echoes.made(&number.to_string());
        }
        assert_eq!(echoes.inner().marks.len(), MOST);
        assert!(echoes.has_made(&(MOST + 49).to_string()) && !echoes.has_made("0"));
    }
}
