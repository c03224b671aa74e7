//! The only module that reads wall time. The clock is the time at start plus Tokio's elapsed time, so that it never jumps with
//! the system clock and stops when a test pauses Tokio's clock.

use std::time::{Duration, SystemTime};

use footbridge_store::Millis;
use tokio::time::Instant;

/// The environment variable by which a test shifts the clock, in seconds.
#[cfg(feature = "testbed")]
pub const OFFSET: &str = "CLOCK_OFFSET";

/// A duration in words: `90 s`, `12 min`, `5 h`, `3 days`.
#[must_use]
pub fn in_words(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The clock. Cheap to clone.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall_at_start: Millis,
    start: Instant,
}

impl Clock {
    /// A clock that starts now. Must be created inside a Tokio runtime.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the system clock"
    )]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = Millis::default().plus(since_epoch);
        #[cfg(feature = "testbed")]
        let now = wrong(now);
        Self::at(now)
    }

    /// A clock that starts at this time. Must be created inside a Tokio runtime.
    #[must_use]
    pub fn at(now: Millis) -> Self {
        Self {
            wall_at_start: now,
            start: Instant::now(),
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.wall_at_start.plus(self.start.elapsed())
    }
}

/// The time shifted as a test asked for, not before 1970.
#[cfg(feature = "testbed")]
fn wrong(now: Millis) -> Millis {
    let offset = std::env::var(OFFSET).ok();
    let seconds = offset.and_then(|offset| offset.parse::<i64>().ok());
    let shifted = now
        .0
        .saturating_add(seconds.unwrap_or_default().saturating_mul(1000));
    Millis(shifted.max(0))
}
