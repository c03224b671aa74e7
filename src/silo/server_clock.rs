//! A server's clock, known from the `Date` header of its responses: used to detect timestamps in its future.

use std::sync::{Mutex, PoisonError};

use footbridge_store::Millis;
use reqwest::header::{DATE, HeaderMap};
use tokio::time::Instant;

/// A cursor that is at most this far ahead of a server's time is not in its future: `Date` has whole seconds, and
/// several machines may answer. In milliseconds.
const CLOCK_SKEW: i64 = 5_000;

/// The time in a `Date` header.
pub fn date_header(headers: &HeaderMap) -> Option<Millis> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date);
    Some(Millis(parsed.ok()?.as_millisecond()))
}

/// Whether a stored time is in the future of `now`.
pub fn is_ahead(stored: Millis, now: Millis) -> bool {
    stored.0 > now.0.saturating_add(CLOCK_SKEW)
}

/// The last known time of a server, and when its response arrived.
#[derive(Default)]
pub struct ServerClock(Mutex<Option<(Millis, Instant)>>);

impl ServerClock {
    /// Reads the time from a response.
    pub fn learn(&self, headers: &HeaderMap) {
        if let Some(date) = date_header(headers) {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some((date, Instant::now()));
        }
    }

    /// The server's time, up to a second early; `None` until a response had one.
    pub fn now(&self) -> Option<Millis> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.map(|(date, received)| date.plus(received.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::HeaderValue;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_date_of_a_response_advances_by_itself() {
        let clock = ServerClock::default();
        assert_eq!(clock.now(), None);
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("no date"));
        clock.learn(&headers);
        assert_eq!(clock.now(), None);
        let date = HeaderValue::from_static("Thu, 01 Jan 1970 00:01:00 GMT");
        headers.insert(DATE, date);
        clock.learn(&headers);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now(), Some(Millis(62_000)));
        assert!(
            is_ahead(Millis(67_001), Millis(62_000)) && !is_ahead(Millis(67_000), Millis(62_000))
        );
    }
}
