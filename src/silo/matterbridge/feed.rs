//! The feed: the WebSocket, which brings everything as it is written and nothing twice, and behind every new connection
//! Matterbridge's buffer, which holds what was said meanwhile. The WebSocket is opened first, so that nothing falls
//! between the two; what it brings is held until the buffer is empty, so that nothing overtakes.

use std::{collections::HashSet, convert::Infallible, time::Duration};

use anyhow::anyhow;
use footbridge_core::backoff;
use footbridge_store::RemoteId;
use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    api::Event,
    buffer::Buffer,
    fault::Fault,
    health::Health,
    listener::{Heard, Listener, Pace},
    wire::{Ending, Wire, burst, first, open, ping},
};
use crate::{SiloError, socket::Socket};

/// A connection that lasted this long was a good one.
const STABLE: Duration = Duration::from_secs(30);
/// After connections that brought something the wait grows no longer than after this many failures.
const SHORT_LIVED: u32 = 3;
/// The same after connections that brought nothing: a minute at most.
const FAILED: u32 = 7;
/// What is held while the buffer is read, in messages and in bytes; beyond that it goes on out of order rather
/// than into memory.
const MOST_HELD: usize = 5_000;
const MOST_HELD_BYTES: usize = 16 << 20;

/// How long the last of the buffer is waited for when the connection is lost.
const SALVAGE: Duration = Duration::from_millis(100);

/// Follows the feed over all its connections. Ends only when stopped, signed out, or when the store fails.
pub async fn follow(
    listener: &mut Listener,
    wire: &Wire,
    health: &Health,
    stop: &CancellationToken,
) -> Result<(), SiloError> {
    let mut failures: u32 = 0;
    let mut held = Vec::new();
    loop {
        let began = Instant::now();
        let mut connection = Connection {
            listener,
            wire,
            health,
            begun: false,
            buffer: None,
            held_bytes: bytes_of(&held),
            held: std::mem::take(&mut held),
            event_ids: HashSet::new(),
        };
        let Err(mut ending) = connection.run(stop).await;
        let begun = connection.begun;
        held = std::mem::take(&mut connection.held);
        // A connection that broke while the buffer was read is followed by another one that reads on: what was heard
        // stands behind that, as long as it does not take long. Otherwise it is written down, order or not.
        if !(begun && matches!(ending, Ending::Lost(_)))
            && let Err(error) = listener.take(&std::mem::take(&mut held), Heard::Live).await
        {
            ending = Ending::Store(error);
        }
        health.behind();
        match ending {
            Ending::Stopped => return Ok(()),
            Ending::SignedOut => return Err(Fault::SignedOut.into()),
            Ending::Store(error) => return Err(SiloError::Store(error)),
            Ending::Lost(error) => {
                tracing::warn!(silo.name = %listener.silo, error = footbridge_core::error_chain::format(error.as_ref()), attempt = failures + 1,
                    "Lost the connection to Matterbridge");
            }
        }
        failures = if began.elapsed() > STABLE {
            0
        } else {
            (failures + 1).min(if begun { SHORT_LIVED } else { FAILED })
        };
        tokio::select! {
            () = tokio::time::sleep(backoff::after(failures)) => {}
            () = stop.cancelled() => {
                listener.take(&held, Heard::Live).await?;
                return Ok(());
            }
        }
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
    wire: &'a Wire,
    health: &'a Health,
    /// Whether Matterbridge let us in.
    begun: bool,
    /// The reading of Matterbridge's buffer, while it goes on.
    buffer: Option<Buffer>,
    /// What the WebSocket brought while the buffer is read behind a new connection, also that of the connection before.
    held: Vec<Event>,
    held_bytes: usize,
    /// What it brought while the buffer is read: where the buffer has come to that, it holds nothing else.
    event_ids: HashSet<RemoteId>,
}

/// How long the connection has been silent, and whether it was asked.
struct Pulse {
    last: Instant,
    asked: bool,
}

impl Connection<'_> {
    async fn run(&mut self, stop: &CancellationToken) -> Result<Infallible, Ending> {
        let opening = async {
            let mut socket = open(self.wire).await?;
            let theirs = first(&mut socket).await?;
            // Only now: from here on nothing falls between the two.
            let buffer = Buffer::open(self.wire).await?;
            Ok::<_, Ending>((socket, buffer, theirs))
        };
        let (mut socket, buffer, theirs) = tokio::select! {
            () = stop.cancelled() => return Err(Ending::Stopped),
            opened = opening => opened?,
        };
        self.begun = true;
        self.buffer = Some(buffer);
        self.listener.begin(theirs).await?;
        let Err(ending) = self.listen(&mut socket, stop).await;
        self.leave(&ending).await?;
        // Politeness only: Matterbridge forgets us by itself.
        let _sent = tokio::time::timeout(Duration::from_secs(1), socket.close(None)).await;
        Err(ending)
    }

    async fn listen(
        &mut self,
        socket: &mut Socket,
        stop: &CancellationToken,
    ) -> Result<Infallible, Ending> {
        let mut behind = true;
        let mut audit = Instant::now() + self.wire.audit;
        let mut pulse = Pulse {
            last: Instant::now(),
            asked: false,
        };
        loop {
            let silent = pulse.last + self.wire.ping * if pulse.asked { 2 } else { 1 };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Ending::Stopped),
                frame = socket.next() => {
                    pulse = Pulse { last: Instant::now(), asked: false };
                    let mut events = burst(frame, socket)?;
                    self.listener.name(&mut events, Heard::Live);
                    if self.buffer.is_some() {
                        self.event_ids.extend(events.iter().map(Event::event_id));
                    }
                    self.heard(events, behind).await?;
                }
                read = next_of(&mut self.buffer) => {
                    let done = match read? {
                        Some(mut events) => {
                            self.listener.name(&mut events, Heard::Buffered);
                            self.buffered(&events).await?
                        }
                        None => true,
                    };
                    if done {
                        self.buffer = None;
                        self.event_ids = HashSet::new();
                        audit = Instant::now() + self.wire.audit;
                        if std::mem::take(&mut behind) {
                            self.listener.caught_up().await?;
                            self.release().await?;
                            self.health.live();
                        }
                    }
                }
                () = tokio::time::sleep_until(silent) => {
                    if pulse.asked {
                        return Err(Ending::Lost(anyhow!("Matterbridge does not answer any more")));
                    }
                    pulse.asked = true;
                    ping(socket).await?;
                }
                () = tokio::time::sleep_until(audit), if self.buffer.is_none() => {
                    self.buffer = Some(Buffer::open(self.wire).await?);
                }
            }
        }
    }

    /// Takes what the WebSocket brought.
    async fn heard(&mut self, events: Vec<Event>, behind: bool) -> Result<(), Ending> {
        if !behind {
            return self.write(&events, Heard::Live).await;
        }
        self.held_bytes += bytes_of(&events);
        self.held.extend(events);
        if self.held.len() > MOST_HELD || self.held_bytes > MOST_HELD_BYTES {
            self.release().await?;
        }
        Ok(())
    }

    /// Takes what the buffer brought. Answers whether it holds nothing more that the WebSocket does not bring.
    async fn buffered(&mut self, events: &[Event]) -> Result<bool, Ending> {
        // The buffer is read from its oldest end, so what was heard before this stands before it: a connection that
        // broke may have brought what the buffer has dropped since.
        if let Some(reached) = events.iter().filter_map(Event::moment).min() {
            let held = std::mem::take(&mut self.held).into_iter();
            let is_earlier = |event: &Event| event.moment().is_some_and(|moment| moment < reached);
            let (earlier, later): (Vec<Event>, Vec<Event>) = held.partition(is_earlier);
            self.held = later;
            self.write(&earlier, Heard::Live).await?;
        }
        self.write(events, Heard::Buffered).await?;
        let mut events = events.iter();
        Ok(events.any(|event| self.event_ids.contains(&event.event_id())))
    }

    /// Writes down what was held.
    async fn release(&mut self) -> Result<(), Ending> {
        let held = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        self.write(&held, Heard::Live).await
    }

    async fn write(&mut self, events: &[Event], heard: Heard) -> Result<(), Ending> {
        match self.listener.take(events, heard).await? {
            Pace::Good => Ok(()),
            Pace::Slow => Err(Ending::Lost(anyhow!(
                "Writing down took so long that Matterbridge may have left something out; reading its buffer again"
            ))),
        }
    }

    /// Leaves the buffer, if it is being read: what came out of it already exists nowhere else. When told to stop, right
    /// behind a message, when Matterbridge does not look for the next one yet.
    async fn leave(&mut self, ending: &Ending) -> Result<(), Ending> {
        let Some(mut buffer) = self.buffer.take() else {
            return Ok(());
        };
        if matches!(ending, Ending::Stopped) {
            if let Ok(Some(mut events)) = buffer.next().await {
                self.listener.name(&mut events, Heard::Buffered);
                self.listener.take(&events, Heard::Buffered).await?;
            }
            return Ok(());
        }
        while let Ok(Ok(Some(mut events))) = tokio::time::timeout(SALVAGE, buffer.next()).await {
            self.listener.name(&mut events, Heard::Buffered);
            self.listener.take(&events, Heard::Buffered).await?;
        }
        Ok(())
    }
}

/// The next messages of the buffer, while it is read.
async fn next_of(buffer: &mut Option<Buffer>) -> Result<Option<Vec<Event>>, Fault> {
    match buffer {
        Some(buffer) => buffer.next().await,
        None => std::future::pending().await,
    }
}
