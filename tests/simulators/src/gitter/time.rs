//! The simulator's clock: the machine's clock, moved by what a test sets. Rate windows, the edit window and `sent`
//! follow it.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use jiff::Timestamp;

/// Wall time plus an offset.
#[derive(Default)]
pub(super) struct SimClock {
    offset_ms: AtomicI64,
}

impl SimClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the simulator represents another machine, which has its own clock"
    )]
    fn machine_ms() -> i64 {
        Timestamp::now().as_millisecond()
    }

    /// Milliseconds since the epoch, in the simulated service.
    pub(super) fn now_ms(&self) -> i64 {
        Self::machine_ms() + self.offset_ms.load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, now_ms: i64) {
        self.offset_ms
            .store(now_ms - Self::machine_ms(), Ordering::SeqCst);
    }

    pub(super) fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.offset_ms.fetch_add(by, Ordering::SeqCst);
    }
}

/// The format of every time in the API: ISO 8601 in UTC with exactly three decimals.
pub(super) fn iso(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => String::new(),
    }
}
