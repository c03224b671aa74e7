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
    /// Where the silo is, and the bridge's account there.
    pub silo: SiloAccess,
    /// More lines for the `[matrix]` section.
    pub matrix_options: String,
    /// The lines of the `[delivery]` section.
    pub delivery_options: String,
    /// More lines for the `[admin]` section, and whole sections behind it.
    pub admin_options: String,
    /// Which rooms are joined to which channels.
    pub portals: Vec<PortalSetup>,
    /// For `FOOTBRIDGE_LOG`.
    pub log_filter: String,
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

/// One portal.
#[derive(Clone)]
pub struct PortalSetup {
    /// Room id or alias.
    pub room: String,
    /// `org/room`
    pub channel: String,
}

pub(super) fn write(directory: &Path, setup: &Setup, admin: u16) -> anyhow::Result<()> {
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    write_secretly(&directory.join("password.txt"), &setup.password)?;
    write_secretly(&directory.join("gitter.token"), &setup.silo.token)?;
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
    let silo = &setup.silo;
    let head = format!(
        "[store]\npath = \"data\"\nkey_file = \"footbridge.key\"\n\n\
         [matrix]\nhomeserver = {}\nuser = {}\npassword_file = \"password.txt\"\n{}\n\n\
         [delivery]\n{}\n\n\
         [[silo]]\nname = \"gitter\"\nkind = \"gitter\"\ntoken_file = \"gitter.token\"\n\
         api = {}\nstream = {}\nrealtime = {}\n{}\n\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n{}\n\n",
        quoted(&setup.homeserver),
        quoted(&setup.user),
        setup.matrix_options,
        setup.delivery_options,
        quoted(&silo.api),
        quoted(&silo.stream),
        quoted(&silo.realtime),
        silo.options,
        setup.admin_options,
    );
    let portals = setup.portals.iter().map(|portal| {
        let (room, channel) = (quoted(&portal.room), quoted(&portal.channel));
        format!("[[portal]]\nroom = {room}\nsilo = \"gitter\"\nchannel = {channel}\n")
    });
    std::iter::once(head).chain(portals).collect()
}

/// JSON strings are TOML strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
