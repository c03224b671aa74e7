//! Configuration: `config.toml` becomes a [`Config`], or a [`Report`] of everything that is wrong with it. Nothing is
//! opened and nobody is asked before the whole file is parsed and checked.

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
    /// The file, so that diagnostics can point at places in it.
    pub source: Arc<Source>,
}

/// `[store]`: where the state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The data directory.
    pub path: PathBuf,
    /// The file with the key that seals the store.
    pub key_file: PathBuf,
    /// With fewer free bytes than this on its disk the bridge reads nothing more.
    pub min_free: u64,
}

/// `[[portal]]`: a room linked to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalConfig {
    /// A room alias or id.
    pub room: String,
    /// The name of a silo in the same file.
    pub silo: String,
    /// The channel's name in the silo.
    pub channel: String,
    /// Whose messages are relayed and who gets the bridge's room keys. The same for all portals.
    pub trust: Trust,
    /// Whether system messages of the silo (somebody joined, the topic changed) are relayed to the room.
    pub system_messages: bool,
    /// Whether notices in the room (`m.notice`) are relayed.
    pub notices: bool,
    /// Which reactions are relayed.
    pub reactions: EncryptedPolicy,
    /// Which files are relayed as links where the silo takes no files.
    pub file_links: EncryptedPolicy,
    /// How many old messages of the channel are relayed at first.
    pub backfill: u32,
    /// Which of their names, topics and avatars room and channel sync.
    pub shares: ProfileSync,
    /// The position of its `channel` in the file, in bytes.
    pub channel_span: std::ops::Range<usize>,
    /// The position of its `room` in the file, in bytes.
    pub room_span: std::ops::Range<usize>,
    /// Whether the file or the command line names it.
    pub origin: PortalSource,
}

impl PortalConfig {
    /// A portal of the command line, which has no position in the file.
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

/// `[media]`: relayed files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaConfig {
    /// The largest file that is relayed, in bytes.
    pub max_file: u64,
    /// Where people fetch files that a silo does not take.
    pub gateway: Option<GatewayConfig>,
}

/// The media gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The URL that links begin with.
    pub public_url: Url,
    /// Where it listens.
    pub listen: SocketAddr,
    /// How long a link is valid.
    pub good_for: Duration,
}

/// `[delivery]`: time limits and numbers of attempts, the same for all portals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryConfig {
    /// Whether consecutive short messages may be sent as one event while a room's backlog grows.
    pub coalesce: bool,
    /// After how long the other side gets a notice that a message cannot be decrypted yet.
    pub notice_after: Duration,
    /// After how long a room key is no longer expected.
    pub key_limit: Duration,
    /// After how long a send of unknown outcome is no longer repeated before the bridge has looked for it.
    pub unknown_after: Duration,
    /// How long a message is retried that the other side does not accept for now.
    pub give_up: Duration,
    /// How many attempts a message gets that the other side rejects as if for good.
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

/// `[consent]`: the notices that members of a room get, and how long they have to object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentConfig {
    /// The time from the consent of an encrypted room to the first message that is relayed.
    pub delay: Duration,
    /// The operator of this bridge, for the people in a room; `None` for the account's user id.
    pub operator: Option<String>,
    /// Whether new members of a room get a notice of where its messages are relayed to.
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

/// `[admin]`: the address of health and metrics, and the admins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address and port to listen on.
    pub listen: SocketAddr,
    /// Who may add portals and give consent for rooms: user ids, and servers all of whose users may. Those named by
    /// user id may verify the bridge as well.
    pub users: Vec<String>,
}

impl Config {
    /// Reads and checks the file. Relative paths in it are relative to its directory.
    pub fn load(path: &Path) -> Result<Self, Report> {
        read::load(path)
    }

    /// Checks the contents of a file.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, Report> {
        read::parse(path, bytes, None)
    }

    /// The trust setting, which is the same for all portals.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.portals
            .first()
            .map_or_else(Trust::default, |portal| portal.trust)
    }

    /// A report of diagnostics about this file.
    #[must_use]
    pub fn report(&self, diagnostics: Vec<Diagnostic>) -> Report {
        Report {
            source: Some(Arc::clone(&self.source)),
            diagnostics,
        }
    }
}
