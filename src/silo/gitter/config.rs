//! Gitter's section of `config.toml`.

use std::{sync::Arc, time::Duration};

use footbridge_core::{
    clock::Clock,
    config_keys::{HTTP, Key, TableReader, ValueError},
    media_fetcher::MediaHost,
    secret::Secret,
};
use url::Url;

use super::{Gitter, KIND};
use crate::{
    AnySilo, AnySiloConfig, SiloConfig,
    capabilities::SiloKind,
    config::{AUDIT, check_media_host, media_hosts},
};

static API: Key = Key::url_or("api", HTTP, "https://api.gitter.im/v1");
static STREAM: Key = Key::url_or("stream", HTTP, "https://stream.gitter.im/v1");
static REALTIME: Key = Key::url_or(
    "realtime",
    &["wss", "ws", "https", "http"],
    "wss://ws.gitter.im/bayeux",
);
static FEED: Key = Key::word("feed", &["realtime", "stream"]);
static REQUESTS: Key = Key::number("requests_per_minute", 1..=60_000, 95);
static SETTLE: Key = Key::duration("settle", 1..=300, 20);
static OVERLAP: Key = Key::duration("overlap", 0..=3600, 10);
static MEDIA_HOSTS: Key = Key::texts("media_hosts");

/// The keys of a Gitter.
pub static KEYS: &[&Key] = &[
    &API,
    &STREAM,
    &REALTIME,
    &FEED,
    &REQUESTS,
    &SETTLE,
    &OVERLAP,
    &MEDIA_HOSTS,
];

/// The requests per minute that Gitter's own API allows, and its host.
const GITTER_LIMIT: u32 = 100;
const GITTER_HOST: &str = "api.gitter.im";

/// `[[silo]] kind = "gitter"`.
#[derive(Clone, Debug)]
pub struct GitterConfig {
    /// The name that portals refer to it by.
    pub name: String,
    /// The account's token (`token` or `token_file`).
    pub token: Secret,
    /// Base URL of the REST API.
    pub api: Url,
    /// Base URL of the HTTP stream.
    pub stream: Url,
    /// URL of the Bayeux endpoint.
    pub realtime: Url,
    /// The hosts from which avatars are downloaded.
    pub media_hosts: Vec<MediaHost>,
    /// Which feed is used.
    pub feed: Feed,
    /// The bridge's own limit of requests per minute; Gitter allows 100.
    pub requests_per_minute: u32,
    /// How long after a lost response Gitter may still publish a message of the bridge.
    pub settle: Duration,
    /// How far catch-up re-reads before its cursor.
    pub overlap: Duration,
    /// How often each channel is compared with the bridge's records.
    pub audit: Duration,
}

/// The feed that delivers new messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feed {
    /// Bayeux over WebSocket: messages, edits and deletions.
    #[default]
    Realtime,
    /// The HTTP stream: new messages only; edits and deletions are found by re-reading.
    Stream,
}

impl SiloConfig for GitterConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static SiloKind {
        &KIND
    }

    fn build(&self, http: &reqwest::Client, clock: Clock) -> anyhow::Result<AnySilo> {
        Ok(Arc::new(Gitter::new(self.clone(), http.clone(), clock)?))
    }
}

/// Reads the section.
pub fn read(table: &mut dyn TableReader, name: Option<String>) -> Option<AnySiloConfig> {
    let token = table.token(true);
    let api = table.url(&API);
    let stream = table.url(&STREAM);
    let realtime = table.url(&REALTIME);
    let feed = match table.word(&FEED) {
        "stream" => Feed::Stream,
        _ => Feed::Realtime,
    };
    let settle = table.duration(&SETTLE);
    let overlap = table.duration(&OVERLAP);
    let audit = table.duration(&AUDIT);
    let named = table.texts(&MEDIA_HOSTS, &check_media_host);
    let media_hosts = if table.has(&MEDIA_HOSTS) {
        media_hosts(&named)
    } else {
        let around = api.as_ref().and_then(MediaHost::around);
        around.into_iter().collect()
    };
    let requests_per_minute = table.number(&REQUESTS);
    let is_gitters = api.as_ref().and_then(Url::host_str) == Some(GITTER_HOST);
    if is_gitters && requests_per_minute > GITTER_LIMIT {
        table.refuse(
            &REQUESTS,
            ValueError {
                code: "B28",
                what: format!(
                    "`requests_per_minute` is more than the {GITTER_LIMIT} that `api` allows"
                ),
                help: format!(
                    "write at most {GITTER_LIMIT}, better {}, or remove the line",
                    REQUESTS.default_number()
                ),
            },
            Some(format!(
                "`api` is https://{GITTER_HOST}, which refuses what goes beyond its limit"
            )),
        );
    }
    Some(Arc::new(GitterConfig {
        name: name?,
        token: token?,
        api: api?,
        stream: stream?,
        realtime: realtime?,
        media_hosts,
        feed,
        requests_per_minute,
        settle,
        overlap,
        audit,
    }))
}
