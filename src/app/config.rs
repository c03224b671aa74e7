//! `config.toml` becomes a [`Config`], or a [`Report`] of everything that is wrong with it. Nothing is opened
//! and nobody is asked before the whole file is understood.

pub mod diagnostic;
pub mod keys;
mod lists;
mod portal;
mod mask;
mod read;
pub mod secret_file;
mod sections;
mod silos;
pub mod values;
pub mod schema;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use footbridge_core::{lane::EncryptedPolicy, persons::Person, room_profile::ProfileSync};
use footbridge_matrix::{MatrixConfig, Trust};
use footbridge_silo::AnySiloConfig;
use footbridge_store::{PortalSource, PortalSpec};
use url::Url;

pub use diagnostic::{ColorChoice, Diagnostic, Exit, Report, Source};

/// Everything the operator decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[store]`
    pub store: StoreConfig,
    /// `[matrix]`
    pub matrix: MatrixConfig,
    /// Every `[[silo]]`.
    pub silos: Vec<AnySiloConfig>,
    /// Every `[[portal]]`.
    pub portals: Vec<PortalConfig>,
    /// Every `[[person]]`.
    pub people: Vec<Person>,
    /// `[delivery]`
    pub delivery: DeliveryConfig,
    /// `[media]`
    pub media: MediaConfig,
    /// `[consent]`
    pub consent: ConsentConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// The file, for pointing at places in it.
    pub source: Arc<Source>,
}

/// `[store]`: where everything is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The data directory.
    pub path: PathBuf,
    /// The file with the key that everything is sealed with.
    pub key_file: PathBuf,
    /// With less space than this many bytes on its disk nothing more is read.
    pub min_free: u64,
}

/// `[[portal]]`: a room joined to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalConfig {
    /// A room alias or id.
    pub room: String,
    /// The name of a silo in the same file.
    pub silo: String,
    /// The channel's name in the silo.
    pub channel: String,
    /// Whose messages are relayed and who gets our keys. The same for all portals.
    pub trust: Trust,
    /// Whether what the silo tells by itself (somebody joined, the topic changed) is shown in the room.
    pub system_messages: bool,
    /// Whether what machines say in the room (`m.notice`) crosses.
    pub notices: bool,
    /// Which reactions cross.
    pub reactions: EncryptedPolicy,
    /// Whose files are linked to where the silo takes none.
    pub file_links: EncryptedPolicy,
    /// How many messages that the channel has already are brought along.
    pub backfill: u32,
    /// What room and channel share of their names, topics and pictures.
    pub shares: ProfileSync,
    /// Where its `channel` stands in the file.
    pub channel_span: std::ops::Range<usize>,
    /// Where its `room` stands in the file.
    pub room_span: std::ops::Range<usize>,
    /// Whether it stands in the file or comes from the command line.
    pub origin: PortalSource,
}

impl PortalConfig {
    /// A portal of the command line, which has no place in the file.
    #[must_use]
    pub fn from_spec(spec: PortalSpec) -> Self {
        Self {
            room: spec.room,
            silo: spec.silo,
            channel: spec.channel,
            trust: Trust::default(),
            system_messages: false,
            notices: false,
            reactions: EncryptedPolicy::default(),
            file_links: EncryptedPolicy::default(),
            backfill: 0,
            shares: ProfileSync::default(),
            channel_span: 0..0,
            room_span: 0..0,
            origin: PortalSource::Operator,
        }
    }

    /// The portal as the store knows it.
    #[must_use]
    pub fn spec(&self) -> PortalSpec {
        PortalSpec {
            room: self.room.clone(),
            silo: self.silo.clone(),
            channel: self.channel.clone(),
        }
    }
}

/// `[media]`: files on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaConfig {
    /// The largest that is carried over, in bytes.
    pub most: u64,
    /// Where people fetch files that a silo does not take.
    pub gateway: Option<GatewayConfig>,
}

/// The media gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// What links begin with.
    pub public_url: Url,
    /// Where it listens.
    pub listen: SocketAddr,
    /// How long a link is good for.
    pub good_for: Duration,
}

/// `[delivery]`: how long and how often, the same for all portals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryConfig {
    /// Whether consecutive short messages may become one event while a room's backlog grows.
    pub coalesce: bool,
    /// After how long the other side is told that a message cannot be decrypted yet.
    pub notice_after: Duration,
    /// After how long a key is no longer expected.
    pub key_limit: Duration,
    /// After how long a send of unknown outcome is no longer repeated without looking for it.
    pub unknown_after: Duration,
    /// How long a message is tried that the other side does not take for now.
    pub give_up: Duration,
    /// How often a message is tried that the other side refuses as if for good.
    pub attempts: u32,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        use keys::delivery::{ATTEMPTS, COALESCE, GIVE_UP, KEY_LIMIT, NOTICE_AFTER, UNKNOWN_AFTER};
        Self {
            coalesce: COALESCE.default_flag(),
            notice_after: NOTICE_AFTER.default_duration(),
            key_limit: KEY_LIMIT.default_duration(),
            unknown_after: UNKNOWN_AFTER.default_duration(),
            give_up: GIVE_UP.default_duration(),
            attempts: ATTEMPTS.default_number(),
        }
    }
}

/// `[consent]`: what people are told, and how long they have to object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentConfig {
    /// How long after an encrypted room has agreed the first message crosses.
    pub delay: Duration,
    /// Who runs this bridge, for the people in a room; the account's user id when it is not said.
    pub operator: Option<String>,
    /// Whether whoever enters a room is told where it leads.
    pub disclose_joins: bool,
}

impl Default for ConsentConfig {
    fn default() -> Self {
        Self {
            delay: keys::consent::DELAY.default_duration(),
            operator: None,
            disclose_joins: keys::consent::DISCLOSE_JOINS.default_flag(),
        }
    }
}

/// `[admin]`: where health and metrics are asked for, and who may decide in a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address and port to listen on.
    pub listen: SocketAddr,
    /// Who may make portals and agree for rooms: user ids, and servers all of whose users may. Who is named by user id
    /// may verify the bridge as well.
    pub users: Vec<String>,
}

impl Config {
    /// Reads and checks the file. Relative paths in it are relative to its directory.
    pub fn load(path: &Path) -> Result<Self, Report> {
        read::load(path)
    }

    /// The same of what stands in a file.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, Report> {
        read::parse(path, bytes, None)
    }

    /// The one trust that all portals agree on.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.portals
            .first()
            .map_or_else(Trust::default, |portal| portal.trust)
    }

    /// A report of faults in this file.
    #[must_use]
    pub fn report(&self, faults: Vec<Diagnostic>) -> Report {
        Report {
            source: Some(Arc::clone(&self.source)),
            diagnostics: faults,
        }
    }
}
