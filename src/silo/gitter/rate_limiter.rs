//! One budget for all requests of the account. Gitter counts 100 per minute for all rooms together and reports the
//! remaining number in every response, so the limiter counts the requests of the last minute and corrects itself by the
//! headers. After a rate limit error or an outage it begins slowly.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Gitter's window is 60 s from the first request that it sees; the extra second allows for different travel times.
const WINDOW: Duration = Duration::from_secs(61);

/// The longest that a window can last, and so the wait where Gitter's own number is not plausible.
pub const MAX_WAIT: Duration = Duration::from_mins(1);
/// How many requests may be in flight at first; successful responses raise it.
const INITIAL_CONCURRENCY: u32 = 4;
/// The limit while Gitter does not report what is left: at most so many are rejected together.
const UNKNOWN_LIMIT_CONCURRENCY: u32 = 3;
/// From this limit on, requests in flight are no longer counted.
const UNLIMITED_CONCURRENCY: u32 = 32;

/// The priority of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// It delivers something.
    Send,
    /// It reads something that is waited for.
    Read,
    /// It checks that no message was missed.
    Audit,
}

/// Paces the requests to Gitter's limit, sends first; a fifth of the budget is reserved for reads.
pub struct RateLimiter {
    limit: usize,
    state: Mutex<State>,
    changed: Notify,
    // One queue per priority, so that requests of the same priority keep their order.
    queues: [tokio::sync::Mutex<()>; 3],
}

#[derive(Default)]
struct State {
    /// The requests of the last window, oldest first.
    recent: VecDeque<(Instant, Priority)>,
    sends: usize,
    /// Requests in flight.
    in_flight: u32,
    sends_waiting: usize,
    reads_waiting: usize,
    /// After a 429 no request is sent before this.
    blocked_until: Option<Instant>,
    /// Rate limit errors since the last accepted request, and when the last one came.
    refusals: u32,
    refused_at: Option<Instant>,
    /// Gitter rejected a request although it had reported that some were left.
    headers_lie: bool,
    /// The limit of requests in flight; `None` when there is none.
    careful: Option<u32>,
    /// How many requests Gitter reported as left, and until when that is valid.
    server: Option<(u32, Instant)>,
}

impl RateLimiter {
    /// A limit of this many requests per minute, at least 5.
    pub fn new(requests_per_minute: u32) -> Self {
        Self {
            limit: usize::try_from(requests_per_minute)
                .unwrap_or(usize::MAX)
                .max(5),
            state: Mutex::new(State {
                careful: Some(INITIAL_CONCURRENCY),
                ..State::default()
            }),
            changed: Notify::new(),
            queues: Default::default(),
        }
    }

    /// Waits until this request may be sent. The caller keeps the slot until Gitter answered.
    pub async fn turn(&self, need: Priority) -> RequestSlot<'_> {
        let _waiting = QueuedRequest::new(self, need);
        let [sends, reads, audits] = &self.queues;
        let queue = match need {
            Priority::Send => sends,
            Priority::Read => reads,
            Priority::Audit => audits,
        };
        let _first_of_its_kind = queue.lock().await;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let Some(wake) = self.state().earliest(need, self.limit, now) else {
                return RequestSlot {
                    rate_limiter: self,
                    began: now,
                };
            };
            tracing::debug!(need = ?need, wait_ms = u64::try_from((wake - now).as_millis()).unwrap_or(u64::MAX),
                "Waiting for the request budget");
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                () = changed => {}
            }
        }
    }

    /// Gitter is out: when it is back, one request goes first.
    pub fn out(&self) {
        self.state().careful = Some(1);
    }

    /// How many requests per minute audits may send: half of what is reserved for reads.
    pub fn audits_per_minute(&self) -> u32 {
        u32::try_from(reserve(self.limit) / 2)
            .unwrap_or(u32::MAX)
            .max(1)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many requests are reserved for reads.
fn reserve(limit: usize) -> usize {
    (limit / 5).max(1)
}

impl State {
    /// When this request may be sent: `None` is now, and the request is counted at once.
    fn earliest(&mut self, need: Priority, limit: usize, now: Instant) -> Option<Instant> {
        while let Some((at, kind)) = self.recent.front().copied() {
            if at + WINDOW > now {
                break;
            }
            self.recent.pop_front();
            self.sends -= usize::from(kind == Priority::Send);
        }
        if let Some(until) = self.blocked_until.filter(|until| *until > now) {
            return Some(until);
        }
        if let Some((0, until)) = self.server.filter(|(_, until)| *until > now) {
            return Some(until);
        }
        if self.careful.is_some_and(|most| self.in_flight >= most) {
            return Some(now + WINDOW);
        }
        if self.recent.len() >= limit {
            return self.recent.front().map(|(at, _)| *at + WINDOW);
        }
        let reserve = reserve(limit);
        let reads = self.recent.len() - self.sends;
        let room = match need {
            Priority::Send => self.sends < limit - reserve,
            Priority::Read if self.sends_waiting > 0 => reads < reserve,
            Priority::Read => reads < limit - reserve,
            Priority::Audit => self.sends_waiting + self.reads_waiting == 0 && reads < reserve,
        };
        if !room {
            let oldest = self
                .recent
                .iter()
                .find(|(_, kind)| (*kind == Priority::Send) == (need == Priority::Send));
            return Some(oldest.map_or(now + Duration::from_secs(1), |(at, _)| *at + WINDOW));
        }
        self.recent.push_back((now, need));
        self.sends += usize::from(need == Priority::Send);
        self.in_flight += 1;
        if let Some((left, _)) = &mut self.server {
            *left = left.saturating_sub(1);
        }
        None
    }
}

/// A request in flight.
pub struct RequestSlot<'a> {
    rate_limiter: &'a RateLimiter,
    began: Instant,
}

impl RequestSlot<'_> {
    /// Gitter answered 429 and asked for this wait, if that is plausible. Returns for how long no request is sent.
    pub fn refused(&self, asked: Option<Duration>) -> Duration {
        let now = Instant::now();
        let mut state = self.rate_limiter.state();
        state.headers_lie |= state
            .server
            .is_some_and(|(left, until)| left > 0 && until > now);
        // Requests that were in flight together and rejected together count once.
        if state.refused_at.is_none_or(|last| self.began >= last) {
            state.refusals += 1;
            state.refused_at = Some(now);
        }
        // After a second rejection in a row the limiter ignores the wait that Gitter asks for.
        let wait = asked
            .filter(|wait| state.refusals < 2 && !wait.is_zero())
            .unwrap_or(MAX_WAIT);
        let wait = wait + Duration::from_millis(rand::random_range(50..1000));
        state.careful = Some(1);
        state.blocked_until = state.blocked_until.max(Some(now + wait));
        wait
    }

    /// Gitter accepted the request; `limits_known` is whether it reported how many are left.
    pub fn worked(&self, limits_known: bool) {
        let mut state = self.rate_limiter.state();
        state.refusals = 0;
        state.careful = state
            .careful
            .map(|most| most.saturating_mul(2))
            .filter(|most| *most < UNLIMITED_CONCURRENCY);
        if !limits_known || state.headers_lie {
            state.careful = Some(
                state
                    .careful
                    .unwrap_or(UNKNOWN_LIMIT_CONCURRENCY)
                    .min(UNKNOWN_LIMIT_CONCURRENCY),
            );
        }
    }

    /// The numbers of the response headers: requests left, and when the count restarts. Returns whether they are
    /// plausible.
    pub fn learn(&self, remaining: u32, reset_in: Duration) -> bool {
        if reset_in.is_zero() {
            return false;
        }
        let until = Instant::now() + reset_in;
        let mut state = self.rate_limiter.state();
        // Gitter has not counted the other requests in flight yet, and responses may arrive in another order.
        let mut left = remaining.saturating_sub(state.in_flight.saturating_sub(1));
        if let Some((known, known_until)) = state.server
            && until.duration_since(known_until) + known_until.duration_since(until)
                < Duration::from_secs(3)
        {
            left = left.min(known);
        }
        state.server = Some((left, until));
        true
    }
}

impl Drop for RequestSlot<'_> {
    fn drop(&mut self) {
        let mut state = self.rate_limiter.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        drop(state);
        self.rate_limiter.changed.notify_waiters();
    }
}

/// Counts the waiting requests, also when a wait is cancelled.
struct QueuedRequest<'a> {
    rate_limiter: &'a RateLimiter,
    need: Priority,
}

impl<'a> QueuedRequest<'a> {
    fn new(pacer: &'a RateLimiter, need: Priority) -> Self {
        let mut state = pacer.state();
        match need {
            Priority::Send => state.sends_waiting += 1,
            Priority::Read => state.reads_waiting += 1,
            Priority::Audit => {}
        }
        drop(state);
        Self {
            rate_limiter: pacer,
            need,
        }
    }
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        let mut state = self.rate_limiter.state();
        match self.need {
            Priority::Send => state.sends_waiting -= 1,
            Priority::Read => state.reads_waiting -= 1,
            Priority::Audit => return,
        }
        drop(state);
        self.rate_limiter.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream::FuturesUnordered};

    use super::*;

    /// Seconds from the start at which each of `count` requests was let through.
    async fn times(pacer: &RateLimiter, need: Priority, count: usize) -> Vec<u64> {
        let start = Instant::now();
        let mut times = Vec::new();
        for _ in 0..count {
            drop(pacer.turn(need).await);
            times.push(start.elapsed().as_secs());
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_sees_more_requests_than_allowed() {
        let pacer = RateLimiter::new(95);
        let (sends, reads) = tokio::join!(
            times(&pacer, Priority::Send, 400),
            times(&pacer, Priority::Read, 100)
        );
        let mut all: Vec<u64> = sends.into_iter().chain(reads).collect();
        all.sort_unstable();
        for (index, from) in all.iter().enumerate() {
            let within = all[index..]
                .iter()
                .take_while(|at| **at < from + 60)
                .count();
            assert!(
                within <= 95,
                "{within} requests in the minute from {from} s"
            );
        }
        assert!(
            *all.last().unwrap() < 7 * 62,
            "the budget is used: {:?}",
            all.last()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn sends_leave_a_fifth_to_reads_and_go_first() {
        let pacer = RateLimiter::new(100);
        assert_eq!(times(&pacer, Priority::Send, 80).await.last(), Some(&0));
        let start = Instant::now();
        let (late_send, reads) = tokio::join!(
            async {
                drop(pacer.turn(Priority::Send).await);
                start.elapsed().as_secs()
            },
            times(&pacer, Priority::Read, 20)
        );
        assert_eq!(reads.last(), Some(&0), "reads have their share at once");
        assert_eq!(late_send, 61);
    }

    #[tokio::test(start_paused = true)]
    async fn audits_wait_for_everybody() {
        let pacer = RateLimiter::new(10);
        let first = std::sync::Mutex::new(Vec::new());
        times(&pacer, Priority::Send, 8).await;
        times(&pacer, Priority::Read, 2).await;
        let waiting = FuturesUnordered::new();
        for need in [Priority::Audit, Priority::Send, Priority::Read] {
            let (pacer, first) = (&pacer, &first);
            waiting.push(async move {
                drop(pacer.turn(need).await);
                first.lock().unwrap().push(need);
            });
        }
        waiting.collect::<Vec<()>>().await;
        assert_eq!(first.lock().unwrap().last(), Some(&Priority::Audit));
    }

    #[tokio::test(start_paused = true)]
    async fn gitters_own_count_corrects_ours() {
        let pacer = RateLimiter::new(95);
        let turn = pacer.turn(Priority::Send).await;
        turn.learn(2, Duration::from_secs(30));
        drop(turn);
        assert_eq!(times(&pacer, Priority::Send, 4).await, [0, 0, 30, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_after_a_refusal_until_its_time() {
        let pacer = RateLimiter::new(95);
        let turn = pacer.turn(Priority::Send).await;
        turn.refused(Some(Duration::from_secs(12)));
        drop(turn);
        let (send, read) = tokio::join!(
            times(&pacer, Priority::Send, 1),
            times(&pacer, Priority::Read, 1)
        );
        assert!(send[0] == 12 && read[0] == 12, "{send:?} {read:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_goes_first_after_an_outage_and_the_rest_after_its_success() {
        let pacer = RateLimiter::new(95);
        pacer.out();
        let start = Instant::now();
        let under_way = Mutex::new((0_usize, Vec::new()));
        let all: FuturesUnordered<_> = (0..40)
            .map(|_| async {
                let turn = pacer.turn(Priority::Send).await;
                under_way.lock().unwrap().0 += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut seen = under_way.lock().unwrap();
                let at_once = seen.0;
                seen.1.push((start.elapsed().as_secs(), at_once));
                seen.0 -= 1;
                turn.worked(true);
            })
            .collect();
        all.collect::<Vec<()>>().await;
        let (_, seen) = under_way.into_inner().unwrap();
        assert_eq!(seen[0], (1, 1), "the first one alone");
        assert!(start.elapsed() < Duration::from_secs(8), "and not for long");
    }

    /// The remaining number that a server reports, given the true one.
    type Header = fn(u32, Duration) -> Option<(u32, Duration)>;

    /// A server that counts as Gitter does.
    struct Server {
        ends: Instant,
        used: u32,
        asked: u32,
        /// Requests of another client with the same token in each window.
        others: u32,
    }

    impl Server {
        fn ask(&mut self) -> Result<(u32, Duration), Duration> {
            let now = Instant::now();
            if now >= self.ends {
                self.ends = now + Duration::from_mins(1);
                self.used = self.others;
            }
            self.used += 1;
            self.asked += 1;
            let reset = self.ends - now;
            if self.used > 100 {
                return Err(reset);
            }
            Ok((100 - self.used, reset))
        }
    }

    /// Twelve people send continuously for half an hour; returns the requests per window and how many were accepted.
    async fn half_an_hour(header: Header, others: u32) -> (f64, u32) {
        const MINUTES: u64 = 30;
        let pacer = RateLimiter::new(95);
        let start = Instant::now();
        let server = Mutex::new(Server {
            ends: start,
            used: 0,
            asked: 0,
            others,
        });
        let through = Mutex::new(0);
        let people: FuturesUnordered<_> = (0..12)
            .map(|person| {
                let need = [Priority::Send, Priority::Send, Priority::Read][person % 3];
                let (pacer, server, through) = (&pacer, &server, &through);
                async move {
                    while start.elapsed() < Duration::from_mins(MINUTES) {
                        let turn = pacer.turn(need).await;
                        tokio::time::sleep(Duration::from_millis(80)).await;
                        let answer = server.lock().unwrap().ask();
                        tokio::time::sleep(Duration::from_millis(80)).await;
                        let (left, reset) = answer.unwrap_or_else(|reset| (0, reset));
                        let told = header(left, reset);
                        let known = told.is_some_and(|(left, reset)| turn.learn(left, reset));
                        if answer.is_ok() {
                            turn.worked(known);
                            *through.lock().unwrap() += 1;
                        } else {
                            let wait = turn.refused(told.map(|(_, reset)| reset));
                            drop(turn);
                            tokio::time::sleep(wait).await;
                        }
                    }
                }
            })
            .collect();
        people.collect::<Vec<()>>().await;
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        let asked = server.into_inner().unwrap().asked;
        let per_window = f64::from(asked) / minutes + f64::from(others);
        (per_window, through.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn f18_whatever_the_headers_contain_hardly_more_is_requested_than_allowed() {
        let headers: [(&str, Header); 6] = [
            ("true", |left, reset| Some((left, reset))),
            ("missing", |_, _| None),
            ("in seconds, so long past", |left, _| {
                Some((left, Duration::ZERO))
            }),
            ("early", |left, reset| Some((left, reset / 10))),
            ("late", |left, _| Some((left, MAX_WAIT))),
            ("always plenty", |_, reset| Some((100, reset))),
        ];
        for (name, header) in headers {
            for others in [0, 50] {
                let (per_window, through) = half_an_hour(header, others).await;
                assert!(
                    per_window <= 105.0,
                    "{name}, {others} by others: {per_window:.1}"
                );
                let least = (100 - others) * 30 * 45 / 100;
                assert!(
                    through >= least,
                    "{name}, {others} by others: only {through}"
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_given_up_leaves_no_trace() {
        let pacer = RateLimiter::new(5);
        times(&pacer, Priority::Send, 4).await;
        assert!(
            tokio::time::timeout(Duration::from_secs(1), pacer.turn(Priority::Send))
                .await
                .is_err()
        );
        assert_eq!(times(&pacer, Priority::Audit, 1).await, [0]);
    }
}
