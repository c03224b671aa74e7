//! How the connection to Matterbridge is doing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::FeedState;

/// The state of one API account's feed.
#[derive(Default)]
pub struct FeedHealth(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    live: bool,
    signed_out: bool,
}

impl FeedHealth {
    /// What is said from now on may have to be caught up with.
    pub fn behind(&self) {
        self.inner().live = false;
    }

    /// Everything was caught up with, and messages arrive as they are written.
    pub fn live(&self) {
        self.inner().live = true;
    }

    /// The token is not accepted.
    pub fn signed_out(&self) {
        self.inner().signed_out = true;
    }

    /// The token is accepted again.
    pub fn note_signed_in(&self) {
        self.inner().signed_out = false;
    }

    /// Whether the token is not accepted.
    pub fn is_signed_out(&self) -> bool {
        self.inner().signed_out
    }

    /// All in one word.
    pub fn state(&self) -> FeedState {
        let inner = self.inner();
        if inner.signed_out {
            FeedState::Down
        } else if inner.live {
            FeedState::Live
        } else {
            FeedState::Connecting
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_not_accepted_needs_a_person_before_everything_else() {
        let health = FeedHealth::default();
        assert_eq!(health.state(), FeedState::Connecting);
        health.live();
        assert_eq!(health.state(), FeedState::Live);
        health.signed_out();
        health.live();
        assert_eq!(health.state(), FeedState::Down);
        health.note_signed_in();
        assert_eq!(health.state(), FeedState::Live);
    }
}
