//! The listener of all gateways: it assigns events to portals, converts them to arrivals and writes them to the
//! journal. It knows no connection.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footbridge_core::{
    inbox::{Arrival, Batch, Inbox},
    media_fetcher::MediaFetcher,
};
use footbridge_store::{Error, LinkBarrier, Millis, Place};
use tokio::time::Instant;

use super::{api::Event, arrival::arrival, message_cache::Observed, message_ids::MessageIds};
use crate::{Channel, server_clock::is_ahead};

/// A write that takes longer may have cost messages: Matterbridge queues 256 for a client that does not read, and then
/// drops more silently.
const SLOW_WRITE: Duration = Duration::from_secs(5);

/// Where an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// The WebSocket, as it was written.
    Live,
    /// Matterbridge's buffer, where it may have been for long.
    Buffered,
}

/// How fast the write was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteSpeed {
    /// Fast enough.
    Good,
    /// So slow that messages may have been lost.
    Slow,
}

/// The listener of all gateways.
pub struct Listener {
    /// The silo's name in the configuration.
    pub silo: String,
    inbox: Inbox,
    message_cache: Arc<Observed>,
    media: MediaFetcher,
    identities: MessageIds,
    gateways: HashMap<String, GatewayState>,
    /// The newest link barrier: messages before that link may still be unread.
    link: Option<LinkBarrier>,
}

struct GatewayState {
    place: Place,
    /// Messages from before this are not relayed, by Matterbridge's clock; `None` until the first connection.
    since: Option<Millis>,
}

impl Listener {
    /// A listener for these gateways.
    pub async fn open(
        silo: &str,
        channels: Vec<Channel>,
        inbox: Inbox,
        known: Arc<Observed>,
        media: MediaFetcher,
    ) -> Result<Self, Error> {
        let mut gateways = HashMap::new();
        for channel in Channel::distinct(channels) {
            let stored = inbox.store().cursor(&since_of(&channel.place)).await?;
            let since = stored.and_then(|text| text.parse().ok()).map(Millis);
            let gateway = GatewayState {
                place: channel.place,
                since,
            };
            gateways.insert(gateway.place.address().to_owned(), gateway);
        }
        let places = gateways.values().map(|gateway| gateway.place.clone());
        let link = inbox.store().newest_link_barrier(places.collect()).await?;
        let key = inbox.store().naming_key("matterbridge").await?;
        let saved = inbox.store().cursor(&buffered_of(silo)).await?;
        Ok(Self {
            silo: silo.to_owned(),
            inbox,
            message_cache: known,
            media,
            identities: MessageIds::new(key, saved.as_deref()),
            gateways,
            link,
        })
    }

    /// The buffer was read to its end. Messages of the WebSocket were written while it was open.
    pub async fn caught_up(&mut self) -> Result<(), Error> {
        if let Some(link) = self.link.take() {
            let places = self.gateways.values().map(|gateway| gateway.place.clone());
            let places = places.collect();
            self.inbox.store().lift_link_barriers(places, link).await?;
        }
        Ok(())
    }

    /// The gateways that portals use.
    pub fn gateways(&self) -> impl Iterator<Item = &str> {
        self.gateways.keys().map(String::as_str)
    }

    /// A connection began at this time of Matterbridge's clock. Gateways without a start begin there: messages from
    /// before they were linked are not relayed.
    pub async fn begin(&mut self, server_time: Option<Millis>) -> Result<(), Error> {
        self.identities.begin();
        let now = server_time.unwrap_or_else(|| self.inbox.clock().now());
        let mut batch = Batch::default();
        for gateway in self.gateways.values_mut() {
            gateway.since = match gateway.since {
                None => Some(now),
                // Its clock was put back. The buffer was emptied at the first connection, so it holds no messages from
                // before the link.
                Some(since) if is_ahead(since, now) => {
                    tracing::warn!(silo.name = %self.silo, silo.channel = %gateway.place.address(),
                        "A gateway was linked at a time in Matterbridge's future; relaying everything in its buffer");
                    Some(Millis(0))
                }
                Some(_) => continue,
            };
            let now = gateway.since.unwrap_or(now);
            batch
                .cursors
                .push((since_of(&gateway.place), now.0.to_string()));
        }
        if !batch.cursors.is_empty() {
            self.inbox.accept(batch).await?;
        }
        Ok(())
    }

    /// Sets the ids of events that have just arrived.
    pub fn name(&mut self, events: &mut [Event], source: EventSource) {
        self.identities.name(events, source);
    }

    /// Writes new events. The journal recognises duplicates.
    pub async fn take(
        &mut self,
        events: &[Event],
        source: EventSource,
    ) -> Result<WriteSpeed, Error> {
        let now = self.inbox.clock().now();
        let arrivals = events.iter();
        let arrivals: Vec<Arrival> = arrivals
            .filter_map(|event| self.sorted(event, source, now))
            .collect();
        if arrivals.is_empty() {
            return Ok(WriteSpeed::Good);
        }
        let began = Instant::now();
        // The buffer is read message by message, and the process may end between two that are equal in everything.
        let cursors = match source {
            EventSource::Live => Vec::new(),
            EventSource::Buffered => vec![(buffered_of(&self.silo), self.identities.to_saved())],
        };
        let batch = Batch {
            arrivals,
            cursors,
            ..Batch::default()
        };
        self.inbox.accept(batch).await?;
        let is_slow = began.elapsed() > SLOW_WRITE;
        Ok(if is_slow {
            WriteSpeed::Slow
        } else {
            WriteSpeed::Good
        })
    }

    fn sorted(&self, event: &Event, source: EventSource, now: Millis) -> Option<Arrival> {
        if event.gateway.is_empty() || self.message_cache.is_echo(event) {
            return None;
        }
        self.message_cache.keep(event);
        let is_news = self.message_cache.has_gateway(&event.gateway);
        let Some(gateway) = self.gateways.get(&event.gateway) else {
            if is_news {
                tracing::warn!(silo.name = %self.silo, silo.channel = %event.gateway,
                    "Matterbridge sends messages of a gateway without a portal; they are not relayed");
            }
            return None;
        };
        let is_before_link = event.sent_at() < gateway.since && event.sent_at().is_some();
        // Only the buffer holds messages from before the link. A clock that was put back must not cost a live message.
        if source == EventSource::Buffered && is_before_link {
            return None;
        }
        arrival(&gateway.place, event, now, |url| self.media.allows_url(url))
    }
}

fn buffered_of(silo: &str) -> String {
    format!("{silo}/buffered")
}

fn since_of(place: &Place) -> String {
    format!("{place}/since")
}
