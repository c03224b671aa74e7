//! Where the names of authors go: outside of the text while the server shows overridden usernames, in the text
//! otherwise. The server stores such a name with the post in either case and does not say whether it shows it; it sends
//! an event when its settings change.

use std::sync::atomic::{AtomicBool, Ordering};

use footbridge_core::capabilities::Attribution;

use super::{client::Client, errors::RequestError};

/// The attribution of one account.
pub struct AttributionState {
    silo: String,
    /// Whether the operator wants overridden usernames.
    wanted: bool,
    is_bot: AtomicBool,
    is_permitted: AtomicBool,
}

impl AttributionState {
    /// Nothing is known yet: names go into the text.
    pub fn new(silo: &str, wanted: bool) -> Self {
        Self {
            silo: silo.to_owned(),
            wanted,
            is_bot: AtomicBool::new(false),
            is_permitted: AtomicBool::new(false),
        }
    }

    /// Checks for the first time whether the account may override usernames.
    pub async fn begin(&self, client: &Client, is_bot: bool) -> Result<(), RequestError> {
        self.is_bot.store(is_bot, Ordering::Relaxed);
        if self.wanted && !self.ask(client).await? {
            tracing::warn!(silo.name = %self.silo,
                "`names = \"override\"` needs a bot account and a server that lets integrations override \
                 usernames; the bridge puts names into the text instead");
        }
        Ok(())
    }

    /// Checks again. If the server does not answer, nothing changes until the next check.
    pub async fn renew(&self, client: &Client) {
        if !self.wanted {
            return;
        }
        let before = self.names();
        match self.ask(client).await {
            Ok(permits) if permits != (before == Attribution::Override) => {
                let effect = if permits {
                    "the bridge overrides usernames from now on"
                } else {
                    "the bridge puts names into the text from now on"
                };
                tracing::warn!(silo.name = %self.silo,
                    "Mattermost changed whether integrations may override usernames; {effect}");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(silo.name = %self.silo, error = %error,
                    "Failed to read Mattermost's settings; names stay where they are");
            }
        }
    }

    async fn ask(&self, client: &Client) -> Result<bool, RequestError> {
        let settings = client.settings().await?;
        let permits = self.is_bot.load(Ordering::Relaxed) && settings.names == "true";
        self.is_permitted.store(permits, Ordering::Relaxed);
        Ok(permits)
    }

    /// Where names go at present.
    pub fn names(&self) -> Attribution {
        if self.is_permitted.load(Ordering::Relaxed) {
            Attribution::Override
        } else {
            Attribution::Inline
        }
    }

    /// A response shows that the server does not store such a name.
    pub fn refused(&self) {
        if self.is_permitted.swap(false, Ordering::Relaxed) {
            tracing::warn!(silo.name = %self.silo,
                "Mattermost does not allow this account to override usernames; the bridge puts names into the text from now on");
        }
    }
}
