//! What the server lets this account do at the moment: where names may stand.

use super::listener::Listener;

impl Listener {
    /// Asks for the settings of the server that matter to us.
    pub async fn renew_settings(&self) {
        self.shared.naming.renew(&self.shared.client).await;
    }
}
