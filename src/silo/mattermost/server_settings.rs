//! What the server lets this account do at the moment: whether a channel that it reads is open, and where names may stand.

use super::{
    errors::{ARCHIVED_CHANNEL, RequestError},
    listener::{ListenError, Listener},
};

impl Listener {
    /// A channel was read. It is open if it can be written as well, which an archived one cannot.
    pub(super) async fn reopen(&self, channel: &str) -> Result<(), ListenError> {
        if self.shared.client.channel(channel).await?.delete_at != 0 {
            return Err(ListenError::Fault(RequestError::Closed(ARCHIVED_CHANNEL)));
        }
        if self.shared.health.caught_up(channel) {
            tracing::info!(silo.name = %self.silo, silo.channel = %channel, "Channel is open again");
        }
        Ok(())
    }

    /// Asks for the settings of the server that matter to us.
    pub async fn renew_settings(&self) {
        self.shared.attribution.renew(&self.shared.client).await;
    }
}
