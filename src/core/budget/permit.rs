//! One turn: what the budget gives out, and what it is told of it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Budget, State};

/// The right to do one step now. Dropped without a word it counts as not used.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    pub(super) budget: Budget,
    pub(super) began: Instant,
    pub(super) limited: bool,
    /// Whether nobody has said yet what became of the step.
    pub(super) open: bool,
}

impl Permit {
    /// Whether the account was limited when it was given.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// The step is done; it carried this many messages.
    pub fn passed(mut self, messages: usize) {
        self.close(|state, permit| state.passed(permit.began, permit.limited, messages));
    }

    /// The other side wants us slower, and says or does not say for how long.
    pub fn refused(mut self, after: Option<Duration>) {
        let learns = self.budget.0.learns;
        self.close(|state, permit| state.refused(permit.began, permit.limited, after, learns));
    }

    /// The step failed, and may have been counted.
    pub fn spent(mut self) {
        self.close(|state, permit| {
            if permit.limited {
                state.spent(permit.began);
            }
        });
    }

    fn close(&mut self, end: impl FnOnce(&mut State, &Self)) {
        end(&mut self.budget.lock(), self);
        self.open = false;
        self.budget.tell();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.open && self.limited {
            if let Some(gate) = &mut self.budget.lock().gate {
                gate.busy = false;
            }
            self.budget.tell();
        }
    }
}
