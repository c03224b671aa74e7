//! Faults that a test can inject: per route for calls, and by switches for the WebSocket.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Fault;
use crate::call_faults::CallFaults;

#[derive(Default)]
struct ArmedFaults {
    skip: u64,
    garbage: u64,
    echo: bool,
    swap: bool,
}

/// The faults of one simulator.
#[derive(Default)]
pub struct Faults {
    armed: Mutex<ArmedFaults>,
    call_faults: CallFaults,
}

impl Faults {
    fn armed(&self) -> MutexGuard<'_, ArmedFaults> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms a fault for the next `times` calls of a route: `POST message`, `GET health`, `GET stream`, `GET websocket`,
    /// or `*` for all.
    pub fn next(&self, route: &str, fault: Fault, times: u32) {
        self.call_faults.next(route, fault, times);
    }

    /// The next `count` messages stay in the buffer and are not sent over the WebSocket, as when its queue is full.
    pub fn skip_broadcasts(&self, count: u64) {
        self.armed().skip = count;
    }

    /// Before each of the next `count` messages the WebSocket sends a frame that is not JSON.
    pub fn garbage(&self, count: u64) {
        self.armed().garbage = count;
    }

    /// Whether a posted message is echoed over the WebSocket, as messages of other WebSocket clients are.
    pub fn echo(&self, check_loop: bool) {
        self.armed().echo = check_loop;
    }

    /// Whether neighbouring messages are swapped, two by two, as when networks deliver them in parallel. Their times
    /// are swapped with them: Matterbridge records the time at which it accepts a message.
    pub fn swap(&self, changed: bool) {
        self.armed().swap = changed;
    }

    /// Disarms everything; cut connections stay cut.
    pub fn clear(&self) {
        *self.armed() = ArmedFaults::default();
        self.call_faults.clear();
    }

    pub(super) fn take(&self, route: &str) -> Option<Fault> {
        self.call_faults.take(route)
    }

    pub(super) fn skips(&self) -> bool {
        let mut armed = self.armed();
        let skips = armed.skip > 0;
        armed.skip = armed.skip.saturating_sub(1);
        skips
    }

    pub(super) fn garbles(&self) -> bool {
        let mut armed = self.armed();
        let garbles = armed.garbage > 0;
        armed.garbage = armed.garbage.saturating_sub(1);
        garbles
    }

    pub(super) fn echoes(&self) -> bool {
        self.armed().echo
    }

    pub(super) fn swaps(&self) -> bool {
        self.armed().swap
    }
}
