//! Rewrites of responses: what a lying homeserver would have answered.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::{Value, json};

use super::rule::Matcher;

/// Changes a response, or leaves it. Returns whether it changed it.
type Change = Box<dyn FnMut(&mut Value) -> bool + Send>;

/// A rewrite, with the requests that it applies to and how often.
pub struct Rewrite {
    name: &'static str,
    when: Matcher,
    times: Option<u64>,
    change: Change,
}

impl Rewrite {
    /// Rewrites every response to these requests that `change` changes.
    pub fn always(
        name: &'static str,
        when: Matcher,
        change: impl FnMut(&mut Value) -> bool + Send + 'static,
    ) -> Self {
        Self {
            name,
            when,
            times: None,
            change: Box::new(change),
        }
    }

    /// Rewrites one response.
    pub fn once(
        name: &'static str,
        when: Matcher,
        change: impl FnMut(&mut Value) -> bool + Send + 'static,
    ) -> Self {
        Self {
            times: Some(1),
            ..Self::always(name, when, change)
        }
    }

    /// History omits the newest event when it is read from a position that a sync named: homeservers of the conduwuit
    /// family treat `from` as exclusive and count positions by events.
    #[must_use]
    pub fn exclusive_positions() -> Self {
        Self::always("exclusive positions", history().with("from=s"), |answer| {
            chunk(answer).is_some_and(|chunk| !chunk.is_empty() && chunk.remove(0) != json!(null))
        })
    }

    /// A sync response omits one event of this room, and does not report a limited timeline.
    #[must_use]
    pub fn left_out_of_sync(room: &str, which: impl Fn(&Value) -> bool + Send + 'static) -> Self {
        let room = room.to_owned();
        Self::once("left out of a sync", syncs(), move |answer| {
            let update = answer
                .pointer_mut("/rooms/join")
                .and_then(|all| all.get_mut(&room));
            let events = update.and_then(|update| update.pointer_mut("/timeline/events"));
            let Some(events) = events.and_then(Value::as_array_mut) else {
                return false;
            };
            let before = events.len();
            events.retain(|event| !which(event));
            events.len() < before
        })
    }

    /// History from its newest event on omits that event, as if another worker of the homeserver were behind.
    #[must_use]
    pub fn history_behind() -> Self {
        Self::always("history behind", history().without("from="), |answer| {
            chunk(answer).is_some_and(|chunk| !chunk.is_empty() && chunk.remove(0) != json!(null))
        })
    }

    /// History begins with an event that belongs elsewhere in it, as if it were the newest.
    #[must_use]
    pub fn first_in_history(event: Value) -> Self {
        Self::always("first in history", history(), move |answer| {
            chunk(answer).is_some_and(|chunk| {
                chunk.retain(|one| one.get("event_id") != event.get("event_id"));
                chunk.insert(0, event.clone());
                true
            })
        })
    }

    /// History contains no membership event of this user.
    #[must_use]
    pub fn without_entry(user: &str) -> Self {
        let user = user.to_owned();
        Self::always("no entry", history(), move |answer| {
            let Some(chunk) = chunk(answer) else {
                return false;
            };
            let before = chunk.len();
            chunk.retain(|event| event.get("state_key") != Some(&json!(user)));
            chunk.len() < before
        })
    }

    /// Inserts a forged event before the events that the next sync response contains for this room.
    #[must_use]
    pub fn event_in(name: &'static str, room: &str, event: Value) -> Self {
        let (own, carrier) = (room.to_owned(), room.to_owned());
        Self::event_beside(name, &own, &carrier, event)
    }

    /// Inserts an event into `room` with the next sync response that contains something of `carrier`, before the other
    /// events of `room`, if there are any.
    #[must_use]
    pub fn event_beside(name: &'static str, room: &str, carrier: &str, event: Value) -> Self {
        let (room, carrier) = (room.to_owned(), carrier.to_owned());
        Self::once(name, syncs(), move |answer| {
            let Some(joined) = answer
                .pointer_mut("/rooms/join")
                .and_then(Value::as_object_mut)
                .filter(|joined| joined.contains_key(&carrier))
            else {
                return false;
            };
            let update = joined
                .entry(room.clone())
                .or_insert_with(|| json!({"timeline": {"events": [], "limited": false}}));
            let events = update.pointer_mut("/timeline/events");
            let Some(events) = events.and_then(Value::as_array_mut) else {
                return false;
            };
            events.insert(0, event.clone());
            true
        })
    }
}

/// Requests for pages of history.
fn history() -> Matcher {
    Matcher::of(Method::GET).with("/messages?")
}

/// The events of a page of history.
fn chunk(answer: &mut Value) -> Option<&mut Vec<Value>> {
    answer.get_mut("chunk")?.as_array_mut()
}

/// Sync requests, of any client.
fn syncs() -> Matcher {
    Matcher::of(Method::GET).with("/sync")
}

/// All rewrites that apply now.
#[derive(Default)]
pub(super) struct Rewrites(Vec<Rewrite>);

impl Rewrites {
    pub(super) fn add(&mut self, rewrite: Rewrite) {
        self.0.push(rewrite);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether the response to this request has to be parsed at all.
    pub(super) fn concern(&self, method: &Method, path: &str) -> bool {
        self.0.iter().any(|rewrite| rewrite.is_about(method, path))
    }

    /// The response as the client gets it; each rewrite that changed it is counted. `None` if the body is not JSON.
    pub(super) fn set_rewrite(
        &mut self,
        (method, path): (&Method, &str),
        body: &[u8],
        counts: &mut BTreeMap<&'static str, u64>,
    ) -> Option<Vec<u8>> {
        let mut answer: Value = serde_json::from_slice(body).ok()?;
        for rewrite in &mut self.0 {
            if rewrite.is_about(method, path) && (rewrite.change)(&mut answer) {
                rewrite.times = rewrite.times.map(|times| times.saturating_sub(1));
                *counts.entry(rewrite.name).or_default() += 1;
            }
        }
        serde_json::to_vec(&answer).ok()
    }
}

impl Rewrite {
    fn is_about(&self, method: &Method, path: &str) -> bool {
        self.times.is_none_or(|times| times > 0) && self.when.matches(method, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lies: &mut Rewrites, answer: &Value) -> (Value, u64) {
        let mut counts = BTreeMap::new();
        let body = answer.to_string();
        let request = (&Method::GET, "/_matrix/client/v3/sync?since=s1");
        let body = lies
            .set_rewrite(request, body.as_bytes(), &mut counts)
            .unwrap();
        (
            serde_json::from_slice(&body).unwrap(),
            counts.values().sum(),
        )
    }

    #[test]
    fn an_injected_event_comes_once_and_before_those_of_the_room() {
        let mut lies = Rewrites::default();
        lies.add(Rewrite::event_in("forged", "!a", json!("forged")));
        assert!(lies.concern(&Method::GET, "/_matrix/client/v3/sync"));
        assert!(!lies.concern(&Method::PUT, "/_matrix/client/v3/sync"));
        let of =
            |room: &str| json!({"rooms": {"join": {room: {"timeline": {"events": ["true"]}}}}});
        let quiet = json!({"next_batch": "s2"});
        assert_eq!(told(&mut lies, &quiet), (quiet.clone(), 0));
        assert_eq!(told(&mut lies, &of("!b")), (of("!b"), 0));
        let (answer, count) = told(&mut lies, &of("!a"));
        assert_eq!(count, 1);
        let events = &answer["rooms"]["join"]["!a"]["timeline"]["events"];
        assert_eq!(events, &json!(["forged", "true"]));
        assert!(!lies.concern(&Method::GET, "/_matrix/client/v3/sync"));
    }

    #[test]
    fn an_event_is_added_to_a_room_that_is_missing_in_the_sync() {
        let mut lies = Rewrites::default();
        lies.add(Rewrite::event_beside("moved", "!b", "!a", json!("moved")));
        let answer = json!({"rooms": {"join": {"!a": {"timeline": {"events": []}}}}});
        let (answer, count) = told(&mut lies, &answer);
        assert_eq!(count, 1);
        let events = &answer["rooms"]["join"]["!b"]["timeline"]["events"];
        assert_eq!(events, &json!(["moved"]));
    }
}
