//! What is known of the account's syncs: when the last one was answered, whether the bridge has caught up, and the sync
//! that was in flight when the sync loop stopped.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use footbridge_core::clock::Clock;
use footbridge_store::Millis;

use super::sync_coverage::PendingSync;

/// The state of the account's syncs. The sync loop writes it; health and lanes read it.
pub(super) struct SyncState {
    clock: Clock,
    /// When the last sync response arrived.
    answered_at: Mutex<Option<Millis>>,
    /// Whether a sync response without new events has arrived since the start.
    caught_up: AtomicBool,
    /// Whether the next sync has to repeat the request of a sync that failed.
    repeats: AtomicBool,
    /// The sync that was in flight when the sync loop stopped.
    suspended: Mutex<Option<PendingSync>>,
    /// The number of events that audits found and no sync had returned, since the start.
    missed: AtomicU64,
}

impl SyncState {
    pub(super) fn of(clock: Clock) -> Self {
        Self {
            clock,
            answered_at: Mutex::default(),
            caught_up: AtomicBool::new(false),
            repeats: AtomicBool::new(true),
            suspended: Mutex::default(),
            missed: AtomicU64::new(0),
        }
    }

    /// When the last sync response arrived, if any.
    pub(super) fn last_sync(&self) -> Option<Millis> {
        *self
            .answered_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last sync that has ended was answered.
    pub(super) fn is_answered(&self) -> bool {
        !self.repeats.load(Ordering::SeqCst)
    }

    /// How many events the homeserver's syncs had omitted, as audits of the rooms' history found, since the start.
    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Whether the bridge has received everything that the homeserver had at the start.
    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::SeqCst)
    }

    /// A sync response has arrived.
    pub(super) fn arrived(&self) {
        let now = self.clock.now();
        *self
            .answered_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// The response is saved as far as the SDK's store is concerned: the next sync continues after it.
    pub(super) fn answered(&self) {
        self.repeats.store(false, Ordering::SeqCst);
    }

    /// A sync has failed. The homeserver may have processed it, and may repeat its response.
    pub(super) fn failed(&self) {
        self.repeats.store(true, Ordering::SeqCst);
    }

    /// A sync response brought nothing new.
    pub(super) fn caught_up(&self) {
        self.caught_up.store(true, Ordering::SeqCst);
    }

    /// An audit found events that no sync had brought.
    pub(super) fn add_missed(&self, count: u64) {
        self.missed.fetch_add(count, Ordering::Relaxed);
    }

    /// Keeps the sync in flight for the next run of the sync loop.
    pub(super) fn suspend(&self, sync: PendingSync) {
        *self.lock_suspended() = Some(sync);
    }

    /// Takes the sync that was in flight when the sync loop stopped.
    pub(super) fn resume(&self) -> Option<PendingSync> {
        self.lock_suspended().take()
    }

    fn lock_suspended(&self) -> MutexGuard<'_, Option<PendingSync>> {
        self.suspended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SyncState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyncState").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_failed_is_repeated_until_one_is_answered() {
        let state = SyncState::of(Clock::start());
        assert!(!state.is_answered() && state.last_sync().is_none());
        state.arrived();
        state.answered();
        assert!(state.is_answered() && state.last_sync().is_some());
        state.failed();
        assert!(!state.is_answered() && state.last_sync().is_some());
        assert!(!state.is_caught_up());
        state.caught_up();
        assert!(state.is_caught_up());
    }
}
