//! The files an operator would write: `config.toml`, a token file and a password file, readable by nobody else.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Everything a bridge needs to know.
#[derive(Clone)]
pub struct Setup {
    /// The `footbridge` program.
    pub binary: PathBuf,
    /// URL of the homeserver.
    pub homeserver: String,
    /// Full user id of the bridge's account.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Where the silos are, and the bridge's accounts there.
    pub silos: Vec<SiloSetup>,
    /// More lines for the `[matrix]` section.
    pub matrix_options: String,
    /// The lines of the `[delivery]` section.
    pub delivery_options: String,
    /// More lines for the `[admin]` section, and whole sections behind it.
    pub admin_options: String,
    /// Lines of `[media]`.
    pub media_options: String,
    /// Which rooms are joined to which channels.
    pub portals: Vec<PortalSetup>,
    /// For `FOOTBRIDGE_LOG`.
    pub log_filter: String,
}

/// A silo of any kind.
#[derive(Clone)]
pub struct SiloSetup {
    /// The name that portals call it by.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Of the bridge's account.
    pub token: String,
    /// The other lines of its section.
    pub lines: String,
}

/// A Gitter that may be anywhere.
#[derive(Clone)]
pub struct SiloAccess {
    /// REST.
    pub api: String,
    /// HTTP streams.
    pub stream: String,
    /// Bayeux.
    pub realtime: String,
    /// Of the bridge's account.
    pub token: String,
    /// More lines for the `[[silo]]` section.
    pub options: String,
}

impl SiloAccess {
    /// As the silo called `gitter`.
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
    /// The channel, as the silo writes it.
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

/// JSON strings are TOML strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
