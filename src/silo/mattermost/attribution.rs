//! Where the names of authors stand: beside the text while the server shows the names that integrations choose, in the text
//! otherwise. The server keeps such a name with the post in either case and does not say which it is; it tells everybody when
//! its settings change.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{client::Client, errors::RequestError};
use crate::plan::Attribution;

/// Of one account.
pub struct AttributionState {
    silo: String,
    /// Whether the operator wants names beside the text.
    wanted: bool,
    is_bot: AtomicBool,
    is_permitted: AtomicBool,
}

impl AttributionState {
    /// Nothing is known yet: names stand in the text.
    pub fn new(silo: &str, wanted: bool) -> Self {
        Self {
            silo: silo.to_owned(),
            wanted,
            is_bot: AtomicBool::new(false),
            is_permitted: AtomicBool::new(false),
        }
    }

    /// Finds out for the first time what this account may.
    pub async fn begin(&self, client: &Client, is_bot: bool) -> Result<(), RequestError> {
        self.is_bot.store(is_bot, Ordering::Relaxed);
        if self.wanted && !self.ask(client).await? {
            tracing::warn!(silo.name = %self.silo,
                "`names = \"override\"` needs a bot account and a server that lets integrations override \
                 usernames; names stand in the text instead");
        }
        Ok(())
    }

    /// Finds out again. Where the server does not answer, names stay where they are until it is asked again.
    pub async fn renew(&self, client: &Client) {
        if !self.wanted {
            return;
        }
        let before = self.names();
        match self.ask(client).await {
            Ok(permits) if permits != (before == Attribution::Override) => {
                let place = if permits {
                    "names stand beside the text from now on"
                } else {
                    "names stand in the text from now on"
                };
                tracing::warn!(silo.name = %self.silo,
                    "Mattermost changed whether integrations may override usernames; {place}");
            }
            Ok(_) => {}
            Err(fault) => {
                tracing::warn!(silo.name = %self.silo, error = %fault,
                    "Mattermost does not tell its settings; names stay where they are");
            }
        }
    }

    async fn ask(&self, client: &Client) -> Result<bool, RequestError> {
        let settings = client.settings().await?;
        let permits = self.is_bot.load(Ordering::Relaxed) && settings.names == "true";
        self.is_permitted.store(permits, Ordering::Relaxed);
        Ok(permits)
    }

    /// Where they stand at the moment.
    pub fn names(&self) -> Attribution {
        if self.is_permitted.load(Ordering::Relaxed) {
            Attribution::Override
        } else {
            Attribution::Inline
        }
    }

    /// An answer shows that the server does not keep such a name.
    pub fn refused(&self) {
        if self.is_permitted.swap(false, Ordering::Relaxed) {
            tracing::warn!(silo.name = %self.silo,
                "Mattermost does not let this account show other names; they stand in the text from now on");
        }
    }
}
