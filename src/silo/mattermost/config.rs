//! `[[silo]]` with `kind = "mattermost"`.

use std::{sync::Arc, time::Duration};

use footbridge_core::{
    capabilities::Attribution,
    clock::Clock,
    config_keys::{HTTP, Key, TableReader, ValueError},
    secret::Secret,
};
use url::Url;

use super::{KIND, Mattermost};
use crate::{AnySilo, AnySiloConfig, SiloConfig, capabilities::SiloKind, config::AUDIT};

static URL: Key = Key::url("url", HTTP).required("\"https://chat.example.org\"");
static NAMES: Key = Key::word("names", &["text", "override"]);
static ICON: Key = Key::url("icon", HTTP);
static PING: Key = Key::duration("ping", 1..=300, 30);

/// The keys of a Mattermost.
pub static KEYS: &[&Key] = &[&URL, &NAMES, &ICON, &PING];

/// The address, the account and the intervals of a Mattermost.
#[derive(Clone, Debug)]
pub struct MattermostConfig {
    /// The name that portals refer to it by.
    pub name: String,
    /// A personal access token, or a bot's.
    pub token: Secret,
    /// The base URL of `/api/v4`.
    pub url: Url,
    /// Where the name of the author goes. [`Attribution::Override`] needs the server's permission.
    pub names: Attribution,
    /// The avatar of messages with an overridden username.
    pub icon: Option<Url>,
    /// How long the connection may be silent before a ping.
    pub ping: Duration,
    /// How often each channel is read while the WebSocket is open.
    pub audit: Duration,
}

impl SiloConfig for MattermostConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static SiloKind {
        &KIND
    }

    fn build(&self, http: &reqwest::Client, _clock: Clock) -> anyhow::Result<AnySilo> {
        Ok(Arc::new(Mattermost::new(self.clone(), http.clone())?))
    }
}

/// Reads the section.
pub fn read(table: &mut dyn TableReader, name: Option<String>) -> Option<AnySiloConfig> {
    let token = table.token(true);
    let url = table.url(&URL);
    if url
        .as_ref()
        .is_some_and(|url| url.path().contains("/api/v4"))
    {
        let error = ValueError {
            code: "B11",
            what: "`url` has the path of the API in it".to_owned(),
            help: "remove `/api/v4` and what follows".to_owned(),
        };
        table.refuse(&URL, error, None);
    }
    let names = match table.word(&NAMES) {
        "override" => Attribution::Override,
        _ => Attribution::Inline,
    };
    let icon = table.url(&ICON);
    let ping = table.duration(&PING);
    let audit = table.duration(&AUDIT);
    Some(Arc::new(MattermostConfig {
        name: name?,
        token: token?,
        url: url?,
        names,
        icon,
        ping,
        audit,
    }))
}
