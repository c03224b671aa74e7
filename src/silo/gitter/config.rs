//! Gitter's section of `config.toml`.

use std::time::Duration;

use footbridge_core::{media_fetcher::MediaHost, secret::Secret};
use url::Url;

/// `[[silo]] kind = "gitter"`.
#[derive(Clone, Debug)]
pub struct GitterConfig {
    /// The name that portals call it by.
    pub name: String,
    /// The account's token (`token` or `token_file`).
    pub token: Secret,
    /// Base URL of the REST API.
    pub api: Url,
    /// Base URL of the HTTP stream.
    pub stream: Url,
    /// URL of the Bayeux endpoint.
    pub realtime: Url,
    /// Where pictures of people are fetched from.
    pub media_hosts: Vec<MediaHost>,
    /// Which feed is followed.
    pub feed: Feed,
    /// Requests per minute that we allow ourselves; Gitter allows 100.
    pub requests_per_minute: u32,
    /// How long after a lost answer Gitter may still publish a message of ours.
    pub settle: Duration,
    /// How far catch-up re-reads before its cursor.
    pub overlap: Duration,
    /// How often each channel is compared with what we know of it.
    pub audit: Duration,
}

/// How new messages are heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feed {
    /// Bayeux over WebSocket: messages, edits and deletions.
    #[default]
    Realtime,
    /// The HTTP stream: new messages only; edits and deletions are found by re-reading.
    Stream,
}
