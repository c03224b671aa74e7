//! The rate limit: a fixed window per user and OAuth client, shared by all endpoints. Refused calls are counted and do
//! not lengthen the window.

use std::collections::HashMap;

/// The values of the three rate limit headers of a response.
#[derive(Clone, Copy)]
pub(super) struct Allowance {
    pub(super) limit: u64,
    pub(super) remaining: u64,
    /// End of the window in **milliseconds** since the epoch.
    pub(super) reset_ms: i64,
    pub(super) refused: bool,
}

struct Window {
    ends_ms: i64,
    used: u64,
}

/// All windows.
#[derive(Default)]
pub(super) struct Windows(HashMap<String, Window>);

impl Windows {
    /// Counts one call.
    pub(super) fn take(&mut self, key: &str, now_ms: i64, limit: u64, window_ms: i64) -> Allowance {
        let window = self.0.entry(key.to_owned()).or_insert(Window {
            ends_ms: 0,
            used: 0,
        });
        if now_ms >= window.ends_ms {
            window.ends_ms = now_ms + window_ms;
            window.used = 0;
        }
        window.used += 1;
        Allowance {
            limit,
            remaining: limit.saturating_sub(window.used),
            reset_ms: window.ends_ms,
            refused: window.used > limit,
        }
    }
}
