//! The main feed: Bayeux over a WebSocket. Holds the socket and its deadlines; what the frames mean is in
//! `bayeux`, what the events mean in `channel`.

use std::{convert::Infallible, time::Duration};

use anyhow::{Context, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use reqwest::{Upgraded, header};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message as Frame,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    api::{ChatMessage, messages_from_values},
    bayeux::{Again, News, Session, Topic},
    client::PAGE,
    fault::Fault,
    hub::{Heard, Hub, pause},
};
use crate::{secret::Secret, silo::SiloError};

/// A frame longer than this ends the session; the next one does without a snapshot.
const LONGEST_FRAME: usize = 1 << 20;
/// For everything that must be answered at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How often a sign of life is asked for, and how long it may take.
const PING_EVERY: Duration = Duration::from_secs(30);
/// What a connect may take beyond the time Gitter holds it.
const GRACE: Duration = Duration::from_secs(30);
/// A hole in the event count ends the session at most this often.
const GAP_EVERY: Duration = Duration::from_secs(300);
/// How often a closed room is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// A session that lasted this long was a good one.
const STABLE: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<Upgraded>;

/// Where and as whom to connect.
pub struct Endpoint {
    /// A client that speaks HTTP/1.1 only: WebSockets begin there.
    pub http: reqwest::Client,
    /// `ws` or `wss`.
    pub url: Url,
    /// The account's token.
    pub token: Secret,
}

/// Why a session ended.
enum Ending {
    /// A new one, not before this.
    Again(Duration),
    /// A new one at once: events were lost.
    Gap,
    /// The token is dead.
    SignedOut,
    /// We were told to stop.
    Stopped,
}

/// Follows the feed over all its connections. Ends only when stopped (`None`) or signed out.
pub async fn follow(
    hub: &Hub,
    endpoint: &Endpoint,
    stop: &CancellationToken,
) -> Result<Option<Infallible>, SiloError> {
    let mut failures = 0;
    let mut snapshots = true;
    let mut last_gap: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let mut connection = Connection {
            hub,
            session: Session::default(),
            snapshots,
            gaps_end_it: last_gap.is_none_or(|last| last.elapsed() > GAP_EVERY),
        };
        let ended = connection.run(endpoint, stop).await;
        hub.disconnected();
        snapshots = true;
        let asked = match ended {
            Ok(Ending::Stopped) => return Ok(None),
            Ok(Ending::SignedOut) => return Err(Fault::SignedOut.into()),
            Ok(Ending::Gap) => {
                tracing::warn!(silo.name = %hub.silo, "Gitter left out events; starting a new session");
                last_gap = Some(Instant::now());
                continue;
            }
            Ok(Ending::Again(asked)) => asked,
            Err(error) => {
                snapshots = !is_too_long(&error);
                tracing::warn!(silo.name = %hub.silo, error = format!("{error:#}"), attempt = failures + 1,
                    "Lost the connection to Gitter");
                Duration::ZERO
            }
        };
        failures = if began.elapsed() > STABLE {
            0
        } else {
            failures + 1
        };
        tokio::select! {
            () = tokio::time::sleep(pause(failures).max(asked)) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

fn is_too_long(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<tungstenite::Error>(),
        Some(tungstenite::Error::Capacity(_))
    )
}

/// One connection.
struct Connection<'a> {
    hub: &'a Hub,
    session: Session,
    /// Whether subscriptions bring the newest messages.
    snapshots: bool,
    gaps_end_it: bool,
}

/// The moments at which something is due.
struct Deadlines {
    /// The next connect is to be sent.
    connect: Option<Instant>,
    /// Something must have been answered.
    answer: Instant,
    /// The ping must have come back.
    pong: Option<Instant>,
}

/// What woke us.
enum Woken {
    Frame(Option<Result<Frame, tungstenite::Error>>),
    Connect,
    Ping,
    Overdue(&'static str),
    Look(String),
    Deaf,
    Stop,
}

impl Connection<'_> {
    async fn run(
        &mut self,
        endpoint: &Endpoint,
        stop: &CancellationToken,
    ) -> anyhow::Result<Ending> {
        let mut socket = tokio::time::timeout(ANSWER_WITHIN, open(endpoint))
            .await
            .context("Gitter's realtime service does not answer")??;
        let hello = self.session.handshake(endpoint.token.expose());
        say(&mut socket, hello).await?;
        let ending = self.listen(&mut socket, stop).await;
        if matches!(ending, Ok(Ending::Stopped | Ending::Gap)) {
            let goodbye = self.session.disconnect();
            // Politeness only: the server forgets us by itself.
            let _sent = tokio::time::timeout(Duration::from_secs(1), async {
                say(&mut socket, goodbye).await?;
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
    ) -> anyhow::Result<Ending> {
        let mut due = Deadlines {
            connect: None,
            answer: Instant::now() + ANSWER_WITHIN,
            pong: None,
        };
        let mut ping = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = tokio::time::interval_at(Instant::now() + LOOK_AGAIN, LOOK_AGAIN);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (suspects, mut suspected) = mpsc::unbounded_channel();
        let doorman = self.hub;
        let mut looks = futures_util::stream::FuturesUnordered::new();
        loop {
            let woken = tokio::select! {
                biased;
                () = stop.cancelled() => Woken::Stop,
                frame = socket.next() => Woken::Frame(frame),
                () = sleep_until(due.connect) => Woken::Connect,
                _ = ping.tick() => Woken::Ping,
                () = sleep_until(due.pong) => Woken::Overdue("a sign of life"),
                () = tokio::time::sleep_until(due.answer) => Woken::Overdue("an answer"),
                Some(room) = suspected.recv() => {
                    looks.push(is_open(doorman, room));
                    continue;
                }
                Some(open) = looks.next(), if !looks.is_empty() => match open {
                    Some(room) => Woken::Look(room),
                    None => continue,
                },
                _ = look.tick() => {
                    self.hub.rooms().filter(|room| self.hub.health.is_closed(room)).for_each(|room| {
                        looks.push(is_open(doorman, room.to_owned()));
                    });
                    continue;
                }
                () = self.hub.deaf.notified() => Woken::Deaf,
            };
            match woken {
                Woken::Stop => return Ok(Ending::Stopped),
                Woken::Deaf => return Ok(Ending::Again(Duration::ZERO)),
                Woken::Overdue(what) => bail!("Gitter owes us {what}"),
                Woken::Connect => {
                    due.connect = None;
                    due.answer = Instant::now() + self.session.hold() + GRACE;
                    let connect = self.session.connect();
                    say(socket, connect).await?;
                }
                Woken::Ping => {
                    due.pong
                        .get_or_insert(Instant::now() + PING_EVERY - Duration::from_secs(1));
                    let ping = self.session.ping();
                    say(socket, ping).await?;
                }
                Woken::Look(room) => {
                    let again = self
                        .session
                        .subscribe(&Topic::Messages(room), self.snapshot());
                    say(socket, again).await?;
                }
                Woken::Frame(None) => bail!("Gitter closed the connection"),
                Woken::Frame(Some(frame)) => {
                    if let Some(text) = text_of(frame?)? {
                        for news in self.session.read(&text) {
                            if let Some(ending) =
                                self.hear(news, socket, &mut due, &suspects).await?
                            {
                                return Ok(ending);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Takes one piece of news.
    async fn hear(
        &mut self,
        news: News,
        socket: &mut Socket,
        due: &mut Deadlines,
        suspects: &mpsc::UnboundedSender<String>,
    ) -> anyhow::Result<Option<Ending>> {
        match news {
            News::Welcome => {
                due.connect = Some(Instant::now());
                self.subscribe_all(socket).await?;
            }
            News::Beat(wait) => due.connect = Some(Instant::now() + wait),
            News::Pong => due.pong = None,
            News::Subscribed { topic, snapshot } => self.subscribed(topic, snapshot),
            News::Denied { topic, status } => return Ok(self.denied(&topic, status)),
            News::Event {
                topic,
                operation,
                model,
            } => {
                if let Some(room) = self.event(topic, &operation, model) {
                    // Our own end never closes before the loop ends.
                    let _sent = suspects.send(room);
                }
            }
            News::Gap if self.gaps_end_it => return Ok(Some(Ending::Gap)),
            News::Gap => self.hub.tell_all(|| Heard::Lost),
            News::Strange(topic) => self.strange(topic),
            News::Over(Again::Never) => return Ok(Some(Ending::SignedOut)),
            News::Over(Again::After(wait)) => return Ok(Some(Ending::Again(wait))),
        }
        Ok(None)
    }

    async fn subscribe_all(&mut self, socket: &mut Socket) -> anyhow::Result<()> {
        let own = Topic::RoomsOf(self.hub.me.clone());
        let mut all = vec![self.session.subscribe(&own, None)];
        for room in self.hub.rooms() {
            let (messages, members) = (
                Topic::Messages(room.to_owned()),
                Topic::Members(room.to_owned()),
            );
            all.push(self.session.subscribe(&messages, self.snapshot()));
            all.push(self.session.subscribe(&members, None));
        }
        // One frame each: answers to one frame come in one frame, and a hundred snapshots would be too long.
        for frame in all {
            say(socket, frame).await?;
        }
        Ok(())
    }

    fn snapshot(&self) -> Option<usize> {
        self.snapshots.then_some(PAGE)
    }

    fn subscribed(&self, topic: Topic, snapshot: Option<Vec<Value>>) {
        let Topic::Messages(room) = topic else {
            return;
        };
        let messages = snapshot.and_then(|values| {
            let (messages, unreadable) = messages_from_values(values);
            // An unreadable one may have been the oldest: then the length says nothing.
            (unreadable == 0).then_some(messages)
        });
        self.hub.tell(&room, Heard::Connected(messages));
    }

    fn denied(&self, topic: &Topic, status: u16) -> Option<Ending> {
        match (topic, status) {
            (Topic::Messages(room), 400..=499) => {
                self.hub
                    .close(room, "Gitter does not let this account listen to it");
                None
            }
            (Topic::Messages(_), _) => Some(Ending::Again(Duration::ZERO)),
            // Without these a kick is noticed by the next message we send.
            _ => {
                tracing::debug!(silo.name = %self.hub.silo, status, "Gitter refuses a minor subscription");
                None
            }
        }
    }

    /// Passes an event on. Answers a room whose door must be looked at.
    fn event(&self, topic: Topic, operation: &str, model: Value) -> Option<String> {
        let id = model
            .get("id")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        match topic {
            Topic::Messages(room) => {
                self.message_event(&room, operation, id, model);
                None
            }
            Topic::Members(room)
                if operation == "remove" && id.as_deref() == Some(&self.hub.me) =>
            {
                self.hub.close(&room, "This account was removed from it");
                Some(room)
            }
            Topic::RoomsOf(_) => {
                let room = id.filter(|room| self.hub.has(room))?;
                match operation {
                    "remove" => {
                        self.hub.close(&room, "This account was removed from it");
                        Some(room)
                    }
                    "create" if self.hub.health.is_closed(&room) => Some(room),
                    _ => None,
                }
            }
            Topic::Members(_) => None,
        }
    }

    fn message_event(&self, room: &str, operation: &str, id: Option<String>, model: Value) {
        match (operation, id) {
            // Somebody has read something.
            ("patch", _) => {}
            ("remove", Some(id)) => self.hub.tell(room, Heard::Removed(id)),
            ("create" | "update", Some(_)) => match serde_json::from_value::<ChatMessage>(model) {
                Ok(message) => self.hub.tell(room, Heard::Message(Box::new(message))),
                Err(_) => self.strange(Some(Topic::Messages(room.to_owned()))),
            },
            _ => self.strange(Some(Topic::Messages(room.to_owned()))),
        }
    }

    fn strange(&self, topic: Option<Topic>) {
        tracing::warn!(silo.name = %self.hub.silo, "Gitter said something unreadable; reading again what it may be");
        match topic {
            Some(Topic::Messages(room)) => self.hub.tell(&room, Heard::Garbled),
            Some(_) => {}
            None => self.hub.tell_all(|| Heard::Garbled),
        }
    }
}

/// The room, if it can be listened to (again).
async fn is_open(hub: &Hub, room: String) -> Option<String> {
    match hub.client.room(&room).await {
        Ok(found) => (found.room_member != Some(false)).then_some(room),
        Err(_) => None,
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn say(socket: &mut Socket, frame: String) -> anyhow::Result<()> {
    tokio::time::timeout(ANSWER_WITHIN, socket.send(Frame::text(frame)))
        .await
        .context("Gitter does not take what we say")?
        .context("Cannot write to Gitter")
}

fn text_of(frame: Frame) -> anyhow::Result<Option<String>> {
    match frame {
        Frame::Text(text) => Ok(Some(text.as_str().to_owned())),
        Frame::Binary(bytes) => Ok(String::from_utf8(bytes.to_vec()).ok()),
        Frame::Close(_) => bail!("Gitter closed the connection"),
        Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => Ok(None),
    }
}

/// Opens the WebSocket through the HTTP client, so that proxies and certificates are the same for all.
async fn open(endpoint: &Endpoint) -> anyhow::Result<Socket> {
    let mut url = endpoint.url.clone();
    let scheme = match url.scheme() {
        "ws" | "http" => "http",
        _ => "https",
    };
    url.set_scheme(scheme)
        .map_err(|()| anyhow!("The realtime address must begin with ws:// or wss://"))?;
    let key = generate_key();
    let response = endpoint
        .http
        .get(url)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .context("Cannot reach Gitter's realtime service")?;
    if response.status() != reqwest::StatusCode::SWITCHING_PROTOCOLS {
        bail!(
            "Gitter's realtime service answered with status {}",
            response.status().as_u16()
        );
    }
    let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accepted.is_none_or(|accepted| accepted != derive_accept_key(key.as_bytes()).as_str()) {
        bail!("What answers for Gitter's realtime service is no WebSocket");
    }
    let upgraded = response
        .upgrade()
        .await
        .context("Cannot open a WebSocket to Gitter")?;
    let limits = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(LONGEST_FRAME))
        .max_frame_size(Some(LONGEST_FRAME));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(limits)).await)
}
