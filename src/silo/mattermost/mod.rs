//! Mattermost as a silo: one account, a channel of a team per portal.

mod capabilities;
mod account;
mod config;
pub(crate) mod api;
mod errors;
mod client;
mod posts;
mod files;
pub(crate) mod arrival;
mod attachment;
mod user_cache;
pub(crate) mod emoji;
mod attribution;
mod room_profile;
mod reactions;
mod removals;
mod server_settings;
mod channels;
mod delivery;
mod listener;
mod cursors;
mod paging;
mod connection;
mod feed;
mod find_code;

pub use capabilities::{CAPABILITIES, KIND, MARKDOWN};
pub use config::MattermostConfig;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use footbridge_core::{
    capabilities::{Attribution, Capabilities},
    file::File,
    http_client,
    image::Image,
    inbox::Inbox,
    media_fetcher::picture_of,
    message::Sender,
    outlet::{Done, FetchedFile, Outlet, SendError, Step},
    peer_bridges::BridgeMarker,
    reactions::ReactionState,
    room_profile::{ProfileField, RoomProfile},
    spool::{Spool, Spooled},
};
use footbridge_store::{Millis, Place, RemoteId};
use tokio_util::sync::CancellationToken;
use url::Url;

use self::{
    api::User,
    client::Client,
    connection::FeedEndpoint,
    errors::{RequestError, SERVICE, no_channel},
    listener::{Listener, ListenerContext},
};
use crate::{
    Account, Audience, Channel, Poster, Silo, SiloError, echoes::Echoes, reconnect::until_answered,
};

/// A connection to a Mattermost.
pub struct Mattermost {
    account: Account,
    url: Url,
    icon: Option<Url>,
    client: Arc<Client>,
    echoes: Arc<Echoes>,
    endpoint: FeedEndpoint,
    attribution: Arc<attribution::AttributionState>,
    /// The names of emoji that the server does not have.
    lacking: emoji::MissingEmoji,
    /// The bridge's account, once requested.
    me: tokio::sync::OnceCell<User>,
    /// The names of channels, and which are open to everybody on the server.
    known: Mutex<HashMap<String, (String, bool)>>,
}

impl Mattermost {
    /// Builds the silo; sends no request.
    pub fn new(config: MattermostConfig, shared: reqwest::Client) -> anyhow::Result<Self> {
        Ok(Self {
            endpoint: FeedEndpoint {
                http: http_client::streaming()?,
                url: config.url.clone(),
                token: config.token.clone(),
                ping: config.ping,
                audit: config.audit,
            },
            client: Arc::new(Client::new(shared, &config.url, config.token)),
            attribution: Arc::new(attribution::AttributionState::new(
                &config.name,
                config.names == Attribution::Override,
            )),
            account: Account::new(config.name, &SERVICE),
            url: config.url,
            icon: config.icon,
            echoes: Arc::default(),
            lacking: emoji::MissingEmoji::default(),
            me: tokio::sync::OnceCell::new(),
            known: Mutex::default(),
        })
    }
}

#[async_trait]
impl Outlet for Mattermost {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            attribution: self.attribution.names(),
            ..CAPABILITIES
        }
    }

    fn bridge_marker(&self, channel: &Place) -> Option<BridgeMarker> {
        Some(BridgeMarker {
            channel: format!("mattermost/{}", channel.address()),
            account: self.me.get().map(|me| me.id.clone()),
        })
    }

    fn permalink(&self, to: &Place, message: &RemoteId) -> Option<String> {
        Some(self.permalink(to.address(), message))
    }

    fn reaction_name(&self, key: &str, reacted: &[ReactionState]) -> Option<String> {
        emoji::WordedReactions::of(&self.lacking, reacted).emoji_for(key)
    }

    async fn perform(&self, to: &Place, key: &str, step: &Step) -> Result<Done, SendError> {
        self.account.usable()?;
        let done = self.step(to.address(), key, step).await;
        self.account.noted(done).map_err(SendError::from)
    }

    async fn delete_cascade(&self, _to: &Place, step: &Step) -> Result<Done, SendError> {
        let Step::Delete { target, .. } = step else {
            return Err(
                RequestError::Refused("Only a deletion can delete a thread".to_owned()).into(),
            );
        };
        let done = self.delete(target).await;
        self.account.noted(done).map_err(SendError::from)
    }

    async fn fetch(&self, file: &File, spool: &Spool) -> Result<Spooled, SendError> {
        let response = self.client.download(&file.source).await;
        let response = self.account.noted(response)?;
        Ok(spool.seal(response.bytes_stream()).await?)
    }

    async fn avatar(&self, of: &Sender, spool: &Spool) -> Result<Image, SendError> {
        let words = of.avatar.as_deref().unwrap_or_default();
        let response = self.client.fetch_avatar(words).await;
        picture_of(self.account.noted(response)?, spool).await
    }

    async fn thumbnail(&self, file: &File, spool: &Spool) -> Result<Image, SendError> {
        let response = self.client.preview(&file.source).await;
        picture_of(self.account.noted(response)?, spool).await
    }

    async fn send_file(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        file: &FetchedFile,
    ) -> Result<Done, SendError> {
        self.account.usable()?;
        let done = self.send_with(to.address(), key, step, &file.spooled).await;
        self.account.noted(done).map_err(SendError::from)
    }

    fn has_answered_since(&self, _since: Millis) -> bool {
        self.account.is_live()
    }

    async fn find_by_key(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        if !delivery::may_post(step) {
            return Ok(None);
        }
        self.account.usable()?;
        let found = self.find_made_post(to.address(), key, since).await;
        let found = self.account.noted(found)?;
        Ok(found.map(|post| Done::Created(delivery::copy_of_step(&post, step))))
    }
}

#[async_trait]
impl Silo for Mattermost {
    async fn whoami(&self) -> Result<String, SiloError> {
        let me = self.account.noted(self.client.me().await)?;
        Ok(me.username)
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
            let own_id = || async { self.me().await.map(|me| me.id.clone()) };
            let Some(me) = until_answered("the bridge's own account", own_id, &stop).await? else {
                return Ok(());
            };
            let shared = Arc::new(ListenerContext {
                client: self.client.clone(),
                echoes: self.echoes.clone(),
                health: self.account.health.clone(),
                attribution: self.attribution.clone(),
                people: user_cache::UserCache::default(),
            });
            let mut listener =
                Listener::open(&self.account.silo, me, channels, inbox, shared).await?;
            feed::follow(&mut listener, &self.endpoint, &stop).await
        };
        self.account.listening(listened).await
    }

    async fn audience(&self, channel: &str) -> Audience {
        let found = self.find(channel, false).await.ok();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let public =
            found.and_then(|found| known.get(found.place.address()).map(|(_, open)| *open));
        Audience {
            public,
            operator: self.url.host_str().unwrap_or_default().to_owned(),
        }
    }

    async fn find_code(&self, channel: &Place, code: &str) -> Result<Option<Poster>, SiloError> {
        let me = &self.me().await?.id;
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
