//! Listening to a whole account: one connection (or one stream per channel), one listener per channel, and an
//! auditor that re-reads what all of them should have heard.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::{
    api::{ChatMessage, id_of_moment},
    channel::Listener,
    client::{Client, Range},
    config::Feed,
    fault::Fault,
    hub::{Ear, Heard, Hub, pause},
    pacing::Need,
    realtime, stream,
};
use crate::{
    inbox::Inbox,
    silo::{Channel, SiloError},
};

/// How often each channel is re-read beside the realtime feed, which says everything by itself.
const AUDIT_EVERY: Duration = Duration::from_secs(300);
/// How often beside the stream, which says nothing of edits and deletions.
const REREAD_EVERY: Duration = Duration::from_secs(60);
/// As long as Gitter allows edits.
const EDITABLE: Duration = Duration::from_secs(600);
/// The most pages of one re-reading.
const MOST_PAGES: usize = 5;

/// How the feed reaches Gitter.
pub struct Wire {
    /// Which feed.
    pub feed: Feed,
    /// For [`Feed::Realtime`].
    pub realtime: realtime::Endpoint,
    /// For [`Feed::Stream`].
    pub stream: stream::Endpoint,
    /// How far catch-up goes back behind the cursor.
    pub overlap: Duration,
}

/// Listens until told to stop.
pub async fn listen(
    hub: Hub,
    ears: Vec<(Channel, Ear)>,
    inbox: Inbox,
    wire: &Wire,
    stop: CancellationToken,
) -> Result<(), SiloError> {
    let hub = Arc::new(hub);
    let listeners = FuturesUnordered::new();
    for seat in ears {
        let listener = Listener::open(hub.clone(), inbox.clone(), seat, wire.overlap).await?;
        listeners.push(listener.run());
    }
    let followed = async {
        match wire.feed {
            Feed::Realtime => match realtime::follow(&hub, &wire.realtime, &stop).await? {
                Some(never) => match never {},
                None => Ok(()),
            },
            Feed::Stream => match stream::follow(&hub, &wire.stream).await? {},
        }
    };
    tokio::pin!(followed, listeners);
    let audited = audit(&hub, wire.feed);
    tokio::pin!(audited);
    loop {
        tokio::select! {
            ended = &mut followed => return ended,
            ended = &mut audited => match ended? {},
            Some(ended) = listeners.next() => ended?,
            () = stop.cancelled(), if wire.feed == Feed::Stream => return Ok(()),
        }
    }
}

/// Finds out who we are, however long it takes; `None` when told to stop.
pub async fn introduce(
    client: &Client,
    stop: &CancellationToken,
) -> Result<Option<String>, SiloError> {
    let mut failures = 0;
    loop {
        let fault = tokio::select! {
            user = client.user() => match user {
                Ok(user) => return Ok(Some(user.id)),
                Err(Fault::SignedOut) => return Err(Fault::SignedOut.into()),
                Err(fault) => fault,
            },
            () = stop.cancelled() => return Ok(None),
        };
        tracing::warn!(error = %fault, attempt = failures + 1, "Gitter does not say who we are yet");
        let wait = match fault {
            Fault::Busy { after } => after,
            _ => pause(failures),
        };
        failures += 1;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// Re-reads the channels in turn, evenly spread, at the lowest priority: with many channels a round takes
/// longer, and nothing else does.
async fn audit(hub: &Hub, feed: Feed) -> Result<Infallible, SiloError> {
    let every = match feed {
        Feed::Realtime => AUDIT_EVERY,
        Feed::Stream => REREAD_EVERY,
    };
    let rooms: Vec<&str> = hub.rooms().collect();
    let count = u32::try_from(rooms.len()).unwrap_or(u32::MAX);
    let Some(step) = every.checked_div(count) else {
        return std::future::pending().await;
    };
    loop {
        for room in &rooms {
            tokio::time::sleep(step).await;
            if hub.health.is_closed(room) {
                continue;
            }
            match reread(hub, room, feed).await {
                Ok(listing) => hub.tell(room, listing),
                Err(Fault::SignedOut) => return Err(Fault::SignedOut.into()),
                Err(fault) => {
                    tracing::debug!(silo.channel = %room, error = %fault, "An audit did not come about");
                }
            }
        }
    }
}

async fn reread(hub: &Hub, room: &str, feed: Feed) -> Result<Heard, Fault> {
    let mut asked_at = hub.client.now();
    let newest = hub
        .client
        .messages(Need::Audit, room, &Range::default())
        .await?;
    let (mut messages, mut full) = (newest.messages, newest.full);
    let reach = footbridge_store::Millis(
        asked_at
            .0
            .saturating_sub(i64::try_from(EDITABLE.as_millis()).unwrap_or_default()),
    );
    let oldest = messages.iter().map(ChatMessage::sent_at).min();
    if feed == Feed::Stream && full && oldest > Some(reach) {
        // A busy channel: everything that may still be edited.
        messages.clear();
        let mut range = Range {
            after: Some(id_of_moment(reach)),
            skip: 0,
        };
        for _ in 0..MOST_PAGES {
            let page = hub.client.messages(Need::Audit, room, &range).await?;
            range.skip += page.messages.len();
            full = page.full;
            messages.extend(page.messages);
            if !full {
                break;
            }
        }
        if full {
            // The end was not reached: nothing can be said of what comes after the last one.
            asked_at = messages
                .iter()
                .map(ChatMessage::sent_at)
                .max()
                .unwrap_or(reach);
        }
        full = true;
    }
    Ok(Heard::Listing {
        messages,
        full,
        asked_at,
    })
}
