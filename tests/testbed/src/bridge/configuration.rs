//! The files that an operator writes: `config.toml`, a token file and a password file, which nobody else may read.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Everything that a bridge's configuration needs.
#[derive(Clone)]
pub struct Setup {
    /// The path of the `footbridge` program.
    pub binary: PathBuf,
    /// URL of the homeserver.
    pub homeserver: String,
    /// Full user id of the bridge's account.
    pub user: String,
    /// The account's password.
    pub password: String,
    /// The silos, with the bridge's accounts there.
    pub silos: Vec<SiloSetup>,
    /// More lines for the `[matrix]` section.
    pub matrix_options: String,
    /// The lines of the `[delivery]` section.
    pub delivery_options: String,
    /// More lines for the `[admin]` section, and whole sections after it.
    pub admin_options: String,
    /// The lines of the `[media]` section.
    pub media_options: String,
    /// The portals.
    pub portals: Vec<PortalSetup>,
    /// The value of `FOOTBRIDGE_LOG`.
    pub log_filter: String,
}

/// A silo of any kind.
#[derive(Clone)]
pub struct SiloSetup {
    /// The name by which portals refer to it.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// The token of the bridge's account.
    pub token: String,
    /// The other lines of its section.
    pub lines: String,
}

/// How to reach a Gitter, real or simulated.
#[derive(Clone)]
pub struct SiloAccess {
    /// The base URL of its REST API.
    pub api: String,
    /// The base URL of its HTTP streams.
    pub stream: String,
    /// The URL of its Bayeux endpoint.
    pub realtime: String,
    /// The token of the bridge's account.
    pub token: String,
    /// More lines for the `[[silo]]` section.
    pub options: String,
}

impl SiloAccess {
    /// The setup of this silo, under the name `gitter`.
    #[must_use]
    pub fn setup(&self) -> SiloSetup {
        let (api, stream) = (quoted(&self.api), quoted(&self.stream));
        let (realtime, options) = (quoted(&self.realtime), &self.options);
        SiloSetup {
            name: "gitter".to_owned(),
            kind: "gitter",
            token: self.token.clone(),
            lines: format!("api = {api}\nstream = {stream}\nrealtime = {realtime}\n{options}"),
        }
    }
}

/// One portal.
#[derive(Clone)]
pub struct PortalSetup {
    /// Room id or alias.
    pub room: String,
    /// The silo, by its name.
    pub silo: String,
    /// The channel, in the silo's notation.
    pub channel: String,
    /// More lines of its table.
    pub options: String,
}

pub(super) fn write(directory: &Path, setup: &Setup, admin: u16) -> anyhow::Result<()> {
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    write_secretly(&directory.join("password.txt"), &setup.password)?;
    for silo in &setup.silos {
        write_secretly(&directory.join(format!("{}.token", silo.name)), &silo.token)?;
    }
    write_secretly(&directory.join("config.toml"), &text(setup, admin))
}

fn write_secretly(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn text(setup: &Setup, admin: u16) -> String {
    let silos: String = setup.silos.iter().map(section).collect();
    let head = format!(
        "[store]\npath = \"data\"\nkey_file = \"footbridge.key\"\n\n\
         [matrix]\nhomeserver = {}\nuser = {}\npassword_file = \"password.txt\"\n{}\n\n\
         [delivery]\n{}\n\n{silos}\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n{}\n\n[media]\n{}\n\n",
        quoted(&setup.homeserver),
        quoted(&setup.user),
        setup.matrix_options,
        setup.delivery_options,
        setup.admin_options,
        setup.media_options,
    );
    let portals = setup.portals.iter().map(|portal| {
        let (room, silo, channel) = (&portal.room, &portal.silo, &portal.channel);
        let (room, silo, channel) = (quoted(room), quoted(silo), quoted(channel));
        let options = &portal.options;
        format!("[[portal]]\nroom = {room}\nsilo = {silo}\nchannel = {channel}\n{options}\n")
    });
    std::iter::once(head).chain(portals).collect()
}

fn section(silo: &SiloSetup) -> String {
    let SiloSetup {
        name, kind, lines, ..
    } = silo;
    format!(
        "[[silo]]\nname = \"{name}\"\nkind = \"{kind}\"\ntoken_file = \"{name}.token\"\n{lines}\n\n"
    )
}

/// A TOML string. JSON strings are TOML strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
