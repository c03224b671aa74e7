//! One turn: the permit that the budget gives out, and the result that the lane reports.

use std::time::Duration;

use tokio::time::Instant;

use super::{Budget, State};

/// The right to perform one step now. Dropped without a result it counts as not used.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    pub(super) budget: Budget,
    pub(super) began: Instant,
    pub(super) limited: bool,
    /// Whether the result of the step is not reported yet.
    pub(super) unreported: bool,
}

impl Permit {
    /// Whether the account was limited when the permit was given.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// The step is done; it carried this many messages.
    pub fn record_success(mut self, messages: usize) {
        self.close(|state, permit| state.passed(permit.began, permit.limited, messages));
    }

    /// The other side refused the step because of its rate limit; `after` is the wait it asked for, if it named one.
    pub fn record_rate_limit(mut self, after: Option<Duration>) {
        let learns = self.budget.0.learns;
        self.close(|state, permit| state.refused(permit.began, permit.limited, after, learns));
    }

    /// The step failed, and may have been counted.
    pub fn record_failure(mut self) {
        self.close(|state, permit| {
            if permit.limited {
                state.spent(permit.began);
            }
        });
    }

    fn close(&mut self, end: impl FnOnce(&mut State, &Self)) {
        end(&mut self.budget.lock(), self);
        self.unreported = false;
        self.budget.notify_waiters();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.unreported && self.limited {
            if let Some(gate) = &mut self.budget.lock().gate {
                gate.busy = false;
            }
            self.budget.notify_waiters();
        }
    }
}
