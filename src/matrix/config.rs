//! The configuration of the Matrix side: `[matrix]` of `config.toml`, and the settings of other sections that it needs.

use std::{path::PathBuf, time::Duration};

use url::Url;

/// `[matrix]` of `config.toml`.
#[derive(Clone, Debug)]
pub struct MatrixConfig {
    /// The base URL, or a server name to be discovered.
    pub homeserver: Homeserver,
    /// `@bridge:example.org`
    pub user: ruma::OwnedUserId,
    /// Where `login` reads the password; without it `login` asks for the password.
    pub password_file: Option<PathBuf>,
    /// Where `login` reads the recovery key of an account that has a cross-signing identity already.
    pub recovery_key_file: Option<PathBuf>,
    /// The display name of the device.
    pub device_name: String,
    /// How long a lane waits for a missing room key before it delivers later messages.
    pub key_wait: Duration,
    /// Who may verify the bridge.
    pub admins: Vec<ruma::OwnedUserId>,
    /// From whom invites are accepted: user ids and servers (`[admin] users`). Empty: nobody.
    pub inviters: Vec<String>,
    /// The bridge's greeting in a room that it has just joined by such an invite.
    pub greeting: String,
    /// The settings of `[delivery]` that concern this side.
    pub timeouts: Timeouts,
}

/// Timeouts of the Matrix side; most come from `[delivery]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// When the other side gets a notice that a message cannot be decrypted yet.
    pub notice_after: Duration,
    /// When a room key is no longer expected.
    pub key_limit: Duration,
    /// When a send of unknown outcome is no longer repeated before the bridge has looked for it.
    pub unknown_after: Duration,
    /// How long the sender's device list may take to name the device of a message.
    pub device_wait: Duration,
    /// How long a verification of the bridge's device may take.
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

/// How the configuration names the homeserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Homeserver {
    /// By URL.
    Url(Url),
    /// By server name, to be looked up in `.well-known`.
    Name(ruma::OwnedServerName),
}

/// Whose messages are relayed, and which devices get room keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Cross-signed devices only.
    #[default]
    CrossSigned,
    /// Every device.
    AnyDevice,
}
