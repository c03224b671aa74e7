//! Gitter's API as a silo.

mod capabilities;
mod config;
pub(crate) mod api;
mod room_profile;
mod errors;
mod rate_limiter;
mod client;
mod convert;
pub(crate) mod emoji;
mod delivery;
pub(crate) mod arrival;
mod find_code;
mod message_cache;
mod dispatcher;
mod channel;
mod bayeux;
mod realtime;
mod stream;
mod feed;

pub use capabilities::{CAPABILITIES, KIND, MARKDOWN};
pub use config::{Feed, GitterConfig};
#[cfg(test)]
pub(crate) use convert::body_from_html;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use footbridge_core::{
    capabilities::{Capabilities, Idempotency},
    clock::Clock,
    http_client,
    image::Image,
    inbox::Inbox,
    media_fetcher::MediaFetcher,
    message::Sender,
    outlet::{Done, Outlet, SendError, SimilarMessages, Step},
    peer_bridges::BridgeMarker,
    room_profile::{ProfileField, RoomProfile},
    spool::Spool,
};
use footbridge_store::{Millis, Place, RemoteId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::{
    api::Room,
    client::Client,
    dispatcher::{Dispatcher, ListenerContext},
    errors::{RequestError, SERVICE, no_channel},
    feed::FeedEndpoint,
    rate_limiter::RateLimiter,
};
use crate::{
    Account, Audience, Channel, Poster, Silo, SiloError, echoes::Echoes, reconnect::until_answered,
};

/// A message that a listing shows this long after its time should have arrived by the feed; less where audits follow
/// each other quickly.
const MISSED_AFTER: Duration = Duration::from_secs(30);
/// How long a list of the account's rooms is used to find one.
const ROOMS_TTL: Duration = Duration::from_mins(1);

/// A connection to Gitter.
pub struct Gitter {
    account: Account,
    settle: Duration,
    web: String,
    client: Arc<Client>,
    echoes: Arc<Echoes>,
    endpoint: FeedEndpoint,
    media: MediaFetcher,
    /// The id of the bridge's account, once requested.
    me: tokio::sync::OnceCell<String>,
    /// The account's rooms, to find many with one request.
    rooms: tokio::sync::Mutex<Option<(Instant, Vec<Room>)>>,
    /// The present names of rooms, for links to messages.
    names: Mutex<HashMap<String, String>>,
}

impl Gitter {
    /// Builds the silo; sends no request.
    pub fn new(
        config: GitterConfig,
        shared: reqwest::Client,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        // Neither a WebSocket nor an endless response fits the shared client's protocol and time limits.
        let lasting = http_client::streaming()?;
        let pacer = RateLimiter::new(config.requests_per_minute);
        let wire = FeedEndpoint {
            feed: config.feed,
            realtime: realtime::Endpoint {
                http: lasting.clone(),
                url: config.realtime,
                token: config.token.clone(),
            },
            stream: stream::Endpoint {
                http: lasting,
                url: config.stream,
                token: config.token.clone(),
            },
            overlap: config.overlap,
            audit: config.audit,
        };
        Ok(Self {
            web: website(&config.api),
            client: Arc::new(Client::new(shared, config.api, config.token, pacer, clock)),
            media: MediaFetcher::new(config.media_hosts)?,
            account: Account::new(config.name, &SERVICE),
            settle: config.settle,
            echoes: Arc::default(),
            endpoint: wire,
            me: tokio::sync::OnceCell::new(),
            rooms: tokio::sync::Mutex::default(),
            names: Mutex::default(),
        })
    }

    /// The account's id.
    async fn me(&self) -> Result<&str, RequestError> {
        let asked = self
            .me
            .get_or_try_init(async || self.client.user().await.map(|user| user.id));
        self.account.noted(asked.await.map(String::as_str))
    }

    /// The room with this name or id among those of the account.
    async fn own_room(&self, channel: &str) -> Result<Option<Room>, RequestError> {
        let mut known = self.rooms.lock().await;
        if known
            .as_ref()
            .is_none_or(|(at, _)| at.elapsed() > ROOMS_TTL)
        {
            *known = Some((Instant::now(), self.client.rooms().await?));
        }
        let rooms = known.iter().flat_map(|(_, rooms)| rooms);
        Ok(rooms
            .into_iter()
            .find(|room| {
                let uri = room.uri.as_deref();
                room.id == channel || uri.is_some_and(|uri| uri.eq_ignore_ascii_case(channel))
            })
            .cloned())
    }

    /// The channel with this URI or id; the account joins it, if `join`.
    async fn find(&self, channel: &str, join: bool) -> Result<Channel, RequestError> {
        let me = self.me().await?;
        let room = match self.own_room(channel).await? {
            Some(room) => room,
            None => self.client.find_room(channel).await?,
        };
        if join && room.member != Some(true) {
            // Reading works without joining, but mentions and the account's own removal are not reported.
            self.client.join(me, &room.id).await?;
        }
        let name = room.uri.or(room.name).unwrap_or_else(|| channel.to_owned());
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(room.id.clone(), name.clone());
        Ok(Channel {
            place: Place::new(&self.account.silo, &room.id),
            name,
            backfill: 0,
        })
    }
}

/// The website of an API address: `https://api.gitter.im/v1` is `https://gitter.im`.
fn website(api: &Url) -> String {
    let host = api.host_str().unwrap_or("gitter.im");
    let host = host.strip_prefix("api.").unwrap_or(host);
    match api.port() {
        Some(port) => format!("{}://{host}:{port}", api.scheme()),
        None => format!("{}://{host}", api.scheme()),
    }
}

#[async_trait]
impl Outlet for Gitter {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            idempotency: Idempotency::ByContent {
                settle: self.settle,
            },
            ..CAPABILITIES
        }
    }

    fn bridge_marker(&self, channel: &Place) -> Option<BridgeMarker> {
        Some(BridgeMarker {
            channel: format!("gitter/{}", channel.address()),
            account: self.me.get().cloned(),
        })
    }

    fn permalink(&self, to: &Place, message: &RemoteId) -> Option<String> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let room = to.address();
        let name = names.get(room).map_or(room, String::as_str);
        Some(format!("{}/{name}?at={message}", self.web))
    }

    fn local_time(&self, now: Millis) -> Millis {
        self.client.server_time(now)
    }

    async fn avatar(&self, of: &Sender, spool: &Spool) -> Result<Image, SendError> {
        let url = of.avatar.as_deref().unwrap_or_default();
        self.media.picture(url, spool).await
    }

    async fn perform(&self, to: &Place, _key: &str, step: &Step) -> Result<Done, SendError> {
        self.account.usable()?;
        let done = delivery::perform(
            &self.client,
            &self.echoes,
            &self.account.health,
            to.address(),
            step,
        )
        .await;
        self.account.noted(done).map_err(SendError::from)
    }

    fn has_answered_since(&self, _since: Millis) -> bool {
        self.account.is_live()
    }

    async fn find_similar(
        &self,
        to: &Place,
        step: &Step,
        since: Millis,
    ) -> Result<SimilarMessages, SendError> {
        let Some(text) = delivery::sent_text(step) else {
            return Ok(SimilarMessages::default());
        };
        self.account.usable()?;
        let me = self.me().await?;
        // Before the search: a message that appears later is the first attempt, published after the wait.
        self.echoes.note_search(to.address(), text);
        let found = delivery::find_similar(&self.client, me, to.address(), text, since).await;
        let found = self.account.noted(found)?;
        // They are the bridge's whether adopted or not: nobody else writes this text at this time.
        for copy in &found.copies {
            self.echoes.made(copy.remote.as_str());
        }
        Ok(found)
    }
}

#[async_trait]
impl Silo for Gitter {
    async fn whoami(&self) -> Result<String, SiloError> {
        let user = self.account.noted(self.client.user().await)?;
        Ok(user.username.unwrap_or(user.id))
    }

    async fn resolve(&self, channel: &str) -> Result<Channel, SiloError> {
        let found = self.account.noted(self.find(channel, true).await);
        found.map_err(no_channel)
    }

    async fn look_up(&self, channel: &str) -> Result<Channel, SiloError> {
        let found = self.account.noted(self.find(channel, false).await);
        found.map_err(no_channel)
    }

    fn account(&self) -> &Account {
        &self.account
    }

    async fn listen(
        &self,
        channels: Vec<Channel>,
        inbox: Inbox,
        stop: CancellationToken,
    ) -> Result<(), SiloError> {
        let listened = async {
            let own_id = || async { self.client.user().await.map(|user| user.id) };
            let Some(me) = until_answered("the bridge's own account", own_id, &stop).await? else {
                return Ok(());
            };
            let context = ListenerContext {
                client: self.client.clone(),
                echoes: self.echoes.clone(),
                health: self.account.health.clone(),
            };
            let missed_after = MISSED_AFTER.min(self.endpoint.audit / 2);
            let (hub, receivers) =
                Dispatcher::new(&self.account.silo, me, context, missed_after, channels);
            feed::listen(hub, receivers, inbox, &self.endpoint, stop).await
        };
        self.account.listening(listened).await
    }

    async fn audience(&self, channel: &str) -> Audience {
        let room = self.own_room(channel).await.ok().flatten();
        Audience {
            public: room.and_then(|room| room.public),
            operator: self.web.split("://").last().unwrap_or_default().to_owned(),
        }
    }

    async fn find_code(&self, channel: &Place, code: &str) -> Result<Option<Poster>, SiloError> {
        let me = self.me().await?;
        let found = find_code::find(&self.client, me, channel.address(), code).await;
        Ok(self.account.noted(found)?)
    }

    async fn room_profile(&self, channel: &Place) -> Result<RoomProfile, SiloError> {
        self.read_profile(channel.address()).await
    }

    async fn set_profile_field(
        &self,
        channel: &Place,
        field: ProfileField,
        value: &str,
    ) -> Result<(), SiloError> {
        self.write_profile_field(channel.address(), field, value)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_messages_lead_to_the_website_of_the_api() {
        let site = |api: &str| website(&api.parse().unwrap());
        assert_eq!(site("https://api.gitter.im/v1"), "https://gitter.im");
        assert_eq!(site("http://127.0.0.1:4000/v1"), "http://127.0.0.1:4000");
        assert_eq!(site("https://chat.example/api/v1"), "https://chat.example");
    }
}
