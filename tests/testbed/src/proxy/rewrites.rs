//! Answers that are changed on their way: what a homeserver that lies would have said.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::{Value, json};

use super::rule::Matcher;

/// Changes an answer, or leaves it. Answers whether it was changed.
type Change = Box<dyn FnMut(&mut Value) -> bool + Send>;

/// One lie, to whom it is told and how often.
pub struct Rewrite {
    name: &'static str,
    when: Matcher,
    times: Option<u64>,
    change: Change,
}

impl Rewrite {
    /// Told with each answer to these requests that it changes.
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

    /// Told once.
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

    /// History leaves out the newest event at a position that a sync has named: homeservers of the conduwuit family take
    /// `from` as exclusive and count positions by events.
    #[must_use]
    pub fn exclusive_positions() -> Self {
        Self::always("exclusive positions", history().with("from=s"), |answer| {
            chunk(answer).is_some_and(|chunk| !chunk.is_empty() && chunk.remove(0) != json!(null))
        })
    }

    /// A sync leaves one event of this room out, and does not say that it left something out.
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

    /// History from its newest event on lacks that event, as where another worker of the homeserver is behind.
    #[must_use]
    pub fn history_behind() -> Self {
        Self::always("history behind", history().without("from="), |answer| {
            chunk(answer).is_some_and(|chunk| !chunk.is_empty() && chunk.remove(0) != json!(null))
        })
    }

    /// History begins with an event that stands elsewhere in it, as if it were the newest.
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

    /// History shows no entry of this user into a room.
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

    /// Puts an event of another's making before what a sync next brings of this room.
    #[must_use]
    pub fn event_in(name: &'static str, room: &str, event: Value) -> Self {
        let (own, carrier) = (room.to_owned(), room.to_owned());
        Self::event_beside(name, &own, &carrier, event)
    }

    /// Puts an event into a room with the sync that next brings something of another one: before what it brings of the
    /// room itself, if it does.
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

/// Pages of history.
fn history() -> Matcher {
    Matcher::of(Method::GET).with("/messages?")
}

/// The events of a page of history.
fn chunk(answer: &mut Value) -> Option<&mut Vec<Value>> {
    answer.get_mut("chunk")?.as_array_mut()
}

/// Syncs, of any client.
fn syncs() -> Matcher {
    Matcher::of(Method::GET).with("/sync")
}

/// All lies that are being told.
#[derive(Default)]
pub(super) struct Rewrites(Vec<Rewrite>);

impl Rewrites {
    pub(super) fn add(&mut self, lie: Rewrite) {
        self.0.push(lie);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether the answer to this request has to be read at all.
    pub(super) fn concern(&self, method: &Method, path: &str) -> bool {
        self.0.iter().any(|lie| lie.is_about(method, path))
    }

    /// The answer as the client gets it; each lie that changed it is counted. What is no JSON stays what it is.
    pub(super) fn tell(
        &mut self,
        (method, path): (&Method, &str),
        body: &[u8],
        told: &mut BTreeMap<&'static str, u64>,
    ) -> Option<Vec<u8>> {
        let mut answer: Value = serde_json::from_slice(body).ok()?;
        for lie in &mut self.0 {
            if lie.is_about(method, path) && (lie.change)(&mut answer) {
                lie.times = lie.times.map(|times| times.saturating_sub(1));
                *told.entry(lie.name).or_default() += 1;
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
        let body = lies.tell(request, body.as_bytes(), &mut counts).unwrap();
        (
            serde_json::from_slice(&body).unwrap(),
            counts.values().sum(),
        )
    }

    #[test]
    fn an_event_is_put_before_what_the_room_brings_and_once() {
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
    fn a_room_that_brings_nothing_is_made_to() {
        let mut lies = Rewrites::default();
        lies.add(Rewrite::event_beside("moved", "!b", "!a", json!("moved")));
        let answer = json!({"rooms": {"join": {"!a": {"timeline": {"events": []}}}}});
        let (answer, count) = told(&mut lies, &answer);
        assert_eq!(count, 1);
        let events = &answer["rooms"]["join"]["!b"]["timeline"]["events"];
        assert_eq!(events, &json!(["moved"]));
    }
}
