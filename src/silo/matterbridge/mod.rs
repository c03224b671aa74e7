//! Matterbridge's HTTP API as a silo: one API account, a gateway per portal, and behind each gateway the networks of
//! that Matterbridge.

mod capabilities;
mod config;
pub(crate) mod api;
mod errors;
mod client;
mod mentions;
pub(crate) mod convert;
pub(crate) mod emoji;
mod files;
pub(crate) mod arrival;
mod message_cache;
mod message_ids;
mod listener;
mod buffer;
mod connection;
mod feed;

pub use capabilities::{CAPABILITIES, KIND};
pub use config::MatterbridgeConfig;

use std::sync::Arc;

use async_trait::async_trait;
use footbridge_core::{
    capabilities::Capabilities,
    clock::Clock,
    file::File,
    http_client,
    image::Image,
    inbox::Inbox,
    media_fetcher::MediaFetcher,
    message::{Sender, Style},
    outlet::{Content, Done, FetchedFile, Outlet, SendError, Step, no_files_error},
    peer_bridges::BridgeMarker,
    spool::{Spool, SpoolError, Spooled},
};
use footbridge_store::{Copy, Millis, Place, RemoteId};
use tokio_util::sync::CancellationToken;

use self::{
    api::Post,
    capabilities::MAX_FILE,
    client::Client,
    connection::FeedEndpoint,
    convert::{escape_mentions, file_name, name_of},
    errors::{RequestError, SERVICE},
    listener::Listener,
    message_cache::{AccountCheck, Observed},
};
use crate::{Account, Audience, Channel, Poster, Silo, SiloError};

/// The author of the bridge's own messages: a message without a name would be shown with an empty one.
const BRIDGE_NAME: &str = "Footbridge";

/// A connection to a Matterbridge.
pub struct Matterbridge {
    account: Account,
    host: String,
    avatar: String,
    client: Client,
    endpoint: FeedEndpoint,
    message_cache: Arc<Observed>,
    media: MediaFetcher,
    clock: Clock,
}

impl Matterbridge {
    /// Builds the silo; sends no request.
    pub fn new(config: MatterbridgeConfig, clock: Clock) -> anyhow::Result<Self> {
        let http = http_client::unpooled()?;
        let wire = FeedEndpoint {
            http: http.clone(),
            rest: Client::new(http.clone(), &config.api, config.token.clone()),
            api: config.api.clone(),
            token: config.token.clone(),
            ping: config.ping,
            audit: config.audit,
        };
        Ok(Self {
            account: Account::new(config.name, &SERVICE),
            host: config.api.host_str().unwrap_or_default().to_owned(),
            avatar: config.avatar.map(String::from).unwrap_or_default(),
            client: Client::new(http, &config.api, config.token),
            endpoint: wire,
            message_cache: Arc::new(Observed::of(config.account)),
            media: MediaFetcher::new(config.media_hosts)?,
            clock,
        })
    }

    async fn ready(&self) -> Result<(), RequestError> {
        self.account.noted(self.client.ready().await)
    }

    async fn send(
        &self,
        gateway: &str,
        key: &str,
        content: &Content,
        carried: Option<(&File, &Spooled)>,
    ) -> Result<Done, RequestError> {
        if !self.account.is_live() {
            // If Matterbridge is down, a proxy's response may leave the outcome of a message unknown.
            self.client.ready().await?;
        }
        let author = content.author.as_ref();
        let name = author.map_or_else(
            || BRIDGE_NAME.to_owned(),
            |author| name_of(&author.name, &author.id),
        );
        let post = Post {
            gateway,
            username: &name,
            userid: author.map_or("", |author| &author.id),
            avatar: &self.avatar,
            text: &content.text,
            event: if content.style == Style::Emote {
                "user_action"
            } else {
                ""
            },
        };
        let accepted = match carried {
            None => self.client.send(&post).await?,
            Some((file, spooled)) => {
                // Networks show the text or the caption; without a text, the description of the file replaces it.
                let description = escape_mentions(&file.in_words());
                let comment = if post.text.is_empty() {
                    &description
                } else {
                    post.text
                };
                let name = file_name(file);
                let (length, json) = files::message_with(post, &name, comment, spooled)?;
                self.client.send_long(length, json).await?
            }
        };
        if self.message_cache.learn(&accepted.account) == AccountCheck::Differs {
            tracing::warn!(silo.name = %self.account.silo,
                "Matterbridge uses another account name than `account` in the configuration; using Matterbridge's");
        }
        if self.message_cache.is_unconfirmed(gateway) {
            tracing::info!(silo.name = %self.account.silo, silo.channel = %gateway,
                "Matterbridge accepted a message for a gateway that has sent none yet; it also does so for gateways that do \
                 not exist: if nothing arrives there, check the name");
        }
        Ok(Done::Created(Copy {
            // Matterbridge gives no id, and reports nothing about the message later.
            remote: RemoteId(format!("sent/{key}")),
            thread: None,
            sent_at: accepted.sent_at().unwrap_or_else(|| self.clock.now()),
            file: None,
        }))
    }
}

#[async_trait]
impl Outlet for Matterbridge {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn bridge_marker(&self, channel: &Place) -> Option<BridgeMarker> {
        // Each of its API accounts has a port of its own.
        Some(BridgeMarker {
            channel: format!("matterbridge/{}/{}", self.host, channel.address()),
            account: self.message_cache.account(),
        })
    }

    async fn perform(&self, to: &Place, key: &str, step: &Step) -> Result<Done, SendError> {
        self.account.usable()?;
        let Step::Post { content, .. } = step else {
            // Never planned for this silo.
            return Err(
                RequestError::Refused("Matterbridge accepts new messages only".to_owned()).into(),
            );
        };
        let done = self.send(to.address(), key, content, None).await;
        self.account.noted(done).map_err(SendError::from)
    }

    async fn fetch(&self, file: &File, spool: &Spool) -> Result<Spooled, SendError> {
        self.download(file, spool).await
    }

    async fn avatar(&self, of: &Sender, spool: &Spool) -> Result<Image, SendError> {
        let url = of.avatar.as_deref().unwrap_or_default();
        self.media.picture(url, spool).await
    }

    async fn send_file(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        file: &FetchedFile,
    ) -> Result<Done, SendError> {
        let spooled = &file.spooled;
        self.account.usable()?;
        let Step::SendFile { file, content, .. } = step else {
            return Err(no_files_error());
        };
        if spooled.length() > MAX_FILE {
            // The message did not state its size.
            return Err(SpoolError::TooLarge(MAX_FILE).into());
        }
        let carried = Some((file, spooled));
        let done = self.send(to.address(), key, content, carried).await;
        self.account.noted(done).map_err(SendError::from)
    }

    fn has_answered_since(&self, _since: Millis) -> bool {
        self.account.is_live()
    }
}

#[async_trait]
impl Silo for Matterbridge {
    async fn whoami(&self) -> Result<String, SiloError> {
        self.ready().await?;
        let account = self.message_cache.account();
        Ok(account
            .unwrap_or_else(|| format!("an API account of the Matterbridge at {}", self.host)))
    }

    async fn resolve(&self, channel: &str) -> Result<Channel, SiloError> {
        // The API has no list of gateways, and no response tells whether a gateway exists.
        self.ready().await?;
        Ok(Channel {
            place: Place::new(&self.account.silo, channel),
            name: channel.to_owned(),
            backfill: 0,
        })
    }

    fn knows_channels(&self) -> bool {
        false
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
        let (silo, known, media) = (
            &self.account.silo,
            self.message_cache.clone(),
            self.media.clone(),
        );
        let mut listener = Listener::open(silo, channels, inbox, known, media).await?;
        let health = &self.account.health;
        let listened = feed::follow(&mut listener, &self.endpoint, health, &stop);
        self.account.listening(listened).await
    }

    async fn audience(&self, _channel: &str) -> Audience {
        Audience {
            // Anybody in any of the networks of the gateway.
            public: None,
            operator: self.host.clone(),
        }
    }

    async fn find_code(&self, channel: &Place, code: &str) -> Result<Option<Poster>, SiloError> {
        Ok(self.message_cache.find(channel.address(), code))
    }
}

#[cfg(test)]
mod plan_tests;
