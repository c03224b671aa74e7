//! The account's present permissions: whether a channel that it reads is open, and where names may go.

use super::{
    errors::{ARCHIVED_CHANNEL, RequestError},
    listener::{ListenError, Listener},
};

impl Listener {
    /// A channel was read. It is open if the account can also write in it, which it cannot in an archived one.
    pub(super) async fn reopen(&self, channel: &str) -> Result<(), ListenError> {
        if self.shared.client.channel(channel).await?.delete_at != 0 {
            return Err(ListenError::Request(RequestError::Closed(ARCHIVED_CHANNEL)));
        }
        if self.shared.health.caught_up(channel) {
            tracing::info!(silo.name = %self.silo, silo.channel = %channel, "Channel is open again");
        }
        Ok(())
    }

    /// Reads the settings of the server that concern the bridge.
    pub async fn renew_settings(&self) {
        self.shared.attribution.renew(&self.shared.client).await;
    }
}
