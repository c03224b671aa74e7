//! The state of the connection to Matterbridge.

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
    /// Messages from now on may have to be caught up.
    pub fn behind(&self) {
        self.inner().live = false;
    }

    /// All messages are caught up, and new ones arrive as they are written.
    pub fn live(&self) {
        self.inner().live = true;
    }

    /// Matterbridge refuses the token.
    pub fn signed_out(&self) {
        self.inner().signed_out = true;
    }

    /// Matterbridge accepts the token again.
    pub fn note_signed_in(&self) {
        self.inner().signed_out = false;
    }

    /// Whether Matterbridge refuses the token.
    pub fn is_signed_out(&self) -> bool {
        self.inner().signed_out
    }

    /// The overall state.
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
