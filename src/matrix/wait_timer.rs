//! When to check the entries that wait for a room key, and since when their age has not been saved.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The timer of one account.
#[derive(Debug)]
pub(super) struct WaitTimer {
    /// After which time a notice is sent about an entry.
    notice_after: Duration,
    state: Mutex<TimerState>,
}

#[derive(Debug)]
struct TimerState {
    aged: Instant,
    next: Option<Instant>,
}

impl TimerState {
    fn new() -> Self {
        Self {
            aged: Instant::now(),
            next: None,
        }
    }
}

impl WaitTimer {
    /// A notice is sent about an entry that still waits `notice_after` it arrived.
    pub(super) fn of(notice_after: Duration) -> Self {
        Self {
            notice_after,
            state: Mutex::new(TimerState::new()),
        }
    }

    /// An entry starts to wait: a notice is sent if it still waits after a while.
    pub(super) fn begin_waiting(&self) {
        self.check_by(Instant::now() + self.notice_after);
    }

    /// The entries have to be checked at this time at the latest.
    pub(super) fn check_by(&self, at: Instant) {
        let mut state = self.lock();
        state.next = Some(state.next.map_or(at, |next| next.min(at)));
    }

    /// When the entries have to be checked; `None` where nothing waits.
    pub(super) fn next_check(&self) -> Option<Instant> {
        self.lock().next
    }

    /// The entries are checked now. Returns the time since the last check: what has to be added to their age.
    pub(super) fn restart(&self) -> Duration {
        let mut state = self.lock();
        let ran = state.aged.elapsed();
        *state = TimerState::new();
        ran
    }

    fn lock(&self) -> MutexGuard<'_, TimerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_of_several_checks_is_next_and_a_check_ends_them_all() {
        let timer = WaitTimer::of(Duration::from_secs(30));
        assert_eq!(timer.next_check(), None);
        let start = Instant::now();
        timer.begin_waiting();
        timer.check_by(start + Duration::from_secs(40));
        assert_eq!(timer.next_check(), Some(start + Duration::from_secs(30)));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(timer.restart(), Duration::from_secs(30));
        assert_eq!(timer.next_check(), None);
        assert_eq!(timer.restart(), Duration::ZERO);
    }
}
