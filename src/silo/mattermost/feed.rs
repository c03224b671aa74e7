//! The feed: a WebSocket that numbers its events, and a reading of each channel after every new connection, after every
//! missing number and at intervals. While channels are read, events of the WebSocket are held, which keeps the order.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use anyhow::anyhow;
use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    api::{Event, Post, Reaction},
    connection::{EventSocket, FeedEndpoint},
    errors::{RequestError, SERVICE},
    listener::{EventSource, ListenError, Listener},
};
use crate::{
    SiloError,
    reconnect::{self, Connect, ConnectionEnd, Failures},
};

/// The most events that are held while channels are read; what exceeds it is left to the next reading.
const MAX_HELD: usize = 10_000;

/// Follows the feed over all its connections. Ends only when stopped, signed out, or when the store fails.
pub async fn follow(
    listener: &mut Listener,
    endpoint: &FeedEndpoint,
    stop: &CancellationToken,
) -> Result<(), SiloError> {
    let silo = listener.silo.clone();
    let mut feed = Feed { listener, endpoint };
    reconnect::follow(&mut feed, &silo, &SERVICE, stop).await
}

struct Feed<'a> {
    listener: &'a mut Listener,
    endpoint: &'a FeedEndpoint,
}

#[async_trait]
impl Connect for Feed<'_> {
    async fn connection(&mut self, stop: &CancellationToken) -> (ConnectionEnd, bool) {
        let mut connection = Connection {
            listener: self.listener,
            endpoint: self.endpoint,
            accepted: false,
            last: None,
            wanted: BTreeSet::new(),
            settings: true,
            held: Vec::new(),
        };
        let Err(mut end) = connection.run(stop).await;
        let accepted = connection.accepted;
        // With a refused token the server only closes the connection.
        if matches!(end, ConnectionEnd::Lost(_)) && !accepted && self.listener.is_signed_out().await
        {
            end = ConnectionEnd::SignedOut;
        }
        self.listener.behind();
        (end, accepted)
    }
}

/// One connection.
struct Connection<'a> {
    listener: &'a mut Listener,
    endpoint: &'a FeedEndpoint,
    /// Whether Mattermost accepted the connection.
    accepted: bool,
    /// The number of the last event.
    last: Option<u64>,
    /// Channels that must be read.
    wanted: BTreeSet<String>,
    /// Whether the server's settings must be read.
    settings: bool,
    /// Events that wait for a reading of channels.
    held: Vec<Event>,
}

impl Connection<'_> {
    async fn run(&mut self, stop: &CancellationToken) -> Result<Infallible, ConnectionEnd> {
        let mut socket = tokio::select! {
            () = stop.cancelled() => return Err(ConnectionEnd::Stopped),
            opened = EventSocket::open(self.endpoint) => opened?,
        };
        self.wanted.extend(self.listener.channels());
        let Err(ending) = self.listen(&mut socket, stop).await;
        socket.close().await;
        Err(ending)
    }

    async fn listen(
        &mut self,
        socket: &mut EventSocket,
        stop: &CancellationToken,
    ) -> Result<Infallible, ConnectionEnd> {
        let mut audit = Instant::now() + self.endpoint.audit;
        loop {
            if std::mem::take(&mut self.settings) {
                self.listener.renew_settings().await;
            }
            if !self.wanted.is_empty() {
                self.read_wanted(socket, stop).await?;
            }
            for event in std::mem::take(&mut self.held) {
                self.take(event).await?;
            }
            if !self.wanted.is_empty() {
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(ConnectionEnd::Stopped),
                event = socket.next() => {
                    if let Some(event) = event? {
                        self.note(event);
                    }
                }
                () = tokio::time::sleep_until(audit) => {
                    audit = Instant::now() + self.endpoint.audit;
                    self.settings = true;
                    self.audit(socket, stop).await?;
                }
            }
        }
    }

    /// Reads the channels that must be read, while events are held.
    async fn read_wanted(
        &mut self,
        socket: &mut EventSocket,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionEnd> {
        let channels = std::mem::take(&mut self.wanted);
        let mut held = HeldEvents::default();
        {
            let listener = &mut *self.listener;
            let reading = read_all(listener, channels);
            tokio::pin!(reading);
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(ConnectionEnd::Stopped),
                    done = &mut reading => {
                        done?;
                        break;
                    }
                    event = socket.next() => held.extend(event?),
                }
            }
        }
        self.accepted = true;
        if held.overflowed {
            tracing::warn!(silo.name = %self.listener.silo, "Event queue overflowed; catching up");
            self.wanted.extend(self.listener.channels());
        }
        for event in held.events {
            self.note(event);
        }
        Ok(())
    }

    /// Reads every channel to find messages that the connection missed.
    async fn audit(
        &mut self,
        socket: &mut EventSocket,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionEnd> {
        let channels: BTreeSet<String> = self.listener.channels().into_iter().collect();
        let mut held = HeldEvents::default();
        let missed = {
            let reading = read_all(&mut *self.listener, channels);
            tokio::pin!(reading);
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(ConnectionEnd::Stopped),
                    done = &mut reading => break done?,
                    event = socket.next() => held.extend(event?),
                }
            }
        };
        for event in held.events {
            self.note(event);
        }
        if missed > 0 || held.overflowed {
            return Err(ConnectionEnd::Lost(anyhow!(
                "the connection missed {missed} messages"
            )));
        }
        Ok(())
    }

    /// Holds an event, and checks its number for gaps.
    fn note(&mut self, event: Event) {
        let Some(number) = event.seq else {
            return;
        };
        let expected = self.last.map_or(0, |last| last + 1);
        if number > expected {
            tracing::warn!(silo.name = %self.listener.silo, missing = number - expected,
                "Events of Mattermost are missing; reading the channels");
            self.settings = true;
            self.wanted.extend(self.listener.channels());
        }
        self.last = self.last.max(Some(number));
        self.held.push(event);
    }

    /// Processes a held event.
    async fn take(&mut self, event: Event) -> Result<(), ConnectionEnd> {
        match event.word.as_str() {
            "posted" | "post_edited" | "post_deleted" => self.about_post(event).await,
            "reaction_added" | "reaction_removed" => self.about_reaction(&event).await,
            "user_removed" if event.data.user_id == self.listener.me => {
                self.listener
                    .close(channel_of(&event), "This account was removed from it");
                Ok(())
            }
            "user_added" if event.data.user_id == self.listener.me => {
                self.want(channel_of(&event));
                Ok(())
            }
            // An archived channel can still be read, and is checked like every closed channel.
            "channel_deleted" | "channel_restored" => {
                self.want(channel_of(&event));
                Ok(())
            }
            "config_changed" => {
                self.listener.renew_settings().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn about_post(&mut self, event: Event) -> Result<(), ConnectionEnd> {
        let Ok(mut post) = serde_json::from_str::<Post>(&event.data.post) else {
            tracing::warn!(silo.name = %self.listener.silo, "Unreadable event from Mattermost; reading the channel");
            match channel_of(&event) {
                "" => self.wanted.extend(self.listener.channels()),
                channel => self.want(channel),
            }
            return Ok(());
        };
        let channel = post.channel_id.clone();
        if !self.listener.has(&channel) {
            return Ok(());
        }
        if event.word == "post_deleted" {
            // Not every node sets the deletion time of the post.
            post.delete_at = post.delete_at.max(post.update_at).max(1);
            if post.root_id.is_empty() {
                // A thread is deleted with its first post, and the event names only that.
                self.want(&channel);
            }
        }
        let sender = event.data.sender_name.clone();
        let source = EventSource::Live { sender: &sender };
        match self.listener.take(&channel, vec![post], source).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn about_reaction(&mut self, event: &Event) -> Result<(), ConnectionEnd> {
        let channel = channel_of(event);
        if !self.listener.has(channel) {
            return Ok(());
        }
        let Ok(reaction) = serde_json::from_str::<Reaction>(&event.data.reaction) else {
            tracing::warn!(silo.name = %self.listener.silo, "Unreadable event from Mattermost; reading the channel");
            self.want(channel);
            return Ok(());
        };
        let added = event.word == "reaction_added";
        let taken = self.listener.take_reaction(channel, &reaction, added).await;
        taken.map_err(ConnectionEnd::from)
    }

    fn want(&mut self, channel: &str) {
        if self.listener.has(channel) {
            self.wanted.insert(channel.to_owned());
        }
    }
}

/// Events that arrived while channels were read.
#[derive(Default)]
struct HeldEvents {
    events: Vec<Event>,
    overflowed: bool,
}

impl HeldEvents {
    fn extend(&mut self, event: Option<Event>) {
        if self.events.len() < MAX_HELD {
            self.events.extend(event);
        } else {
            self.overflowed = true;
        }
    }
}

/// Reads these channels one after the other. One that is closed to the account does not stop the others.
async fn read_all(
    listener: &mut Listener,
    channels: BTreeSet<String>,
) -> Result<usize, ConnectionEnd> {
    let mut missed = 0;
    for channel in channels {
        missed += read_one(listener, &channel).await?;
    }
    Ok(missed)
}

async fn read_one(listener: &mut Listener, channel: &str) -> Result<usize, ConnectionEnd> {
    let mut failures = Failures::default();
    loop {
        match listener.catch_up(channel).await {
            Ok(missed) => return Ok(missed),
            Err(ListenError::Request(RequestError::Closed(reason))) => {
                listener.close(channel, reason);
                return Ok(0);
            }
            Err(ListenError::Request(error)) if !matches!(error, RequestError::SignedOut(_)) => {
                failures.note(Duration::ZERO, false);
                tracing::warn!(silo.channel = %channel, error = %error, attempt = failures.count(),
                    "Failed to read the channel; retrying");
                let wait = error.wait().unwrap_or_else(|| failures.pause());
                tokio::time::sleep(wait).await;
            }
            Err(failure) => return Err(failure.into()),
        }
    }
}

fn channel_of(event: &Event) -> &str {
    if event.broadcast.channel_id.is_empty() {
        &event.data.channel_id
    } else {
        &event.broadcast.channel_id
    }
}
