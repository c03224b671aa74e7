//! The bridge's Mattermost account: its id and its rights.

use super::{Mattermost, api::User, errors::RequestError};

impl Mattermost {
    /// The account. The first call also checks whether the account may override usernames.
    pub(super) async fn me(&self) -> Result<&User, RequestError> {
        let asked = self.me.get_or_try_init(async || {
            let me = self.client.me().await?;
            self.attribution.begin(&self.client, me.is_bot).await?;
            Ok(me)
        });
        self.account.noted(asked.await)
    }
}
