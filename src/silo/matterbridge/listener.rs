//! What is heard of all gateways: sorted to its portals, made facts, written down. Knows no connection.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footbridge_core::{inbox::Inbox, media_fetcher::MediaFetcher};
use footbridge_store::{Arrival, Batch, Error, LinkBarrier, Millis, Place};
use tokio::time::Instant;

use super::{api::Event, arrival::arrival, message_cache::Observed, message_ids::MessageIds};
use crate::{Channel, server_clock::is_ahead};

/// Writing down that takes longer than this may have cost messages: Matterbridge keeps 256 for a client that does not
/// read, and then drops without a word.
const SLOW_WRITE: Duration = Duration::from_secs(5);

/// Where an event was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// On the WebSocket, as it was written.
    Live,
    /// In Matterbridge's buffer, where it may have been for long.
    Buffered,
}

/// How the writing down went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteSpeed {
    /// Fast enough.
    Good,
    /// So slowly that something may have been left out meanwhile.
    Slow,
}

/// The listener of all gateways.
pub struct Listener {
    /// The silo's name in the configuration.
    pub silo: String,
    inbox: Inbox,
    known: Arc<Observed>,
    media: MediaFetcher,
    identities: MessageIds,
    gateways: HashMap<String, GatewayState>,
    /// The newest link before which something may have been said that is still to be read.
    link: Option<LinkBarrier>,
}

struct GatewayState {
    place: Place,
    /// What was taken before this is history, by Matterbridge's clock; `None` until it was first connected to.
    since: Option<Millis>,
}

impl Listener {
    /// A listener for these gateways.
    pub async fn open(
        silo: &str,
        channels: Vec<Channel>,
        inbox: Inbox,
        (known, media): (Arc<Observed>, MediaFetcher),
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
        Ok(Self {
            silo: silo.to_owned(),
            inbox,
            known,
            media,
            identities: MessageIds::new(key),
            gateways,
            link,
        })
    }

    /// The buffer has been read to its end. What the WebSocket brings was said while it was open.
    pub async fn caught_up(&mut self) -> Result<(), Error> {
        if let Some(link) = self.link.take() {
            let places = self.gateways.values().map(|gateway| gateway.place.clone());
            let places = places.collect();
            self.inbox.store().lift_link_barriers(places, link).await?;
        }
        Ok(())
    }

    /// A connection began at this moment of Matterbridge's clock. Gateways that never had one start there: what was
    /// said before they were linked is not relayed.
    pub async fn begin(&mut self, theirs: Option<Millis>) -> Result<(), Error> {
        self.identities.begin();
        let now = theirs.unwrap_or_else(|| self.inbox.clock().now());
        let mut batch = Batch::default();
        for gateway in self.gateways.values_mut() {
            gateway.since = match gateway.since {
                None => Some(now),
                // Its clock was put back. The buffer was emptied at the first connection, so it holds no history.
                Some(since) if is_ahead(since, now) => {
                    tracing::warn!(silo.name = %self.silo, silo.channel = %gateway.place.address(),
                        "A gateway was linked at a moment that Matterbridge has not reached; all that it holds is read");
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

    /// Gives events that have just come in what they are known by.
    pub fn name(&mut self, events: &mut [Event], heard: EventSource) {
        self.identities.name(events, heard);
    }

    /// Writes down what is news. What was heard twice is recognised by the journal.
    pub async fn take(
        &mut self,
        events: &[Event],
        heard: EventSource,
    ) -> Result<WriteSpeed, Error> {
        let now = self.inbox.clock().now();
        let arrivals = events.iter();
        let arrivals: Vec<Arrival> = arrivals
            .filter_map(|event| self.sorted(event, heard, now))
            .collect();
        if arrivals.is_empty() {
            return Ok(WriteSpeed::Good);
        }
        let began = Instant::now();
        let batch = Batch {
            arrivals,
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

    fn sorted(&self, event: &Event, heard: EventSource, now: Millis) -> Option<Arrival> {
        if event.gateway.is_empty() || self.known.is_echo(event) {
            return None;
        }
        self.known.keep(event);
        let is_news = self.known.heard(&event.gateway);
        let Some(gateway) = self.gateways.get(&event.gateway) else {
            if is_news {
                tracing::warn!(silo.name = %self.silo, silo.channel = %event.gateway,
                    "Matterbridge has messages of a gateway that no portal names; they are not relayed");
            }
            return None;
        };
        let is_history = event.sent_at() < gateway.since && event.sent_at().is_some();
        // Only the buffer holds history. A clock that was put back must cost nothing that is heard live.
        if heard == EventSource::Buffered && is_history {
            return None;
        }
        arrival(&gateway.place, event, now, |url| self.media.allows_url(url))
    }
}

fn since_of(place: &Place) -> String {
    format!("{place}/since")
}
