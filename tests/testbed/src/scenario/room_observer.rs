//! Somebody who keeps listening in the Matrix room: everything a person's own client can see, with the time of its
//! coming.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use footbridge_matrix::person::{SeenEvent, TestClient};
use tokio::task::AbortHandle;

/// One event at the person's client.
#[derive(Clone)]
pub struct ObservedEvent {
    /// The event, decrypted.
    pub seen: SeenEvent,
    /// When it came.
    pub at: Instant,
}

impl ObservedEvent {
    /// The text of a message that is not an edit of an earlier one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if self.seen.event_type != "m.room.message" || self.edits().is_some() {
            return None;
        }
        self.seen.content.get("body")?.as_str()
    }

    /// The event this one replaces the text of.
    #[must_use]
    pub fn edits(&self) -> Option<&str> {
        let relation = self.seen.content.get("m.relates_to")?;
        if relation.get("rel_type")?.as_str()? != "m.replace" {
            return None;
        }
        relation.get("event_id")?.as_str()
    }
}

/// The person's sync loop and what it brought. Dropping it ends the loop.
pub struct RoomObserver {
    heard: Arc<Mutex<Vec<ObservedEvent>>>,
    sync: AbortHandle,
}

impl RoomObserver {
    /// Starts to listen. Servers that fail are asked again for ever.
    #[must_use]
    pub fn open(person: TestClient) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        let sync = tokio::spawn(async move {
            loop {
                match person.sync(Duration::from_secs(30)).await {
                    Ok(news) => {
                        let at = Instant::now();
                        let mut heard = into.lock().unwrap_or_else(PoisonError::into_inner);
                        heard.extend(news.into_iter().map(|seen| ObservedEvent { seen, at }));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        });
        Self {
            heard,
            sync: sync.abort_handle(),
        }
    }

    /// What `pick` takes from everything heard in one room, in order. An event that was unreadable at first appears again
    /// when it is readable.
    pub fn pick<T>(&self, room: &str, pick: impl FnMut(&ObservedEvent) -> Option<T>) -> Vec<T> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let here = heard.iter().filter(|heard| heard.seen.room == room);
        here.filter_map(pick).collect()
    }
}

impl Drop for RoomObserver {
    fn drop(&mut self) {
        self.sync.abort();
    }
}
