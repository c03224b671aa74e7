//! The main feed: Bayeux over a WebSocket. It owns the socket and its deadlines; `bayeux` interprets the frames,
//! `channel` the events.

mod socket;
mod timers;

use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    api::{ChatMessage, messages_from_values},
    bayeux::{BayeuxSession, FeedMessage, Reconnect, Subscription},
    client::PAGE,
    dispatcher::{ChannelEvent, Dispatcher},
    errors::SERVICE,
};
use crate::{
    SiloError,
    reconnect::{self, Connect, ConnectionEnd},
    rest::RESPONSE_TIMEOUT,
};

pub use socket::Endpoint;
use socket::{Socket, is_too_long, open, send, text_of};
use timers::{ConnectionTimers, WakeReason};

/// The time limit for the response to a ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(29);
/// The time limit for a connect beyond the time that Gitter holds it.
const CONNECT_GRACE: Duration = Duration::from_secs(30);
/// The shortest interval at which a gap in the event count ends the session.
const GAP_INTERVAL: Duration = Duration::from_mins(5);

/// Follows the feed over all its connections. Ends only when stopped or signed out.
pub async fn follow(
    hub: &Dispatcher,
    endpoint: &Endpoint,
    stop: &CancellationToken,
) -> Result<(), SiloError> {
    let mut feed = Feed {
        dispatcher: hub,
        endpoint,
        snapshots: true,
        last_gap: None,
    };
    reconnect::follow(&mut feed, &hub.silo, &SERVICE, stop).await
}

/// The feed over all its connections.
struct Feed<'a> {
    dispatcher: &'a Dispatcher,
    endpoint: &'a Endpoint,
    /// Whether subscriptions request the newest messages.
    snapshots: bool,
    last_gap: Option<Instant>,
}

#[async_trait]
impl Connect for Feed<'_> {
    async fn connection(&mut self, stop: &CancellationToken) -> (ConnectionEnd, bool) {
        let mut connection = Connection {
            dispatcher: self.dispatcher,
            session: BayeuxSession::default(),
            snapshots: self.snapshots,
            welcome: false,
            gaps_end_it: self
                .last_gap
                .is_none_or(|last| last.elapsed() > GAP_INTERVAL),
        };
        let ended = connection.run(self.endpoint, stop).await;
        self.dispatcher.disconnected();
        self.snapshots = true;
        let end = ended.unwrap_or_else(|error| {
            self.snapshots = !is_too_long(&error);
            ConnectionEnd::Lost(error)
        });
        if matches!(end, ConnectionEnd::AtOnce) {
            tracing::warn!(silo.name = %self.dispatcher.silo, "Gitter left out events; starting a new session");
            self.last_gap = Some(Instant::now());
        }
        (end, connection.welcome)
    }
}

/// One connection.
struct Connection<'a> {
    dispatcher: &'a Dispatcher,
    session: BayeuxSession,
    /// Whether Gitter accepted the handshake.
    welcome: bool,
    /// Whether subscriptions request the newest messages.
    snapshots: bool,
    gaps_end_it: bool,
}

impl Connection<'_> {
    async fn run(
        &mut self,
        endpoint: &Endpoint,
        stop: &CancellationToken,
    ) -> anyhow::Result<ConnectionEnd> {
        let probe = match self.dispatcher.breaker.acquire() {
            Ok(probe) => probe,
            Err(wait) => return Ok(ConnectionEnd::Again(wait)),
        };
        let opened = tokio::time::timeout(RESPONSE_TIMEOUT, open(endpoint))
            .await
            .context("Gitter's realtime service does not answer");
        let mut socket = match opened {
            Ok(Ok(socket)) => {
                probe.answered();
                socket
            }
            Ok(Err(error)) | Err(error) => {
                probe.silent();
                return Err(error);
            }
        };
        let hello = self.session.handshake(endpoint.token.expose());
        send(&mut socket, hello).await?;
        let ending = self.listen(&mut socket, stop).await;
        if matches!(ending, Ok(ConnectionEnd::Stopped | ConnectionEnd::AtOnce)) {
            let goodbye = self.session.disconnect();
            // Optional: the server ends the session by itself.
            let _sent = tokio::time::timeout(Duration::from_secs(1), async {
                send(&mut socket, goodbye).await?;
                socket.close(None).await.context("close")
            })
            .await;
        }
        ending
    }

    async fn listen(
        &mut self,
        socket: &mut Socket,
        stop: &CancellationToken,
    ) -> anyhow::Result<ConnectionEnd> {
        let mut timers = ConnectionTimers::new(self.dispatcher);
        loop {
            match timers.next(socket, stop).await {
                WakeReason::Stop => return Ok(ConnectionEnd::Stopped),
                WakeReason::MissedEvents => return Ok(ConnectionEnd::Again(Duration::ZERO)),
                WakeReason::Overdue(what) => bail!("Gitter did not send {what} in time"),
                WakeReason::Connect => {
                    timers.connect = None;
                    timers.answer = Instant::now() + self.session.hold() + CONNECT_GRACE;
                    let connect = self.session.connect();
                    send(socket, connect).await?;
                }
                WakeReason::Ping => {
                    timers.pong.get_or_insert(Instant::now() + PONG_TIMEOUT);
                    let ping = self.session.ping();
                    send(socket, ping).await?;
                }
                WakeReason::Open(room) => {
                    let again = self
                        .session
                        .subscribe(&Subscription::Messages(room), self.snapshot());
                    send(socket, again).await?;
                }
                WakeReason::Frame(frame) => {
                    let text = text_of(frame)?.unwrap_or_default();
                    for message in self.session.read(&text) {
                        if let Some(ending) = self.hear(message, socket, &mut timers).await? {
                            return Ok(ending);
                        }
                    }
                }
            }
        }
    }

    /// Handles one message of the feed.
    async fn hear(
        &mut self,
        message: FeedMessage,
        socket: &mut Socket,
        timers: &mut ConnectionTimers<'_>,
    ) -> anyhow::Result<Option<ConnectionEnd>> {
        match message {
            FeedMessage::Welcome => {
                self.welcome = true;
                timers.connect = Some(Instant::now());
                self.subscribe_all(socket).await?;
            }
            FeedMessage::Heartbeat(wait) => timers.connect = Some(Instant::now() + wait),
            FeedMessage::Pong => timers.pong = None,
            FeedMessage::Subscribed { topic, snapshot } => self.subscribed(topic, snapshot),
            FeedMessage::Denied { topic, status } => return Ok(self.denied(&topic, status)),
            FeedMessage::Event {
                topic,
                operation,
                model,
            } => {
                if let Some(room) = self.event(topic, &operation, model) {
                    timers.look_at(room);
                }
            }
            FeedMessage::Gap if self.gaps_end_it => return Ok(Some(ConnectionEnd::AtOnce)),
            FeedMessage::Gap => self.dispatcher.dispatch_all(|| ChannelEvent::Lost),
            FeedMessage::Unreadable(topic) => self.strange(topic),
            FeedMessage::Ended(Reconnect::Never) => return Ok(Some(ConnectionEnd::SignedOut)),
            FeedMessage::Ended(Reconnect::After(wait)) => {
                return Ok(Some(ConnectionEnd::Again(wait)));
            }
        }
        Ok(None)
    }

    async fn subscribe_all(&mut self, socket: &mut Socket) -> anyhow::Result<()> {
        let own = Subscription::RoomsOf(self.dispatcher.me.clone());
        let mut all = vec![self.session.subscribe(&own, None)];
        for room in self.dispatcher.rooms() {
            let (messages, members) = (
                Subscription::Messages(room.to_owned()),
                Subscription::Members(room.to_owned()),
            );
            all.push(self.session.subscribe(&messages, self.snapshot()));
            all.push(self.session.subscribe(&members, None));
        }
        // One frame each: responses to one frame come in one frame, and a hundred snapshots would be too long.
        for frame in all {
            send(socket, frame).await?;
        }
        Ok(())
    }

    fn snapshot(&self) -> Option<usize> {
        self.snapshots.then_some(PAGE)
    }

    fn subscribed(&self, topic: Subscription, snapshot: Option<Vec<Value>>) {
        let Subscription::Messages(room) = topic else {
            return;
        };
        let messages = snapshot.and_then(|values| {
            let (messages, unreadable) = messages_from_values(values);
            // An unreadable entry may have been the oldest: then the length of the snapshot says nothing.
            (unreadable == 0).then_some(messages)
        });
        self.dispatcher
            .dispatch(&room, ChannelEvent::Connected(messages));
    }

    fn denied(&self, topic: &Subscription, status: u16) -> Option<ConnectionEnd> {
        match (topic, status) {
            (Subscription::Messages(room), 400..=499) => {
                self.dispatcher
                    .close(room, "Gitter does not allow this account to listen to it");
                None
            }
            (Subscription::Messages(_), _) => Some(ConnectionEnd::Again(Duration::ZERO)),
            // Without these, the bridge notices its removal with the next message that it sends.
            _ => {
                tracing::debug!(silo.name = %self.dispatcher.silo, status, "Gitter refuses a minor subscription");
                None
            }
        }
    }

    /// Passes an event on. Returns a room that must be checked for whether it is still open.
    fn event(&self, topic: Subscription, operation: &str, model: Value) -> Option<String> {
        let id = model
            .get("id")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        match topic {
            Subscription::Messages(room) => {
                self.message_event(&room, operation, id, model);
                None
            }
            Subscription::Members(room)
                if operation == "remove" && id.as_deref() == Some(&self.dispatcher.me) =>
            {
                self.dispatcher
                    .close(&room, "This account was removed from it");
                Some(room)
            }
            Subscription::RoomsOf(_) => {
                let room = id.filter(|room| self.dispatcher.has(room))?;
                match operation {
                    "remove" => {
                        self.dispatcher
                            .close(&room, "This account was removed from it");
                        Some(room)
                    }
                    "create" if self.dispatcher.health.is_closed(&room) => Some(room),
                    _ => None,
                }
            }
            Subscription::Members(_) => None,
        }
    }

    fn message_event(&self, room: &str, operation: &str, id: Option<String>, model: Value) {
        match (operation, id) {
            // Somebody has read messages.
            ("patch", _) => {}
            ("remove", Some(id)) => self.dispatcher.dispatch(room, ChannelEvent::Removed(id)),
            ("create" | "update", Some(_)) => match serde_json::from_value::<ChatMessage>(model) {
                Ok(message) => self
                    .dispatcher
                    .dispatch(room, ChannelEvent::Message(Box::new(message))),
                Err(_) => self.strange(Some(Subscription::Messages(room.to_owned()))),
            },
            _ => self.strange(Some(Subscription::Messages(room.to_owned()))),
        }
    }

    fn strange(&self, topic: Option<Subscription>) {
        tracing::warn!(silo.name = %self.dispatcher.silo, "Unreadable frame from Gitter; re-reading the affected channels");
        match topic {
            Some(Subscription::Messages(room)) => {
                self.dispatcher.dispatch(&room, ChannelEvent::Garbled);
            }
            Some(_) => {}
            None => self.dispatcher.dispatch_all(|| ChannelEvent::Garbled),
        }
    }
}
