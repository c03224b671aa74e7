//! What is made to go wrong, and when: per route for calls, and by switches for the WebSocket.

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

/// What becomes of one event on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventFault {
    /// It is told.
    Told,
    /// It is told twice.
    Twice,
    /// Something that is no JSON comes before it.
    Garbled,
    /// It takes its number and is not told, as when the connection's queue is full.
    Skipped,
    /// It is not told, and no number is missing, as between the nodes of a cluster.
    Lost,
}

/// The faults of one simulator.
#[derive(Default)]
pub struct Faults {
    armed: Mutex<ArmedFaults>,
    strikes: CallFaults,
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

    /// Arms a fault for the next `times` calls of a route such as `POST posts`, `PUT posts/:id/patch`, `DELETE posts/:id`,
    /// `GET channels/:id/posts`, `GET websocket`, or `*` for all.
    pub fn next(&self, route: &str, fault: Fault, times: u32) {
        self.strikes.next(route, fault, times);
    }

    /// The next `count` events take their numbers and are not told.
    pub fn skip_events(&self, count: u64) {
        self.armed().skip = count;
    }

    /// The next `count` events are not told, and no number is missing.
    pub fn lose_events(&self, count: u64) {
        self.armed().lose = count;
    }

    /// Before each of the next `count` events comes something that is no JSON.
    pub fn garbage(&self, count: u64) {
        self.armed().garbage = count;
    }

    /// The next `count` events come twice.
    pub fn duplicate(&self, count: u64) {
        self.armed().duplicate = count;
    }

    /// Whether neighbours change places, two by two.
    pub fn swap(&self, changed: bool) {
        self.armed().swap = changed;
    }

    /// How long the answer to a post comes after its event. Milliseconds.
    pub fn echo_first(&self, ms: u64) {
        self.armed().echo_first = ms;
    }

    /// Disarms everything; cut connections stay cut.
    pub fn clear(&self) {
        *self.armed() = ArmedFaults::default();
        self.strikes.clear();
    }

    pub(super) fn take(&self, route: &str) -> Option<Fault> {
        self.strikes.take(route)
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
            EventFault::Told
        }
    }

    pub(super) fn swaps(&self) -> bool {
        self.armed().swap
    }

    pub(super) fn answer_later(&self) -> u64 {
        self.armed().echo_first
    }
}
