//! What `[matrix]` of `config.toml` says, and what of other sections is for this side.

use std::{path::PathBuf, time::Duration};

use url::Url;

/// `[matrix]` of `config.toml`.
#[derive(Clone, Debug)]
pub struct MatrixConfig {
    /// The base URL, or a server name to be discovered.
    pub homeserver: Homeserver,
    /// `@bridge:example.org`
    pub user: ruma::OwnedUserId,
    /// Where `login` reads the password; it asks when absent.
    pub password_file: Option<PathBuf>,
    /// Where `login` reads the recovery key of an account that has a cross-signing identity already.
    pub recovery_key_file: Option<PathBuf>,
    /// The device's name as others see it.
    pub device_name: String,
    /// How long a lane waits for a missing key before it lets later messages pass.
    pub key_wait: Duration,
    /// Who may verify the bridge.
    pub admins: Vec<ruma::OwnedUserId>,
    /// Whose invites are accepted: user ids and servers (`[admin] users`), or nobody's.
    pub inviters: Vec<String>,
    /// What the bridge says in a room that it has just entered by the invite of one of them.
    pub greeting: String,
    /// What of `[delivery]` is for this side.
    pub timeouts: Timeouts,
}

/// How long this side waits for what; most of it is of `[delivery]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// After how long the other side is told that a message cannot be decrypted yet.
    pub notice_after: Duration,
    /// After how long a key is no longer expected.
    pub key_limit: Duration,
    /// After how long a send of unknown outcome is no longer repeated without looking for it.
    pub unknown_after: Duration,
    /// How long the list of a sender's devices may take that names the device of a message.
    pub device_wait: Duration,
    /// How long a verification of our device may take.
    pub verification: Duration,
    /// How often each portal's room is compared with its history.
    pub audit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            notice_after: Duration::from_secs(30),
            key_limit: Duration::from_hours(7 * 24),
            unknown_after: Duration::from_hours(20),
            device_wait: Duration::from_mins(1),
            verification: Duration::from_mins(10),
            audit: Duration::from_mins(5),
        }
    }
}

/// How the homeserver is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Homeserver {
    /// By URL.
    Url(Url),
    /// By server name, to be looked up in `.well-known`.
    Name(ruma::OwnedServerName),
}

/// Whose messages are relayed and who gets our keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Cross-signed devices only.
    #[default]
    CrossSigned,
    /// Every device.
    AnyDevice,
}
