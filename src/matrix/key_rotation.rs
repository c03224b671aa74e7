//! When the bridge stops using one of its room keys (P05). The SDK makes a new one when members leave, devices are
//! removed or the room's settings require it. This module adds what the SDK does not do: limits of the bridge's own
//! whatever the room's settings say, a new key after every start, and one after any gap in which somebody may have left
//! unseen.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footbridge_store::Place;
use matrix_sdk::{
    deserialized_responses::TimelineEvent,
    ruma::{events::AnySyncStateEvent, serde::Raw},
    sync::State,
};
use serde_json::Value;
use tokio::time::Instant;

/// The most events that are sent with one key.
const MAX_EVENTS: u32 = 100;
/// The longest time that one key is used.
const MAX_AGE: Duration = Duration::from_hours(24);

/// A key in use: since when, and how often it was used.
#[derive(Clone, Copy, Debug)]
struct KeyUse {
    since: Instant,
    times: u32,
}

/// The keys in use, per room. Keys from before the start of the process are unknown and not used any more.
#[derive(Debug, Default)]
pub(super) struct KeyRotation(Mutex<HashMap<Place, KeyUse>>);

impl KeyRotation {
    /// Counts a send. Returns whether it needs a new key.
    pub(super) fn is_due(&self, place: &Place) -> bool {
        let mut keys = self.lock();
        if let Some(used) = keys.get_mut(place)
            && used.times < MAX_EVENTS
            && used.since.elapsed() < MAX_AGE
        {
            used.times += 1;
            return false;
        }
        let used = KeyUse {
            since: Instant::now(),
            times: 1,
        };
        keys.insert(place.clone(), used);
        true
    }

    /// The key of this room is not used any more.
    pub(super) fn end(&self, place: &Place) {
        self.lock().remove(place);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, KeyUse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody may have left: a sync response shows a membership other than join, or its timeline is limited and
/// it contains any membership. A member who left and rejoined within a gap is only seen as a member.
pub(super) fn may_have_lost_member(
    timeline: &[TimelineEvent],
    state: &State,
    limited: bool,
) -> bool {
    let (State::Before(state) | State::After(state)) = state;
    let left = |membership: &str| limited || membership != "join";
    let of_state = state.iter().filter_map(membership_in);
    let of_timeline = timeline
        .iter()
        .filter_map(|event| membership_in(event.raw().cast_ref_unchecked()));
    of_state.chain(of_timeline).any(|word| left(&word))
}

fn membership_in(event: &Raw<AnySyncStateEvent>) -> Option<String> {
    let kind = event.get_field::<String>("type").ok()??;
    if kind != "m.room.member" {
        return None;
    }
    let content = event.get_field::<Value>("content").ok()??;
    Some(content.get("membership")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn p05_a_key_is_used_a_hundred_times_and_a_day_at_most_and_never_after_a_start() {
        let (rotation, room) = (KeyRotation::default(), Place::room("!r"));
        for round in 0..3 {
            assert!(rotation.is_due(&room), "{round}: the first needs a new key");
            for _ in 1..100 {
                assert!(!rotation.is_due(&room));
            }
        }
        assert!(rotation.is_due(&room));
        assert!(rotation.is_due(&Place::room("!other")));
        tokio::time::advance(Duration::from_hours(23)).await;
        assert!(!rotation.is_due(&room));
        tokio::time::advance(Duration::from_hours(1)).await;
        assert!(rotation.is_due(&room));
        assert!(!rotation.is_due(&room));
        rotation.end(&room);
        assert!(rotation.is_due(&room));
    }

    #[test]
    fn p05_a_member_who_may_have_left_ends_the_key() {
        let member = |membership: &str| {
            json!({
                "type": "m.room.member", "state_key": "@ann:x", "sender": "@ann:x",
                "event_id": "$1", "origin_server_ts": 1, "content": {"membership": membership},
            })
        };
        let text =
            json!({"type": "m.room.message", "event_id": "$2", "content": {"membership": "leave"}});
        let check = |timeline: &[Value], state: &[Value], limited| {
            let raw = |value: &Value| Raw::<Value>::from_json_string(value.to_string()).unwrap();
            let timeline: Vec<_> = timeline
                .iter()
                .map(|event| TimelineEvent::from_plaintext(raw(event).cast_unchecked()))
                .collect();
            let state = State::After(state.iter().map(|e| raw(e).cast_unchecked()).collect());
            may_have_lost_member(&timeline, &state, limited)
        };
        for gone in ["leave", "ban", "knock", "invite"] {
            assert!(check(&[member(gone)], &[], false), "{gone}");
            assert!(check(&[], &[member(gone)], false), "{gone}");
        }
        assert!(!check(&[member("join"), text.clone()], &[], false));
        assert!(!check(&[], &[member("join")], false));
        assert!(!check(std::slice::from_ref(&text), &[], true));
        // They may have been away in between.
        assert!(check(&[], &[member("join")], true));
    }
}
