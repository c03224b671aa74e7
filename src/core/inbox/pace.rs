//! How many notices of the door's a place gets: people can provoke them, and each costs an event of our account.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_store::Place;
use tokio::time::Instant;
use tracing::warn;

use crate::buckets::{Buckets, Rate};

/// The kind of what is told of entries that cannot be read, once for each sender.
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

/// For one person of those that a kind is about.
const OF_PERSON: Rate = Rate {
    burst: 2,
    every: Duration::from_hours(1),
};

/// How many notices were said where. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    buckets: Buckets<(Place, String)>,
    withheld: u64,
}

/// What kind of notice this fact is of: its first word.
pub(super) fn kind(fact: &str) -> &str {
    fact.split(['-', '/']).next().unwrap_or_default()
}

/// The part of a kind that is about one person.
pub(super) fn personal(kind: &str, who: &str) -> String {
    format!("{kind} {who}")
}

impl Pace {
    /// Whether one more of this kind may be said there. If not, that is counted.
    pub(super) fn has_room(&self, place: &Place, kind: &str) -> bool {
        let mut state = self.lock();
        let key = (place.clone(), kind.to_owned());
        let has_room = state.buckets.has(&key, rate(kind), Instant::now());
        if !has_room {
            state.withheld = state.withheld.saturating_add(1);
            if state.withheld.is_power_of_two() {
                warn!(place = %place, kind, withheld = state.withheld, "Too many notices of one kind: some are put off");
            }
        }
        has_room
    }

    /// One was said.
    pub(super) fn said(&self, place: &Place, kind: &str) {
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
    async fn one_person_does_not_use_up_what_a_place_is_told_of_others() {
        let (pace, place) = (Pace::default(), Place::room("!r"));
        let tell = |who: &str| {
            let personal = personal("identity", who);
            let may = pace.has_room(&place, &personal) && pace.has_room(&place, "identity");
            if may {
                pace.said(&place, &personal);
                pace.said(&place, "identity");
            }
            may
        };
        assert_eq!(
            [tell("@eve:x"), tell("@eve:x"), tell("@eve:x")],
            [true, true, false]
        );
        assert!(tell("@ann:x"));
        tokio::time::advance(Duration::from_hours(1)).await;
        assert!(tell("@eve:x"));
    }
}
