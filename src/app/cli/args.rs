//! The grammar of the command line. The doc comments are the texts of `--help`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use ruma::OwnedUserId;

/// Links end-to-end encrypted Matrix rooms to chat apps, as an ordinary client.
#[derive(Debug, Parser)]
#[command(
    name = "footbridge",
    version,
    about,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Args {
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        env = "FOOTBRIDGE_CONFIG",
        default_value = "config.toml",
        global = true
    )]
    pub config: PathBuf,
    /// The format of the log on stderr. `FOOTBRIDGE_LOG` sets the level, for example `debug`.
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        global = true
    )]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Asks for account, silo, channel and room, logs in, writes the configuration and checks it.
    Init(Box<Init>),
    /// Converts Matterbridge's configuration, and lists what could not be converted.
    Import {
        /// Matterbridge's configuration. It is not changed.
        file: PathBuf,
    },
    /// Checks everything, changes nothing and reports all errors.
    Check(Check),
    /// Logs in with a password, once. A second call finishes an interrupted login.
    Login(LoginArgs),
    /// Runs the bridge until it is stopped.
    Run,
    /// Shows what was accepted, delivered, skipped, failed and is pending, per portal and direction.
    Status(Status),
    /// Adds, lists and removes portals besides those of the configuration.
    #[command(subcommand)]
    Portal(Portal),
    /// Lists what is relayed between a room and each kind of silo, and what is not.
    Silos,
    /// Shows, verifies or replaces the bridge's device.
    #[command(subcommand)]
    Device(Device),
    /// Logs the device out and deletes its keys. The queue, the links and the configuration stay.
    Logout(LogoutArgs),
}

/// `login`.
#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// Logs in a person instead of the bridge: what they write in a silo appears in the rooms as written by them.
    #[arg(long, value_name = "USER")]
    pub person: Option<OwnedUserId>,
    /// A file with the person's password. Asked for when absent.
    #[arg(long, value_name = "FILE", requires = "person")]
    pub password_file: Option<PathBuf>,
}

/// `logout`.
#[derive(Debug, clap::Args)]
pub struct LogoutArgs {
    /// Logs out the device of a person instead of the bridge's.
    #[arg(long, value_name = "USER")]
    pub person: Option<OwnedUserId>,
}

/// `init`: an option can answer every question beforehand.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// The homeserver's URL or server name. Taken from the user id when absent.
    #[arg(long, value_name = "URL")]
    pub homeserver: Option<String>,
    /// The bridge's own account, for example `@bridge:example.org`.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// A file with the account's password. Asked for when absent.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A file with the recovery key of an account that has a cross-signing identity already.
    #[arg(long, value_name = "FILE")]
    pub recovery_key_file: Option<PathBuf>,
    /// The kind of silo: `footbridge silos` lists them. Defaults to Gitter if the question cannot be asked.
    #[arg(long, value_name = "KIND")]
    pub silo_kind: Option<String>,
    /// A file with the silo's token. Asked for when absent.
    #[arg(long, value_name = "FILE")]
    pub silo_token_file: Option<PathBuf>,
    /// The base URL of the silo's API. Asked for if the silo is self-hosted.
    #[arg(long, value_name = "URL")]
    pub silo_api: Option<String>,
    /// The base URL of the silo's HTTP stream, when it is not the public one.
    #[arg(long, value_name = "URL")]
    pub silo_stream: Option<String>,
    /// The URL of the silo's realtime service, when it is not the public one.
    #[arg(long, value_name = "URL")]
    pub silo_realtime: Option<String>,
    /// The channel, for example `org/room`.
    #[arg(long, value_name = "NAME")]
    pub channel: Option<String>,
    /// The room's alias or id.
    #[arg(long, value_name = "ROOM")]
    pub room: Option<String>,
    /// Ask nothing; a missing answer is an error.
    #[arg(long)]
    pub yes: bool,
}

/// `check`
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Do not use the network.
    #[arg(long)]
    offline: bool,
}

/// Which checks `check` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckScope {
    /// Also those that ask the homeserver and the silos.
    Network,
    /// Only those that need no network.
    Offline,
}

impl Check {
    /// Which checks it runs.
    #[must_use]
    pub fn reach(&self) -> CheckScope {
        if self.offline {
            CheckScope::Offline
        } else {
            CheckScope::Network
        }
    }
}

/// `status`
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// The output format of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Status {
    /// The requested format.
    #[must_use]
    pub fn form(&self) -> OutputFormat {
        if self.json {
            OutputFormat::Json
        } else {
            OutputFormat::Text
        }
    }
}

/// `portal`
#[derive(Clone, Debug, Subcommand)]
pub enum Portal {
    /// Links a room to a channel, while the bridge is stopped. For an encrypted room this is the operator's consent.
    Add {
        /// The room's alias or id.
        room: String,
        /// The silo's name in the configuration.
        silo: String,
        /// The channel, for example `org/room`.
        channel: String,
    },
    /// Shows all portals: who created them, and why they are on hold.
    List,
    /// Removes a portal at once, while the bridge is stopped: its pending messages are dropped and erased.
    Remove {
        /// The room's alias or id.
        room: String,
        /// The silo's name, where the room has several portals.
        #[arg(requires = "channel")]
        silo: Option<String>,
        /// The channel.
        channel: Option<String>,
    },
}

/// `device`
#[derive(Clone, Debug, Subcommand)]
pub enum Device {
    /// User, device, fingerprint and master key: what others compare when they verify the bridge.
    Show,
    /// Compares seven emoji with the client of somebody on the list `[admin] users`. While the bridge runs, the
    /// verification is started in the client instead.
    Verify {
        /// Whom to ask. When absent, the command waits for somebody to ask.
        #[arg(value_name = "USER")]
        user: Option<String>,
    },
    /// Replaces this device, which is logged out, by a new one. Pending deliveries stay pending.
    Reset,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}
