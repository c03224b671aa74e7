//! How long to wait after the n-th failure: doubling with full jitter, so that many lanes that failed together do not retry
//! together.

use std::time::Duration;

/// The longest wait.
pub const CEILING: Duration = Duration::from_mins(5);
/// The longest first wait.
const FLOOR: Duration = Duration::from_secs(1);

/// The wait after `failures` failures in a row, at least a tenth of the second that it starts from.
#[must_use]
pub fn after(failures: u32) -> Duration {
    let longest = longest(failures);
    longest.mul_f64(rand::random_range(0.1..=1.0))
}

/// The upper bound of [`after`].
#[must_use]
pub fn longest(failures: u32) -> Duration {
    FLOOR
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
        .min(CEILING)
}

/// A back-off that counts its failures; for connections, which have no row in the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure; returns the wait.
    pub fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        after(self.failures)
    }

    /// A success: the next wait is short again.
    pub fn worked(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_ceiling() {
        assert_eq!(longest(1), Duration::from_secs(1));
        assert_eq!(longest(4), Duration::from_secs(8));
        assert_eq!(longest(10), CEILING);
        assert_eq!(longest(u32::MAX), CEILING);
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        for failures in 1..20 {
            let wait = after(failures);
            assert!(wait <= longest(failures) && wait >= longest(failures) / 10);
        }
    }
}
