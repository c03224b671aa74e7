//! Gitter's variant of the Bayeux protocol, without a socket: the frames to send, and the meaning of incoming ones.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// The longest pause between the response to a connect and the next connect, whatever the server advises.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long Gitter holds a connect, unless it says otherwise.
const DEFAULT_HOLD: Duration = Duration::from_mins(2);

/// What a session can subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subscription {
    /// The messages of a room.
    Messages(String),
    /// Joins and leaves of a room.
    Members(String),
    /// The rooms of an account.
    RoomsOf(String),
}

impl Subscription {
    /// Its channel in the protocol.
    pub fn channel(&self) -> String {
        match self {
            Self::Messages(room) => format!("/api/v1/rooms/{room}/chatMessages"),
            Self::Members(room) => format!("/api/v1/rooms/{room}/users"),
            Self::RoomsOf(user) => format!("/api/v1/user/{user}/rooms"),
        }
    }

    fn of_channel(channel: &str) -> Option<Self> {
        let path = channel.strip_prefix("/api/v1/")?;
        let mut parts = path.split('/');
        let topic = match (parts.next()?, parts.next()?, parts.next()?) {
            ("rooms", room, "chatMessages") => Self::Messages(room.to_owned()),
            ("rooms", room, "users") => Self::Members(room.to_owned()),
            ("user", user, "rooms") => Self::RoomsOf(user.to_owned()),
            _ => return None,
        };
        parts.next().is_none().then_some(topic)
    }
}

/// The meaning of a frame.
#[derive(Debug)]
pub enum FeedMessage {
    /// The handshake succeeded: connect and subscribe.
    Welcome,
    /// A connect was answered: connect again after this pause.
    Heartbeat(Duration),
    /// A subscription is active from here on.
    Subscribed {
        /// The subscription.
        topic: Subscription,
        /// The newest entries, oldest first, if they were requested and sent.
        snapshot: Option<Vec<Value>>,
    },
    /// A subscription was refused.
    Denied {
        /// The subscription.
        topic: Subscription,
        /// Gitter's status, as in HTTP.
        status: u16,
    },
    /// An event.
    Event {
        /// The subscription that it belongs to.
        topic: Subscription,
        /// `create`, `update`, `remove`, `patch`, or an unknown word.
        operation: String,
        /// The object of the event.
        model: Value,
    },
    /// Events before this point were lost.
    Gap,
    /// The response to a ping.
    Pong,
    /// An unreadable message, with its subscription if that is known.
    Unreadable(Option<Subscription>),
    /// The session has ended.
    Ended(Reconnect),
}

/// Whether a new session may be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// A new handshake, not before this.
    After(Duration),
    /// Gitter refuses the token.
    Never,
}

/// One session, from a handshake to its end.
#[derive(Default)]
pub struct BayeuxSession {
    client_id: Option<String>,
    next_id: u64,
    /// The count of the last event that was received.
    delivered: i64,
    hold: Option<Duration>,
}

impl BayeuxSession {
    /// How long Gitter holds a connect before it answers.
    pub fn hold(&self) -> Duration {
        self.hold.unwrap_or(DEFAULT_HOLD)
    }

    /// The first frame.
    pub fn handshake(&mut self, token: &str) -> String {
        let message = json!({
            "channel": "/meta/handshake",
            "version": "1.0",
            "supportedConnectionTypes": ["websocket"],
            "ext": { "token": token, "connType": "online", "client": "footbridge", "eyeballs": 0 },
        });
        self.frame(message)
    }

    /// Requests events.
    pub fn connect(&mut self) -> String {
        self.frame(json!({ "channel": "/meta/connect", "connectionType": "websocket" }))
    }

    /// Subscribes; `snapshot` is how many of the newest entries the response contains.
    pub fn subscribe(&mut self, topic: &Subscription, snapshot: Option<usize>) -> String {
        let snapshot = snapshot.map_or(
            Value::Bool(false),
            |limit| json!({ "limit": limit, "includeThreads": true }),
        );
        self.frame(json!({
            "channel": "/meta/subscribe",
            "subscription": topic.channel(),
            "ext": { "snapshot": snapshot },
        }))
    }

    /// Sends a ping.
    pub fn ping(&mut self) -> String {
        self.frame(json!({ "channel": "/api/v1/ping2", "data": { "reason": "ping" } }))
    }

    /// The last frame.
    pub fn disconnect(&mut self) -> String {
        self.frame(json!({ "channel": "/meta/disconnect" }))
    }

    fn frame(&mut self, mut message: Value) -> String {
        self.next_id += 1;
        if let Some(fields) = message.as_object_mut() {
            fields.insert("id".to_owned(), Value::String(self.next_id.to_string()));
            if let Some(client_id) = &self.client_id {
                fields.insert("clientId".to_owned(), Value::String(client_id.clone()));
            }
        }
        Value::Array(vec![message]).to_string()
    }

    /// The meaning of an incoming frame, in the order of its messages.
    pub fn read(&mut self, frame: &str) -> Vec<FeedMessage> {
        if frame.trim().is_empty() {
            return Vec::new();
        }
        let mut feed = Vec::new();
        match serde_json::from_str(frame) {
            Ok(Value::Array(messages)) => {
                for message in messages {
                    self.read_message(message, &mut feed);
                }
            }
            Ok(message @ Value::Object(_)) => self.read_message(message, &mut feed),
            _ => feed.push(FeedMessage::Unreadable(None)),
        }
        feed
    }

    fn read_message(&mut self, message: Value, feed: &mut Vec<FeedMessage>) {
        let Value::Object(mut message) = message else {
            return feed.push(FeedMessage::Unreadable(None));
        };
        let advice = Advice::of(&message);
        if let Some(hold) = advice.hold {
            self.hold = Some(hold);
        }
        let Some(Value::String(channel)) = message.remove("channel") else {
            return feed.push(FeedMessage::Unreadable(None));
        };
        let refusal = (message.get("successful") == Some(&Value::Bool(false)))
            .then(|| status_of(message.get("error")));
        match (channel.as_str(), refusal) {
            ("/meta/handshake", None) => {
                self.client_id = text_of(&message, "clientId");
                feed.push(match self.client_id {
                    Some(_) => FeedMessage::Welcome,
                    None => FeedMessage::Ended(Reconnect::After(advice.interval)),
                });
            }
            ("/meta/handshake", Some(401)) => feed.push(FeedMessage::Ended(Reconnect::Never)),
            ("/meta/connect", None) if !advice.handshake => {
                feed.push(FeedMessage::Heartbeat(advice.interval.min(MAX_PAUSE)));
            }
            ("/meta/subscribe", Some(status)) if status != 401 && !advice.handshake => {
                feed.push(match topic_of(&message, "subscription") {
                    Some(topic) => FeedMessage::Denied { topic, status },
                    None => FeedMessage::Unreadable(None),
                });
            }
            ("/meta/subscribe", None) => feed.push(subscribed(message)),
            ("/api/v1/ping2", None) => feed.push(FeedMessage::Pong),
            ("/meta/unsubscribe" | "/meta/disconnect", _) => {}
            (_, Some(_)) => feed.push(FeedMessage::Ended(Reconnect::After(advice.interval))),
            (channel, None) if channel.starts_with("/meta/") => {
                if advice.handshake {
                    feed.push(FeedMessage::Ended(Reconnect::After(advice.interval)));
                }
            }
            (channel, None) => self.read_event(channel, message, feed),
        }
    }

    fn read_event(
        &mut self,
        channel: &str,
        mut message: Map<String, Value>,
        feed: &mut Vec<FeedMessage>,
    ) {
        let count = message
            .get("ext")
            .and_then(|ext| ext.get("c"))
            .and_then(Value::as_i64);
        if let Some(count) = count {
            if count > self.delivered.saturating_add(1) {
                feed.push(FeedMessage::Gap);
            }
            self.delivered = self.delivered.max(count);
        }
        let Some(topic) = Subscription::of_channel(channel) else {
            return feed.push(FeedMessage::Unreadable(None));
        };
        let mut data = message.remove("data").unwrap_or_default();
        let operation = data
            .get("operation")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        feed.push(match (operation, data.get_mut("model")) {
            (Some(operation), Some(model)) => FeedMessage::Event {
                topic,
                operation,
                model: model.take(),
            },
            _ => FeedMessage::Unreadable(Some(topic)),
        });
    }
}

fn subscribed(mut message: Map<String, Value>) -> FeedMessage {
    let Some(topic) = topic_of(&message, "subscription") else {
        return FeedMessage::Unreadable(None);
    };
    let snapshot = match message
        .get_mut("ext")
        .and_then(|ext| ext.get_mut("snapshot"))
    {
        Some(Value::Array(entries)) => Some(std::mem::take(entries)),
        _ => None,
    };
    FeedMessage::Subscribed { topic, snapshot }
}

fn text_of(message: &Map<String, Value>, field: &str) -> Option<String> {
    message
        .get(field)
        .and_then(Value::as_str)
        .map(ToOwned::to_owned)
}

fn topic_of(message: &Map<String, Value>, field: &str) -> Option<Subscription> {
    Subscription::of_channel(message.get(field)?.as_str()?)
}

/// Errors begin with a status: `403::Authorisation denied.`, `401:<client>:Unknown client`. 0 without a status.
fn status_of(error: Option<&Value>) -> u16 {
    error
        .and_then(Value::as_str)
        .and_then(|error| error.split(':').next()?.parse().ok())
        .unwrap_or(0)
}

/// The server's advice on reconnecting.
struct Advice {
    handshake: bool,
    interval: Duration,
    hold: Option<Duration>,
}

impl Advice {
    fn of(message: &Map<String, Value>) -> Self {
        let advice = message.get("advice");
        let wait = |field: &str| {
            let millis = advice.and_then(|advice| advice.get(field))?.as_u64()?;
            Some(Duration::from_millis(millis.min(600_000)))
        };
        Self {
            handshake: advice
                .and_then(|advice| advice.get("reconnect"))
                .is_some_and(|word| word == "handshake" || word == "none"),
            interval: wait("interval").unwrap_or_default(),
            hold: wait("timeout").filter(|hold| !hold.is_zero()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcomed() -> BayeuxSession {
        let mut session = BayeuxSession::default();
        let hello = json!([{"channel": "/meta/handshake", "successful": true, "clientId": "c1",
            "advice": {"reconnect": "retry", "interval": 500, "timeout": 60000}, "ext": {"userId": "u"}}]);
        assert!(matches!(
            session.read(&hello.to_string())[..],
            [FeedMessage::Welcome]
        ));
        session
    }

    fn event(count: i64, operation: &str) -> Value {
        json!({"channel": "/api/v1/rooms/r1/chatMessages", "clientId": "c1",
            "data": {"operation": operation, "model": {"id": "m"}}, "ext": {"c": count}})
    }

    #[test]
    fn a_session_sends_its_client_id_after_the_handshake() {
        let mut session = BayeuxSession::default();
        assert!(session.handshake("secret").contains(r#""token":"secret""#));
        let mut session = welcomed();
        assert_eq!(session.hold(), Duration::from_mins(1));
        for said in [
            session.connect(),
            session.ping(),
            session.disconnect(),
            session.subscribe(&Subscription::Messages("r1".to_owned()), Some(100)),
        ] {
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(said[0]["clientId"], "c1");
            assert!(
                said[0]
                    .get("ext")
                    .is_none_or(|ext| ext.get("token").is_none())
            );
        }
    }

    #[test]
    fn events_and_their_order_survive_batching() {
        let mut session = welcomed();
        let frame = json!([event(1, "create"), event(2, "update"),
            {"channel": "/meta/connect", "successful": true, "advice": {"interval": 500}}]);
        let news = session.read(&frame.to_string());
        let [
            FeedMessage::Event {
                topic, operation, ..
            },
            FeedMessage::Event { .. },
            FeedMessage::Heartbeat(pause),
        ] = &news[..]
        else {
            panic!("{news:?}");
        };
        assert_eq!(
            (topic, operation.as_str()),
            (&Subscription::Messages("r1".to_owned()), "create")
        );
        assert_eq!(*pause, Duration::from_millis(500));
    }

    #[test]
    fn a_gap_in_the_sequence_is_reported_before_the_event_after_it() {
        let mut session = welcomed();
        session.read(&json!([event(1, "create")]).to_string());
        let news = session.read(&json!([event(3, "create")]).to_string());
        assert!(matches!(
            news[..],
            [FeedMessage::Gap, FeedMessage::Event { .. }]
        ));
        let news = session.read(&json!([event(2, "create"), event(4, "create")]).to_string());
        assert!(
            matches!(
                news[..],
                [FeedMessage::Event { .. }, FeedMessage::Event { .. }]
            ),
            "late ones are no hole"
        );
        let mut fresh = welcomed();
        assert!(matches!(
            fresh.read(&json!([event(2, "create")]).to_string())[..],
            [FeedMessage::Gap, ..]
        ));
    }

    #[test]
    fn refusals_are_distinct() {
        let refused = |message: Value| welcomed().read(&message.to_string());
        assert!(matches!(
            refused(
                json!([{"channel": "/meta/handshake", "successful": false, "error": "401::Invalid access token",
                "advice": {"reconnect": "none", "interval": 864_000_000}}])
            )[..],
            [FeedMessage::Ended(Reconnect::Never)]
        ));
        assert!(matches!(
            refused(
                json!([{"channel": "/meta/handshake", "successful": false, "error": "500::Oops"}])
            )[..],
            [FeedMessage::Ended(Reconnect::After(Duration::ZERO))]
        ));
        let news = refused(
            json!([{"channel": "/meta/connect", "successful": false, "error": "401:c1:Unknown client",
            "advice": {"reconnect": "handshake", "interval": 2000}}]),
        );
        assert!(
            matches!(news[..], [FeedMessage::Ended(Reconnect::After(wait))] if wait == Duration::from_secs(2))
        );
        let news = refused(json!([{"channel": "/meta/subscribe", "successful": false,
            "subscription": "/api/v1/rooms/r1/chatMessages", "error": "403::Authorisation denied."}]));
        assert!(
            matches!(&news[..], [FeedMessage::Denied { topic: Subscription::Messages(room), status: 403 }] if room == "r1")
        );
        let news = refused(json!([{"channel": "/meta/subscribe", "successful": false,
            "subscription": "/api/v1/rooms/r1/chatMessages", "error": "401::Client c1 not authenticated",
            "advice": {"reconnect": "handshake", "interval": 2000}}]));
        assert!(matches!(
            news[..],
            [FeedMessage::Ended(Reconnect::After(_))]
        ));
    }

    #[test]
    fn a_snapshot_comes_with_its_subscription() {
        let news = welcomed().read(
            &json!([{"channel": "/meta/subscribe", "successful": true, "ext": {"snapshot": [{"id": "a"}]},
                "subscription": "/api/v1/rooms/r1/chatMessages"}])
            .to_string(),
        );
        assert!(
            matches!(&news[..], [FeedMessage::Subscribed { snapshot: Some(all), .. }] if all.len() == 1)
        );
        let news = welcomed().read(
            &json!([{"channel": "/meta/subscribe", "successful": true, "subscription": "/api/v1/user/u/rooms"}])
                .to_string(),
        );
        assert!(matches!(
            &news[..],
            [FeedMessage::Subscribed {
                topic: Subscription::RoomsOf(_),
                snapshot: None
            }]
        ));
    }

    #[test]
    fn nothing_unreadable_ends_a_session() {
        let mut session = welcomed();
        for frame in [
            "{",
            "7",
            "[[]]",
            "[{}]",
            "\"x\"",
            "[{\"channel\": 3}]",
            "[{\"channel\": \"/api/v1/rooms\"}]",
        ] {
            let news = session.read(frame);
            assert!(
                matches!(news[..], [FeedMessage::Unreadable(None)]),
                "{frame}: {news:?}"
            );
        }
        let news =
            session.read(r#"[{"channel": "/api/v1/rooms/r1/chatMessages", "data": {"x": 1}}]"#);
        assert!(matches!(
            &news[..],
            [FeedMessage::Unreadable(Some(Subscription::Messages(_)))]
        ));
        assert!(session.read("").is_empty() && session.read(" \n").is_empty());
    }
}
