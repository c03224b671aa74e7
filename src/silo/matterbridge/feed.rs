//! The feed: the WebSocket, which delivers each message once as it is written, and after every new connection
//! Matterbridge's buffer with the messages in between. The WebSocket is opened first, so that no message is lost
//! between the two; its messages are held until the buffer is empty, which keeps the order.

use std::{collections::HashSet, convert::Infallible, time::Duration};

use anyhow::anyhow;
use async_trait::async_trait;
use footbridge_store::RemoteId;
use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    api::Event,
    buffer::Buffer,
    connection::{FeedEndpoint, burst, first, open, ping},
    errors::{RequestError, SERVICE},
    listener::{EventSource, Listener, WriteSpeed},
};
use crate::{
    SiloError,
    feed_health::FeedHealth,
    reconnect::{self, Connect, ConnectionEnd},
    websocket::{Keepalive, Socket},
};

/// The limits of what is held while the buffer is read, in messages and in bytes; beyond them messages are written out
/// of order, to bound memory.
const MAX_HELD: usize = 5_000;
const MAX_HELD_BYTES: usize = 16 << 20;

/// How long to wait for the rest of the buffer when the connection was lost.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// Follows the feed over all its connections. Ends only when stopped, signed out, or when the store fails.
pub async fn follow(
    listener: &mut Listener,
    endpoint: &FeedEndpoint,
    health: &FeedHealth,
    stop: &CancellationToken,
) -> Result<(), SiloError> {
    let silo = listener.silo.clone();
    health.begin(listener.gateways());
    let mut feed = Feed {
        listener,
        endpoint,
        health,
        held: Vec::new(),
    };
    let ended = reconnect::follow(&mut feed, &silo, &SERVICE, stop).await;
    // Stopped while no connection was open.
    feed.listener.take(&feed.held, EventSource::Live).await?;
    ended
}

struct Feed<'a> {
    listener: &'a mut Listener,
    endpoint: &'a FeedEndpoint,
    health: &'a FeedHealth,
    /// Messages of the last connection that wait for the buffer.
    held: Vec<Event>,
}

#[async_trait]
impl Connect for Feed<'_> {
    async fn connection(&mut self, stop: &CancellationToken) -> (ConnectionEnd, bool) {
        let held = std::mem::take(&mut self.held);
        let mut connection = Connection {
            listener: self.listener,
            endpoint: self.endpoint,
            health: self.health,
            accepted: false,
            buffer: None,
            held_bytes: bytes_of(&held),
            held,
            event_ids: HashSet::new(),
        };
        let Err(mut end) = connection.run(stop).await;
        let accepted = connection.accepted;
        let held = std::mem::take(&mut connection.held);
        // After a connection that broke while the buffer was read, the next one reads on: the held messages come after
        // the buffer, if reconnecting is quick. Otherwise they are written out of order.
        if accepted && matches!(end, ConnectionEnd::Lost(_)) {
            self.held = held;
        } else if let Err(error) = self.listener.take(&held, EventSource::Live).await {
            end = ConnectionEnd::Store(error);
        }
        self.health.all_behind();
        (end, accepted)
    }
}

fn bytes_of(events: &[Event]) -> usize {
    let size = |event: &Event| {
        let files = event.files.iter().map(|file| file.data.len());
        event.text.len() + files.sum::<usize>()
    };
    events.iter().map(size).sum()
}

/// One connection.
struct Connection<'a> {
    listener: &'a mut Listener,
    endpoint: &'a FeedEndpoint,
    health: &'a FeedHealth,
    /// Whether Matterbridge accepted the connection.
    accepted: bool,
    /// The stream of Matterbridge's buffer, while it is read.
    buffer: Option<Buffer>,
    /// Messages of the WebSocket that wait for the buffer, also those of the previous connection.
    held: Vec<Event>,
    held_bytes: usize,
    /// Ids of the messages that the WebSocket delivered while the buffer is read: once the buffer returns one of them,
    /// the rest of it was delivered too.
    event_ids: HashSet<RemoteId>,
}

impl Connection<'_> {
    async fn run(&mut self, stop: &CancellationToken) -> Result<Infallible, ConnectionEnd> {
        let opening = async {
            let mut socket = open(self.endpoint).await?;
            let server_time = first(&mut socket).await?;
            // Only now: from here on no message is lost between the two.
            let buffer = Buffer::open(self.endpoint).await?;
            Ok::<_, ConnectionEnd>((socket, buffer, server_time))
        };
        let (mut socket, buffer, server_time) = tokio::select! {
            () = stop.cancelled() => return Err(ConnectionEnd::Stopped),
            opened = opening => opened?,
        };
        self.accepted = true;
        self.buffer = Some(buffer);
        self.listener.begin(server_time).await?;
        let Err(ending) = self.listen(&mut socket, stop).await;
        self.leave(&ending).await?;
        // Optional: Matterbridge drops the connection by itself.
        let _sent = tokio::time::timeout(Duration::from_secs(1), socket.close(None)).await;
        Err(ending)
    }

    async fn listen(
        &mut self,
        socket: &mut Socket,
        stop: &CancellationToken,
    ) -> Result<Infallible, ConnectionEnd> {
        let mut behind = true;
        let mut audit = Instant::now() + self.endpoint.audit;
        let mut keepalive = Keepalive::new(self.endpoint.ping);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(ConnectionEnd::Stopped),
                frame = socket.next() => {
                    keepalive.note_frame();
                    let mut events = burst(frame, socket)?;
                    self.listener.name(&mut events, EventSource::Live);
                    if self.buffer.is_some() {
                        self.event_ids.extend(events.iter().map(Event::event_id));
                    }
                    self.accept_events(events, behind).await?;
                }
                read = next_of(&mut self.buffer) => {
                    let done = match read? {
                        Some(mut events) => {
                            self.listener.name(&mut events, EventSource::Buffered);
                            self.buffered(&events).await?
                        }
                        None => true,
                    };
                    if done {
                        self.buffer = None;
                        self.event_ids = HashSet::new();
                        audit = Instant::now() + self.endpoint.audit;
                        if std::mem::take(&mut behind) {
                            self.listener.caught_up().await?;
                            self.release().await?;
                            self.health.all_caught_up();
                        }
                    }
                }
                () = tokio::time::sleep_until(keepalive.silent_at()) => {
                    let alive = keepalive.note_silence(SERVICE.name);
                    alive.map_err(ConnectionEnd::Lost)?;
                    ping(socket).await?;
                }
                () = tokio::time::sleep_until(audit), if self.buffer.is_none() => {
                    self.buffer = Some(Buffer::open(self.endpoint).await?);
                }
            }
        }
    }

    /// Handles events of the WebSocket.
    async fn accept_events(
        &mut self,
        events: Vec<Event>,
        behind: bool,
    ) -> Result<(), ConnectionEnd> {
        if !behind {
            return self.write(&events, EventSource::Live).await;
        }
        self.held_bytes += bytes_of(&events);
        self.held.extend(events);
        if self.held.len() > MAX_HELD || self.held_bytes > MAX_HELD_BYTES {
            self.release().await?;
        }
        Ok(())
    }

    /// Handles events of the buffer. Returns whether the WebSocket delivered all that the buffer still holds.
    async fn buffered(&mut self, events: &[Event]) -> Result<bool, ConnectionEnd> {
        // The buffer returns its oldest message first, so held messages that are older come first: a broken connection
        // may have delivered what the buffer has dropped since.
        if let Some(reached) = events.iter().filter_map(Event::moment).min() {
            let held = std::mem::take(&mut self.held).into_iter();
            let is_earlier = |event: &Event| event.moment().is_some_and(|moment| moment < reached);
            let (earlier, later): (Vec<Event>, Vec<Event>) = held.partition(is_earlier);
            self.held = later;
            self.write(&earlier, EventSource::Live).await?;
        }
        self.write(events, EventSource::Buffered).await?;
        let mut events = events.iter();
        Ok(events.any(|event| self.event_ids.contains(&event.event_id())))
    }

    /// Writes the held messages.
    async fn release(&mut self) -> Result<(), ConnectionEnd> {
        let held = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        self.write(&held, EventSource::Live).await
    }

    async fn write(&mut self, events: &[Event], source: EventSource) -> Result<(), ConnectionEnd> {
        match self.listener.take(events, source).await? {
            WriteSpeed::Good => Ok(()),
            WriteSpeed::Slow => Err(ConnectionEnd::Lost(anyhow!(
                "Writing to the store was slow, so Matterbridge may have dropped messages; reading its buffer"
            ))),
        }
    }

    /// Stops reading the buffer: what was read exists nowhere else. When the bridge stops, it ends right after a
    /// message, before Matterbridge removes the next one.
    async fn leave(&mut self, ending: &ConnectionEnd) -> Result<(), ConnectionEnd> {
        let Some(mut buffer) = self.buffer.take() else {
            return Ok(());
        };
        if matches!(ending, ConnectionEnd::Stopped) {
            if let Ok(Some(mut events)) = buffer.next().await {
                self.listener.name(&mut events, EventSource::Buffered);
                self.listener.take(&events, EventSource::Buffered).await?;
            }
            return Ok(());
        }
        while let Ok(Ok(Some(mut events))) =
            tokio::time::timeout(DRAIN_TIMEOUT, buffer.next()).await
        {
            self.listener.name(&mut events, EventSource::Buffered);
            self.listener.take(&events, EventSource::Buffered).await?;
        }
        Ok(())
    }
}

/// The next messages of the buffer, while it is read.
async fn next_of(buffer: &mut Option<Buffer>) -> Result<Option<Vec<Event>>, RequestError> {
    match buffer {
        Some(buffer) => buffer.next().await,
        None => std::future::pending().await,
    }
}
