//! One budget for all requests of the account. Gitter counts 100 a minute for all rooms together and says in
//! every answer how many are left, so we keep our own count of the last minute and let its headers correct it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Gitter's window is 60 s from the first request it sees; the extra second is for requests that travel
/// unequally fast.
const WINDOW: Duration = Duration::from_secs(61);

/// How urgent a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It delivers something.
    Send,
    /// It reads something that is waited for.
    Read,
    /// It checks that nothing was missed.
    Audit,
}

/// Lets requests through at the pace Gitter allows, sends first; a fifth of the budget is kept for reads.
pub struct Pacer {
    limit: usize,
    state: Mutex<State>,
    changed: Notify,
    // One queue per need, so that equals go in the order they came.
    queues: [tokio::sync::Mutex<()>; 3],
}

#[derive(Default)]
struct State {
    /// The requests of the last window, oldest first.
    recent: VecDeque<(Instant, Need)>,
    sends: usize,
    /// Requests let through whose answer is not there yet.
    in_flight: u32,
    sends_waiting: usize,
    reads_waiting: usize,
    /// After a 429 nothing goes out before this.
    blocked_until: Option<Instant>,
    /// What Gitter said is left, and until when that holds.
    server: Option<(u32, Instant)>,
}

impl Pacer {
    /// A pace of this many requests a minute, at least 5.
    pub fn new(requests_per_minute: u32) -> Self {
        Self {
            limit: usize::try_from(requests_per_minute)
                .unwrap_or(usize::MAX)
                .max(5),
            state: Mutex::default(),
            changed: Notify::new(),
            queues: Default::default(),
        }
    }

    /// Waits for this request's turn. Keep the answer until Gitter answered.
    pub async fn turn(&self, need: Need) -> Turn<'_> {
        let _waiting = Waiting::new(self, need);
        let [sends, reads, audits] = &self.queues;
        let queue = match need {
            Need::Send => sends,
            Need::Read => reads,
            Need::Audit => audits,
        };
        let _first_of_its_kind = queue.lock().await;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let Some(wake) = self.state().earliest(need, self.limit, now) else {
                return Turn { pacer: self };
            };
            tracing::debug!(need = ?need, wait_ms = u64::try_from((wake - now).as_millis()).unwrap_or(u64::MAX),
                "Waiting for the request budget");
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                () = changed => {}
            }
        }
    }

    /// Gitter refused for going too fast: nothing goes out for `wait`.
    pub fn refused(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.state();
        state.blocked_until = state.blocked_until.max(Some(until));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When this request may go: `None` is now, and it is counted at once.
    fn earliest(&mut self, need: Need, limit: usize, now: Instant) -> Option<Instant> {
        while let Some((at, kind)) = self.recent.front().copied() {
            if at + WINDOW > now {
                break;
            }
            self.recent.pop_front();
            self.sends -= usize::from(kind == Need::Send);
        }
        if let Some(until) = self.blocked_until.filter(|until| *until > now) {
            return Some(until);
        }
        if let Some((0, until)) = self.server.filter(|(_, until)| *until > now) {
            return Some(until);
        }
        if self.recent.len() >= limit {
            return self.recent.front().map(|(at, _)| *at + WINDOW);
        }
        let reserve = (limit / 5).max(1);
        let reads = self.recent.len() - self.sends;
        let room = match need {
            Need::Send => self.sends < limit - reserve,
            Need::Read if self.sends_waiting > 0 => reads < reserve,
            Need::Read => reads < limit - reserve,
            Need::Audit => self.sends_waiting + self.reads_waiting == 0 && reads < reserve,
        };
        if !room {
            let oldest = self
                .recent
                .iter()
                .find(|(_, kind)| (*kind == Need::Send) == (need == Need::Send));
            return Some(oldest.map_or(now + Duration::from_secs(1), |(at, _)| *at + WINDOW));
        }
        self.recent.push_back((now, need));
        self.sends += usize::from(need == Need::Send);
        self.in_flight += 1;
        if let Some((left, _)) = &mut self.server {
            *left = left.saturating_sub(1);
        }
        None
    }
}

/// A request on its way.
pub struct Turn<'a> {
    pacer: &'a Pacer,
}

impl Turn<'_> {
    /// What the answer's headers said: requests left, and when the count starts anew.
    pub fn learn(&self, remaining: u32, reset_in: Duration) {
        let until = Instant::now() + reset_in;
        let mut state = self.pacer.state();
        // The others on their way are not in Gitter's count yet, and answers may overtake each other.
        let mut left = remaining.saturating_sub(state.in_flight.saturating_sub(1));
        if let Some((known, known_until)) = state.server
            && until.duration_since(known_until) + known_until.duration_since(until)
                < Duration::from_secs(3)
        {
            left = left.min(known);
        }
        state.server = Some((left, until));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.pacer.state();
        state.in_flight = state.in_flight.saturating_sub(1);
    }
}

/// Counts who waits, also when the waiting is given up.
struct Waiting<'a> {
    pacer: &'a Pacer,
    need: Need,
}

impl<'a> Waiting<'a> {
    fn new(pacer: &'a Pacer, need: Need) -> Self {
        let mut state = pacer.state();
        match need {
            Need::Send => state.sends_waiting += 1,
            Need::Read => state.reads_waiting += 1,
            Need::Audit => {}
        }
        drop(state);
        Self { pacer, need }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.pacer.state();
        match self.need {
            Need::Send => state.sends_waiting -= 1,
            Need::Read => state.reads_waiting -= 1,
            Need::Audit => return,
        }
        drop(state);
        self.pacer.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream::FuturesUnordered};

    use super::*;

    /// Seconds from the start at which each of `count` requests was let through.
    async fn times(pacer: &Pacer, need: Need, count: usize) -> Vec<u64> {
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
        let pacer = Pacer::new(95);
        let (sends, reads) = tokio::join!(
            times(&pacer, Need::Send, 400),
            times(&pacer, Need::Read, 100)
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
        let pacer = Pacer::new(100);
        assert_eq!(times(&pacer, Need::Send, 80).await.last(), Some(&0));
        let start = Instant::now();
        let (late_send, reads) = tokio::join!(
            async {
                drop(pacer.turn(Need::Send).await);
                start.elapsed().as_secs()
            },
            times(&pacer, Need::Read, 20)
        );
        assert_eq!(reads.last(), Some(&0), "reads have their share at once");
        assert_eq!(late_send, 61);
    }

    #[tokio::test(start_paused = true)]
    async fn audits_wait_for_everybody() {
        let pacer = Pacer::new(10);
        let first = std::sync::Mutex::new(Vec::new());
        times(&pacer, Need::Send, 8).await;
        times(&pacer, Need::Read, 2).await;
        let waiting = FuturesUnordered::new();
        for need in [Need::Audit, Need::Send, Need::Read] {
            let (pacer, first) = (&pacer, &first);
            waiting.push(async move {
                drop(pacer.turn(need).await);
                first.lock().unwrap().push(need);
            });
        }
        waiting.collect::<Vec<()>>().await;
        assert_eq!(first.lock().unwrap().last(), Some(&Need::Audit));
    }

    #[tokio::test(start_paused = true)]
    async fn gitters_own_count_corrects_ours() {
        let pacer = Pacer::new(95);
        let turn = pacer.turn(Need::Send).await;
        turn.learn(2, Duration::from_secs(30));
        drop(turn);
        assert_eq!(times(&pacer, Need::Send, 4).await, [0, 0, 30, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_goes_out_after_a_refusal_until_its_time() {
        let pacer = Pacer::new(95);
        pacer.refused(Duration::from_secs(12));
        let (send, read) = tokio::join!(times(&pacer, Need::Send, 1), times(&pacer, Need::Read, 1));
        assert_eq!((send, read), (vec![12], vec![12]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_given_up_leaves_no_trace() {
        let pacer = Pacer::new(5);
        times(&pacer, Need::Send, 4).await;
        assert!(
            tokio::time::timeout(Duration::from_secs(1), pacer.turn(Need::Send))
                .await
                .is_err()
        );
        assert_eq!(times(&pacer, Need::Audit, 1).await, [0]);
    }
}
