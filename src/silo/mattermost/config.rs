//! `[[silo]]` with `kind = "mattermost"`.

use std::time::Duration;

use footbridge_core::secret::Secret;
use url::Url;

use crate::plan::Attribution;

/// How to reach a Mattermost.
#[derive(Clone, Debug)]
pub struct MattermostConfig {
    /// The name that portals call it by.
    pub name: String,
    /// A personal access token, or a bot's.
    pub token: Secret,
    /// What `/api/v4` stands behind.
    pub url: Url,
    /// Where the name of an author stands. Beside the text only where the server permits it.
    pub names: Attribution,
    /// A picture for messages whose author's name stands beside them.
    pub icon: Option<Url>,
    /// After how long a silence the connection is asked whether it is alive.
    pub ping: Duration,
    /// How often each channel is read beside the WebSocket.
    pub audit: Duration,
}
