//! A circuit breaker, shared by all requests to one service: while the service is out, one request at a time probes it,
//! at intervals that grow to five minutes, and no other request is sent.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_core::backoff;
use tokio::time::Instant;

/// Failures in a row that do not yet open the circuit.
const FAILURE_THRESHOLD: u32 = 3;
/// How long a request waits while another one is the probe.
const PROBE_WAIT: Duration = Duration::from_secs(5);

/// The circuit breaker of one service.
#[derive(Default)]
pub struct CircuitBreaker(Mutex<State>);

#[derive(Default)]
struct State {
    failures: u32,
    last_failure: Option<Instant>,
    /// While the service is out: no request before this.
    until: Option<Instant>,
    asking: bool,
}

impl CircuitBreaker {
    /// Whether a request may be sent now; if not, how long to wait.
    pub fn admits(&self) -> Result<(), Duration> {
        let now = Instant::now();
        match self.state().until {
            Some(until) if until > now => Err(later(until - now)),
            _ => Ok(()),
        }
    }

    /// Whether the service is out.
    pub fn is_open(&self) -> bool {
        self.state().until.is_some()
    }

    /// A permit for one request, or how long to wait before trying again.
    pub fn acquire(&self) -> Result<Probe<'_>, Duration> {
        let now = Instant::now();
        let mut state = self.state();
        let alone = match state.until {
            None => false,
            Some(until) if until > now => return Err(later(until - now)),
            Some(_) if state.asking => return Err(later(PROBE_WAIT)),
            Some(_) => true,
        };
        state.asking |= alone;
        drop(state);
        Ok(Probe {
            breaker: self,
            began: now,
            alone,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds jitter: requests that wait for the same moment start one after the other.
fn later(wait: Duration) -> Duration {
    wait + Duration::from_millis(rand::random_range(50..2_000))
}

/// The pause after this many failures of a service that is out: full jitter, and at the end never below the longest
/// back-off, because then only one request is sent at all.
fn pause(failures: u32) -> Duration {
    if backoff::longest(failures) < backoff::CEILING {
        backoff::after(failures)
    } else {
        backoff::CEILING.mul_f64(rand::random_range(1.0..1.1))
    }
}

/// A permit for one request. The caller reports the result; a dropped permit changes nothing.
pub struct Probe<'a> {
    breaker: &'a CircuitBreaker,
    began: Instant,
    /// Whether all other requests wait for this one.
    alone: bool,
}

impl Probe<'_> {
    /// The service answered, whatever the answer. Returns whether it was out before.
    pub fn answered(self) -> bool {
        let mut state = self.breaker.state();
        state.failures = 0;
        state.until.take().is_some()
    }

    /// The service did not answer. Returns whether it now counts as out and did not before.
    pub fn silent(self) -> bool {
        let mut state = self.breaker.state();
        // Requests that failed together count as one failure.
        if state.last_failure.is_some_and(|last| self.began < last) {
            return false;
        }
        let now = Instant::now();
        state.last_failure = Some(now);
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURE_THRESHOLD {
            return false;
        }
        let wait = pause(state.failures - FAILURE_THRESHOLD + 1);
        state.until.replace(now + wait).is_none()
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if self.alone {
            self.breaker.state().asking = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream::FuturesUnordered};

    use super::*;

    /// Twenty callers of a service that is out for six hours; the times of the requests.
    async fn six_hours(breaker: &CircuitBreaker) -> Vec<Duration> {
        let start = Instant::now();
        let asked = Mutex::new(Vec::new());
        let callers: FuturesUnordered<_> = (0..20)
            .map(|_| async {
                while start.elapsed() < Duration::from_hours(6) {
                    match breaker.acquire() {
                        Ok(probe) => {
                            asked.lock().unwrap().push(start.elapsed());
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            probe.silent();
                        }
                        Err(wait) => tokio::time::sleep(wait).await,
                    }
                }
            })
            .collect();
        callers.collect::<Vec<()>>().await;
        asked.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn d13_a_service_that_is_out_is_asked_once_in_five_minutes_at_the_end() {
        let breaker = CircuitBreaker::default();
        let asked = six_hours(&breaker).await;
        let last_hour = asked
            .iter()
            .filter(|at| **at > Duration::from_hours(5))
            .count();
        assert!(
            (8..=12).contains(&last_hour),
            "{last_hour} in the last hour"
        );
        assert!(asked.len() < 60 + 90, "{} in all", asked.len());
        let settled = asked.iter().filter(|at| **at > Duration::from_hours(1));
        let settled: Vec<_> = settled.collect();
        for pair in settled.windows(2) {
            let [one, next] = pair else { continue };
            assert!(**next >= **one + Duration::from_mins(5));
        }
        // The service is back: one probe finds out, then all requests may be sent.
        tokio::time::sleep(Duration::from_mins(6)).await;
        let first = breaker
            .acquire()
            .unwrap_or_else(|_| panic!("somebody asks"));
        assert!(breaker.acquire().is_err(), "one at a time");
        assert!(first.answered());
        assert!(breaker.acquire().is_ok() && breaker.acquire().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_happen_together_are_one() {
        let breaker = CircuitBreaker::default();
        let probes: Vec<_> = (0..50).filter_map(|_| breaker.acquire().ok()).collect();
        tokio::time::advance(Duration::from_secs(1)).await;
        for probe in probes {
            assert!(!probe.silent());
        }
        assert!(breaker.acquire().is_ok(), "one failure is bad luck");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_between_failures_forgives_them() {
        let breaker = CircuitBreaker::default();
        for _ in 0..20 {
            for _ in 0..FAILURE_THRESHOLD - 1 {
                tokio::time::advance(Duration::from_millis(1)).await;
                assert!(!breaker.acquire().is_ok_and(Probe::silent));
            }
            assert!(!breaker.acquire().is_ok_and(Probe::answered));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_who_gave_up_asking_leaves_the_turn_to_the_next() {
        let breaker = CircuitBreaker::default();
        for _ in 0..FAILURE_THRESHOLD {
            tokio::time::advance(Duration::from_millis(1)).await;
            let _out = breaker.acquire().is_ok_and(Probe::silent);
        }
        tokio::time::advance(Duration::from_mins(6)).await;
        drop(breaker.acquire());
        assert!(breaker.acquire().is_ok());
    }
}
