//! Listens with one account: one connection (or one stream per channel), one listener per channel, and an audit that
//! re-reads the channels and finds missed messages.

use std::{convert::Infallible, sync::Arc, time::Duration};

use footbridge_core::inbox::Inbox;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::{
    api::{ChatMessage, id_at_time},
    channel::Listener,
    client::Range,
    config::Feed,
    dispatcher::{ChannelEvent, Dispatcher, EventReceiver},
    errors::RequestError,
    rate_limiter::Priority,
    realtime, stream,
};
use crate::{Channel, SiloError};

/// How often, at least, each channel is re-read with the stream, which reports no edits and deletions.
const REREAD_INTERVAL: Duration = Duration::from_mins(1);
/// How long Gitter allows edits.
const EDIT_WINDOW: Duration = Duration::from_mins(10);
/// The most pages of one re-reading.
const MAX_PAGES: usize = 5;

/// The addresses and intervals of the feed.
pub struct FeedEndpoint {
    /// Which feed.
    pub feed: Feed,
    /// For [`Feed::Realtime`].
    pub realtime: realtime::Endpoint,
    /// For [`Feed::Stream`].
    pub stream: stream::Endpoint,
    /// How far before the cursor catch-up re-reads.
    pub overlap: Duration,
    /// How often each channel is compared with the bridge's records.
    pub audit: Duration,
}

/// Listens until stopped.
pub async fn listen(
    hub: Dispatcher,
    ears: Vec<(Channel, EventReceiver)>,
    inbox: Inbox,
    wire: &FeedEndpoint,
    stop: CancellationToken,
) -> Result<(), SiloError> {
    let hub = Arc::new(hub);
    let listeners = FuturesUnordered::new();
    for (channel, ear) in ears {
        let opened = Listener::open(hub.clone(), inbox.clone(), channel, ear, wire.overlap);
        listeners.push(opened.await?.run());
    }
    let feed = async {
        match wire.feed {
            Feed::Realtime => realtime::follow(&hub, &wire.realtime, &stop).await,
            Feed::Stream => match stream::follow(&hub, &wire.stream).await? {},
        }
    };
    tokio::pin!(feed, listeners);
    let audited = audit(&hub, wire);
    tokio::pin!(audited);
    loop {
        tokio::select! {
            ended = &mut feed => return ended,
            ended = &mut audited => match ended? {},
            Some(ended) = listeners.next() => ended?,
            () = stop.cancelled(), if wire.feed == Feed::Stream => return Ok(()),
        }
    }
}

/// Re-reads the channels in turn, evenly spread, at the lowest priority: with many channels a round takes longer, and
/// nothing else is slowed down.
async fn audit(hub: &Dispatcher, wire: &FeedEndpoint) -> Result<Infallible, SiloError> {
    let feed = wire.feed;
    let every = match feed {
        Feed::Realtime => wire.audit,
        Feed::Stream => wire.audit.min(REREAD_INTERVAL),
    };
    let rooms: Vec<&str> = hub.rooms().collect();
    let Some(step) = step_of_round(every, rooms.len(), hub.client.audits_per_minute()) else {
        return std::future::pending().await;
    };
    let mut pages = 1;
    loop {
        for room in &rooms {
            // A channel that needed several pages lengthens the pause before the next one.
            tokio::time::sleep(step * pages).await;
            pages = 1;
            if hub.health.is_closed(room) {
                continue;
            }
            match reread(hub, room, feed).await {
                Ok((listing, read)) => {
                    pages = read;
                    hub.dispatch(room, listing);
                }
                Err(error @ RequestError::SignedOut(_)) => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(silo.channel = %room, error = %error, "Audit failed; it will be retried");
                }
            }
        }
    }
}

/// The pause between two channels of a round: short enough that each is read in time, but never so short that audits
/// exceed their share of the requests.
fn step_of_round(every: Duration, channels: usize, audits_per_minute: u32) -> Option<Duration> {
    let step = every.checked_div(u32::try_from(channels).ok()?)?;
    Some(step.max(Duration::from_mins(1) / audits_per_minute.max(1)))
}

/// A listing of all messages that can still change, and how many requests it took.
async fn reread(
    hub: &Dispatcher,
    room: &str,
    feed: Feed,
) -> Result<(ChannelEvent, u32), RequestError> {
    let mut pages = 1;
    let mut asked_at = hub.client.now();
    let newest = hub
        .client
        .messages(Priority::Audit, room, &Range::default())
        .await?;
    let (mut messages, mut full) = (newest.messages, newest.full);
    let reach = footbridge_store::Millis(
        asked_at
            .0
            .saturating_sub(i64::try_from(EDIT_WINDOW.as_millis()).unwrap_or_default()),
    );
    let oldest = messages.iter().map(ChatMessage::sent_at).min();
    if feed == Feed::Stream && full && oldest > Some(reach) {
        // A busy channel: read everything that may still be edited.
        messages.clear();
        let mut range = Range {
            after: Some(id_at_time(reach)),
            ..Range::default()
        };
        for _ in 0..MAX_PAGES {
            let page = hub.client.messages(Priority::Audit, room, &range).await?;
            pages += 1;
            range.skip += page.messages.len();
            full = page.full;
            messages.extend(page.messages);
            if !full {
                break;
            }
        }
        if full {
            // The end was not reached: the listing shows nothing after its last message.
            asked_at = messages
                .iter()
                .map(ChatMessage::sent_at)
                .max()
                .unwrap_or(reach);
        }
        full = true;
    }
    let listing = ChannelEvent::Listing {
        messages,
        full,
        asked_at,
    };
    Ok((listing, pages))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Mutex};

    use axum::{
        Json, Router,
        extract::{Path, Query, State},
        http::StatusCode,
        routing::get,
    };
    use footbridge_core::{
        clock::Clock,
        inbox::Signals,
        message::{Action, Message},
        secret::Secret,
    };
    use footbridge_store::{
        Batch, LaneId, Millis, Place, PortalSpec, QueueHead, Side, Store, StoreKey,
    };
    use serde_json::{Value, json};
    use tokio::task::JoinSet;

    use super::{
        super::{client::Client, dispatcher::ListenerContext},
        *,
    };
    use crate::gitter::rate_limiter::RateLimiter;

    const ROOM: &str = "5f1e00000000000000000000";

    /// The messages of the channel, in the order of its listing.
    type Shelf = Arc<Mutex<Vec<Value>>>;

    async fn list(
        State(shelf): State<Shelf>,
        Query(asked): Query<HashMap<String, String>>,
    ) -> Json<Vec<Value>> {
        let number = |name: &str| asked.get(name).and_then(|text| text.parse().ok());
        let (limit, skip): (usize, usize) =
            (number("limit").unwrap_or(50), number("skip").unwrap_or(0));
        let all = shelf.lock().unwrap().clone();
        let Some(after) = asked.get("afterId") else {
            let older = all.len().saturating_sub(limit);
            return Json(all.into_iter().skip(older).collect());
        };
        let newer = all
            .into_iter()
            .filter(|message| message["id"].as_str() > Some(after));
        Json(newer.skip(skip).take(limit).collect())
    }

    async fn one(
        State(shelf): State<Shelf>,
        Path((_, id)): Path<(String, String)>,
    ) -> Result<Json<Value>, StatusCode> {
        let shelf = shelf.lock().unwrap();
        let found = shelf.iter().find(|message| message["id"] == id.as_str());
        found.cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
    }

    /// A channel whose feed delivers nothing.
    struct Deaf {
        _home: tempfile::TempDir,
        shelf: Shelf,
        dispatcher: Arc<Dispatcher>,
        inbox: Inbox,
        lane: LaneId,
        listening: JoinSet<Result<(), SiloError>>,
        _serving: JoinSet<()>,
    }

    impl Deaf {
        async fn new() -> Self {
            let shelf = Shelf::default();
            let router = Router::new()
                .route("/v1/rooms/{room}/chatMessages", get(list))
                .route("/v1/rooms/{room}/chatMessages/{id}", get(one))
                .with_state(shelf.clone());
            let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let api = format!("http://{}/v1", socket.local_addr().unwrap());
            let mut serving = JoinSet::new();
            serving.spawn(async move { axum::serve(socket, router).await.unwrap() });
            let clock = Clock::start();
            let client = Client::new(
                footbridge_core::http_client::client().unwrap(),
                api.parse().unwrap(),
                Secret::new("token".to_owned()),
                RateLimiter::new(95),
                clock,
            );
            let home = tempfile::tempdir().unwrap();
            let channel = Channel {
                place: Place::new("gitter", ROOM),
                name: "org/room".to_owned(),
                backfill: 0,
            };
            let (inbox, lane) = Self::linked_an_hour_ago(home.path(), &channel, clock).await;
            let context = ListenerContext {
                client: Arc::new(client),
                echoes: Arc::default(),
                health: Arc::default(),
            };
            let deaf_after = Duration::from_secs(30);
            let us = "us".to_owned();
            let (hub, ears) = Dispatcher::new("gitter", us, context, deaf_after, vec![channel]);
            let hub = Arc::new(hub);
            let mut listening = JoinSet::new();
            for (channel, ear) in ears {
                let overlap = Duration::from_secs(10);
                let listener = Listener::open(hub.clone(), inbox.clone(), channel, ear, overlap);
                listening.spawn(listener.await.unwrap().run());
            }
            hub.dispatch(ROOM, ChannelEvent::Connected(Some(Vec::new())));
            Self {
                _home: home,
                shelf,
                dispatcher: hub,
                inbox,
                lane,
                listening,
                _serving: serving,
            }
        }

        async fn linked_an_hour_ago(
            home: &std::path::Path,
            channel: &Channel,
            clock: Clock,
        ) -> (Inbox, LaneId) {
            let key = StoreKey::read_or_create(&home.join("key")).unwrap();
            let store = Store::open(&home.join("data"), &key).await.unwrap();
            let (room, place) = (Place::room("!room"), &channel.place);
            let spec = PortalSpec {
                room: "!room".to_owned(),
                silo: "gitter".to_owned(),
                channel: channel.name.clone(),
            };
            let portal = store
                .open_portal(&spec, &room, place, Millis(0))
                .await
                .unwrap();
            let inbox = Inbox::new(store, Signals::default(), clock);
            let linked = (clock.now().0 - 3_600_000).to_string();
            let batch = Batch {
                cursors: vec![
                    (place.to_string(), linked.clone()),
                    (format!("{place}/since"), linked),
                ],
                ..Batch::default()
            };
            inbox.accept(batch).await.unwrap();
            let lane = LaneId {
                portal: portal.id,
                toward: Side::Matrix,
            };
            (inbox, lane)
        }

        /// A message of a minute ago that the feed did not deliver; returns its id.
        fn say(&self, text: &str) -> String {
            let mut shelf = self.shelf.lock().unwrap();
            let sent = Millis(self.inbox.clock().now().0 - 60_000);
            let id = format!("{}{:016x}", &id_at_time(sent)[..8], shelf.len() + 1);
            let stamp = jiff::Timestamp::from_millisecond(sent.0)
                .unwrap()
                .to_string();
            let author = json!({ "id": "bob", "username": "bob" });
            shelf
                .push(json!({ "id": id, "text": text, "sent": stamp, "fromUser": author, "v": 1 }));
            id
        }

        fn edit(&self, id: &str, text: &str) {
            let mut shelf = self.shelf.lock().unwrap();
            let message = shelf
                .iter_mut()
                .find(|message| message["id"] == id)
                .unwrap();
            message["text"] = text.into();
            message["editedAt"] = message["sent"].clone();
            message["v"] = 2.into();
        }

        async fn audited(&self, feed: Feed) {
            let (listing, _) = reread(&self.dispatcher, ROOM, feed).await.unwrap();
            self.dispatcher.dispatch(ROOM, listing);
        }

        async fn heard(&self) -> Action {
            let now = self.inbox.clock().now();
            for _ in 0..500 {
                if let QueueHead::Ready(found) =
                    self.inbox.store().queue_head(self.lane, now).await.unwrap()
                {
                    let done = self
                        .inbox
                        .store()
                        .complete_step(found.id, None, None, true, now);
                    done.await.unwrap();
                    return Message::from_bytes(&found.payload).unwrap().action;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("nothing arrived");
        }
    }

    #[tokio::test]
    async fn an_audit_finds_what_a_deaf_feed_left_out_and_asks_for_a_new_one() {
        let mut deaf = Deaf::new().await;
        let id = deaf.say("unheard");
        deaf.audited(Feed::Realtime).await;
        assert!(matches!(deaf.heard().await, Action::Post { .. }));
        let noticed =
            tokio::time::timeout(Duration::from_secs(5), deaf.dispatcher.missed.notified());
        noticed.await.expect("the feed is begun anew");

        deaf.edit(&id, "better");
        deaf.audited(Feed::Realtime).await;
        assert!(matches!(deaf.heard().await, Action::Edit { .. }));
        deaf.shelf.lock().unwrap().clear();
        deaf.audited(Feed::Realtime).await;
        assert!(matches!(deaf.heard().await, Action::Delete { .. }));
        assert!(
            deaf.listening.try_join_next().is_none(),
            "it goes on listening"
        );
    }

    #[test]
    fn d12_audits_stretch_with_the_number_of_channels() {
        let (minute, five) = (Duration::from_mins(1), Duration::from_mins(5));
        assert_eq!(step_of_round(five, 1, 9), Some(five));
        assert_eq!(step_of_round(five, 20, 9), Some(Duration::from_secs(15)));
        // 95 requests a minute leave nine to audits: 500 channels take nearly an hour.
        let step = step_of_round(five, 500, 9).unwrap();
        assert_eq!(step, minute / 9);
        assert_eq!(
            step_of_round(minute, 20, 9),
            Some(minute / 9),
            "beside the stream"
        );
        assert_eq!(step_of_round(five, 0, 9), None);
    }

    #[tokio::test]
    async fn an_audit_that_does_not_reach_back_reads_what_lies_between() {
        let deaf = Deaf::new().await;
        for number in 0..250 {
            deaf.say(&number.to_string());
        }
        deaf.audited(Feed::Realtime).await;
        for number in 0..250 {
            let Action::Post { body, .. } = deaf.heard().await else {
                panic!("a message");
            };
            assert_eq!(body.to_plain(), number.to_string());
        }
    }

    #[tokio::test]
    async fn beside_the_stream_everything_that_can_still_be_edited_is_read_again() {
        let deaf = Deaf::new().await;
        let first = deaf.say("first of many");
        for number in 0..250 {
            deaf.say(&number.to_string());
        }
        deaf.audited(Feed::Stream).await;
        for _ in 0..251 {
            assert!(matches!(deaf.heard().await, Action::Post { .. }));
        }
        deaf.edit(&first, "better");
        deaf.audited(Feed::Stream).await;
        assert!(
            matches!(deaf.heard().await, Action::Edit { target, .. } if target.as_str() == first)
        );
    }
}
