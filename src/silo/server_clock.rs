//! A server's clock, as far as the `Date` of its answers tells: what people there have dated later is not yet.

use std::sync::{Mutex, PoisonError};

use footbridge_store::Millis;
use reqwest::header::{DATE, HeaderMap};
use tokio::time::Instant;

/// A cursor that is no more than this before a server's time is none from the future: `Date` has whole seconds, and
/// several machines may answer. In milliseconds.
const CLOCK_SKEW: i64 = 5_000;

/// The moment that a `Date` header names.
pub fn date_header(headers: &HeaderMap) -> Option<Millis> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date);
    Some(Millis(parsed.ok()?.as_millisecond()))
}

/// Whether a stored moment lies in the future of this one.
pub fn is_ahead(stored: Millis, now: Millis) -> bool {
    stored.0 > now.0.saturating_add(CLOCK_SKEW)
}

/// What was learnt of a server's clock.
#[derive(Default)]
pub struct ServerClock(Mutex<Option<(Millis, Instant)>>);

impl ServerClock {
    /// Learns from an answer.
    pub fn learn(&self, headers: &HeaderMap) {
        if let Some(date) = date_header(headers) {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some((date, Instant::now()));
        }
    }

    /// The time there, up to a second early; `None` where no answer has told.
    pub fn now(&self) -> Option<Millis> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.map(|(date, heard)| date.plus(heard.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::HeaderValue;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_date_of_an_answer_goes_on_by_itself() {
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
