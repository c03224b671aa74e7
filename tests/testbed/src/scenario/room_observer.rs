//! Records everything that a user's own client receives in Matrix rooms, with the time of arrival.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::client::{SeenEvent, TestClient};
use tokio::task::AbortHandle;

/// One event, as the client received it.
#[derive(Clone)]
pub struct ObservedEvent {
    /// The event, decrypted.
    pub seen: SeenEvent,
    /// When it arrived.
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

    /// The id of the event that this one edits.
    #[must_use]
    pub fn edits(&self) -> Option<&str> {
        let relation = self.seen.content.get("m.relates_to")?;
        if relation.get("rel_type")?.as_str()? != "m.replace" {
            return None;
        }
        relation.get("event_id")?.as_str()
    }
}

/// The sync loop of a client, and the events that it received. Dropping it ends the loop.
pub struct RoomObserver {
    observed: Arc<Mutex<Vec<ObservedEvent>>>,
    sync: AbortHandle,
}

impl RoomObserver {
    /// Starts the loop. It retries without end when the server fails.
    #[must_use]
    pub fn open(person: TestClient) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        let sync = tokio::spawn(async move {
            loop {
                match person.sync(Duration::from_secs(30)).await {
                    Ok(events) => {
                        let at = Instant::now();
                        let mut heard = into.lock().unwrap_or_else(PoisonError::into_inner);
                        heard.extend(events.into_iter().map(|seen| ObservedEvent { seen, at }));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        });
        Self {
            observed: heard,
            sync: sync.abort_handle(),
        }
    }

    /// The results of `pick` for everything received in one room, in order. An event that could not be decrypted at
    /// first appears again when it can be.
    pub fn pick<T>(&self, room: &str, pick: impl FnMut(&ObservedEvent) -> Option<T>) -> Vec<T> {
        let heard = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let here = heard.iter().filter(|heard| heard.seen.room == room);
        here.filter_map(pick).collect()
    }
}

impl Drop for RoomObserver {
    fn drop(&mut self) {
        self.sync.abort();
    }
}
