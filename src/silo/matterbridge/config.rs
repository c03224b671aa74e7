//! Matterbridge's section of `config.toml`.

use std::{sync::Arc, time::Duration};

use footbridge_core::{
    clock::Clock,
    config_keys::{HTTP, Key, TableReader, ValueError},
    media_fetcher::MediaHost,
    secret::Secret,
};
use url::Url;

use super::{KIND, Matterbridge};
use crate::{
    AnySilo, AnySiloConfig, SiloConfig,
    capabilities::SiloKind,
    config::{AUDIT, check_media_host, media_hosts},
};

/// Where Matterbridge listens by its own example.
static API: Key = Key::url("api", HTTP).required("\"http://127.0.0.1:4242\"");
static ACCOUNT: Key = Key::text("account");
static AVATAR: Key = Key::url("avatar", &["https"]);
static MEDIA_HOSTS: Key = Key::texts("media_hosts");
static PING: Key = Key::duration("ping", 1..=300, 30);

/// The keys of a Matterbridge.
pub static KEYS: &[&Key] = &[&API, &ACCOUNT, &AVATAR, &MEDIA_HOSTS, &PING];

/// `[[silo]] kind = "matterbridge"`.
#[derive(Clone, Debug)]
pub struct MatterbridgeConfig {
    /// The name that portals refer to it by.
    pub name: String,
    /// The `Token` of Matterbridge's API account (`token` or `token_file`), if it has one.
    pub token: Option<Secret>,
    /// The base URL of `/api/…`.
    pub api: Url,
    /// Matterbridge's name of the bridge's API account, such as `api.footbridge`: its messages are the bridge's own
    /// echoes. If it is not configured, it is read from the first response.
    pub account: Option<String>,
    /// An avatar for every message of the bridge, where the network shows one.
    pub avatar: Option<Url>,
    /// The hosts from which files are downloaded whose content Matterbridge leaves out.
    pub media_hosts: Vec<MediaHost>,
    /// How long the connection may be silent before a ping, and the time limit for the pong.
    pub ping: Duration,
    /// How often Matterbridge's buffer is read for messages that the WebSocket missed.
    pub audit: Duration,
}

impl SiloConfig for MatterbridgeConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static SiloKind {
        &KIND
    }

    fn build(&self, _http: &reqwest::Client, clock: Clock) -> anyhow::Result<AnySilo> {
        Ok(Arc::new(Matterbridge::new(self.clone(), clock)?))
    }
}

/// Reads the section. Without `Token` in its API account Matterbridge lets everybody in, so none is required.
pub fn read(table: &mut dyn TableReader, name: Option<String>) -> Option<AnySiloConfig> {
    let token = table.token(false);
    let api = table.url(&API);
    let account = table.text(&ACCOUNT, &check_account);
    let avatar = table.url(&AVATAR);
    let named = table.texts(&MEDIA_HOSTS, &check_media_host);
    let ping = table.duration(&PING);
    let audit = table.duration(&AUDIT);
    Some(Arc::new(MatterbridgeConfig {
        name: name?,
        token,
        api: api?,
        account,
        avatar,
        media_hosts: media_hosts(&named),
        ping,
        audit,
    }))
}

/// An account as Matterbridge calls it: `[api.NAME]` in its own configuration.
fn check_account(text: &str) -> Result<(), ValueError> {
    let own = text.strip_prefix("api.").unwrap_or_default();
    if own.is_empty()
        || text.len() > 255
        || text.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(ValueError {
            code: "B04",
            what: format!("`{text}` is not the name of an API account"),
            help: "write it as Matterbridge's configuration does, without the brackets, for example \"api.footbridge\""
                .to_owned(),
        });
    }
    Ok(())
}
