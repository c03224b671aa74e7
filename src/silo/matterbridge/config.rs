//! Matterbridge's section of `config.toml`.

use std::time::Duration;

use footbridge_core::{media_fetcher::MediaHost, secret::Secret};
use url::Url;

/// `[[silo]] kind = "matterbridge"`.
#[derive(Clone, Debug)]
pub struct MatterbridgeConfig {
    /// The name that portals call it by.
    pub name: String,
    /// What stands as `Token` in Matterbridge's API account (`token` or `token_file`); none where it has none.
    pub token: Option<Secret>,
    /// What `/api/…` stands behind.
    pub api: Url,
    /// Our API account as Matterbridge calls it, such as `api.footbridge`. What comes from it is our own echo. Learnt
    /// from the first answer where it is not given.
    pub account: Option<String>,
    /// A picture that every message of ours is shown with, where the network has such.
    pub avatar: Option<Url>,
    /// Where files are fetched from whose content Matterbridge does not pass on.
    pub media_hosts: Vec<MediaHost>,
    /// After how long a silence the connection is asked whether it lives; it has as long to answer.
    pub ping: Duration,
    /// How often Matterbridge's buffer is read for what the WebSocket left out.
    pub audit: Duration,
}
