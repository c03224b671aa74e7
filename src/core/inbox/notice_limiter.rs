//! The rate limit of the inbox's notices in a place: people can provoke them, and each one costs an event of the bridge's
//! account.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_store::Place;
use tokio::time::Instant;
use tracing::warn;

use crate::rate_limiter::{Rate, RateLimiter};

/// The kind of the notices about undecryptable entries, one for each sender.
pub(super) const UNREADABLE: &str = "unreadable";
const OF_SENDERS: Rate = Rate {
    burst: 20,
    every: Duration::from_mins(1),
};
/// For each other kind of notice and place.
const OF_KIND: Rate = Rate {
    burst: 10,
    every: Duration::from_mins(10),
};

/// For one person among those that a kind is about.
const OF_PERSON: Rate = Rate {
    burst: 2,
    every: Duration::from_hours(1),
};

/// How many notices were sent to which place. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct NoticeLimiter {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    buckets: RateLimiter<(Place, String)>,
    withheld: u64,
}

/// The kind of a notice: the first word of its id.
pub(super) fn kind(notice_id: &str) -> &str {
    notice_id.split(['-', '/']).next().unwrap_or_default()
}

/// The sub-kind of the notices about one person.
pub(super) fn personal(kind: &str, who: &str) -> String {
    format!("{kind} {who}")
}

impl NoticeLimiter {
    /// Whether one more notice of this kind may be sent there. If not, it is counted as withheld.
    pub(super) fn allows(&self, place: &Place, kind: &str) -> bool {
        let mut state = self.lock();
        let key = (place.clone(), kind.to_owned());
        let allows = state.buckets.has(&key, rate(kind), Instant::now());
        if !allows {
            state.withheld = state.withheld.saturating_add(1);
            if state.withheld.is_power_of_two() {
                warn!(place = %place, kind, withheld = state.withheld, "Too many notices of one kind; some are withheld");
            }
        }
        allows
    }

    /// Records a sent notice.
    pub(super) fn record(&self, place: &Place, kind: &str) {
        let key = (place.clone(), kind.to_owned());
        self.lock().buckets.take(&key, rate(kind), Instant::now());
    }

    pub(super) fn withheld(&self) -> u64 {
        self.lock().withheld
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rate(kind: &str) -> Rate {
    if kind == UNREADABLE {
        OF_SENDERS
    } else if kind.contains(' ') {
        OF_PERSON
    } else {
        OF_KIND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_person_does_not_use_up_the_notices_of_a_place() {
        let (limiter, place) = (NoticeLimiter::default(), Place::room("!r"));
        let notify = |who: &str| {
            let personal = personal("identity", who);
            let may = limiter.allows(&place, &personal) && limiter.allows(&place, "identity");
            if may {
                limiter.record(&place, &personal);
                limiter.record(&place, "identity");
            }
            may
        };
        assert_eq!(
            [notify("@eve:x"), notify("@eve:x"), notify("@eve:x")],
            [true, true, false]
        );
        assert!(notify("@ann:x"));
        tokio::time::advance(Duration::from_hours(1)).await;
        assert!(notify("@eve:x"));
    }
}
