//! Faults that a test can inject: per route for calls, and by switches for the WebSocket.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Fault;
use crate::call_faults::CallFaults;

#[derive(Default)]
struct ArmedFaults {
    skip: u64,
    lose: u64,
    garbage: u64,
    duplicate: u64,
    swap: bool,
    echo_first: u64,
}

/// What happens to one event on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventFault {
    /// It is sent.
    Notified,
    /// It is sent twice.
    Twice,
    /// A frame that is not JSON is sent before it.
    Garbled,
    /// It is numbered and not sent, as when the connection's queue is full.
    Skipped,
    /// It is neither numbered nor sent, as between the nodes of a cluster.
    Lost,
}

/// The faults of one simulator.
#[derive(Default)]
pub struct Faults {
    armed: Mutex<ArmedFaults>,
    call_faults: CallFaults,
}

fn one_of(count: &mut u64) -> bool {
    let some = *count > 0;
    *count = count.saturating_sub(1);
    some
}

impl Faults {
    fn armed(&self) -> MutexGuard<'_, ArmedFaults> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms a fault for the next `times` calls of a route such as `POST posts`, `PUT posts/:id/patch`, `DELETE
    /// posts/:id`, `GET channels/:id/posts`, `GET websocket`, or `*` for all.
    pub fn next(&self, route: &str, fault: Fault, times: u32) {
        self.call_faults.next(route, fault, times);
    }

    /// The next `count` events are numbered and not sent.
    pub fn skip_events(&self, count: u64) {
        self.armed().skip = count;
    }

    /// The next `count` events are neither numbered nor sent.
    pub fn lose_events(&self, count: u64) {
        self.armed().lose = count;
    }

    /// Before each of the next `count` events a frame that is not JSON is sent.
    pub fn garbage(&self, count: u64) {
        self.armed().garbage = count;
    }

    /// The next `count` events are sent twice.
    pub fn duplicate(&self, count: u64) {
        self.armed().duplicate = count;
    }

    /// Whether neighbouring events are swapped, two by two.
    pub fn swap(&self, changed: bool) {
        self.armed().swap = changed;
    }

    /// Delays the response of a post by this much after its event. Milliseconds.
    pub fn echo_first(&self, ms: u64) {
        self.armed().echo_first = ms;
    }

    /// Disarms everything; cut connections stay cut.
    pub fn clear(&self) {
        *self.armed() = ArmedFaults::default();
        self.call_faults.clear();
    }

    pub(super) fn take(&self, route: &str) -> Option<Fault> {
        self.call_faults.take(route)
    }

    pub(super) fn fate(&self) -> EventFault {
        let mut armed = self.armed();
        if one_of(&mut armed.skip) {
            EventFault::Skipped
        } else if one_of(&mut armed.lose) {
            EventFault::Lost
        } else if one_of(&mut armed.duplicate) {
            EventFault::Twice
        } else if one_of(&mut armed.garbage) {
            EventFault::Garbled
        } else {
            EventFault::Notified
        }
    }

    pub(super) fn swaps(&self) -> bool {
        self.armed().swap
    }

    pub(super) fn answer_later(&self) -> u64 {
        self.armed().echo_first
    }
}
