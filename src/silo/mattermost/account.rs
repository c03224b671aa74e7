//! The bridge's Mattermost account: its id, its rights, and whether Mattermost still accepts it.

use super::{Mattermost, api::User, errors::RequestError};

impl Mattermost {
    /// The account. The first call also checks whether the account may override usernames.
    pub(super) async fn me(&self) -> Result<&User, RequestError> {
        let asked = self.me.get_or_try_init(async || {
            let me = self.client.me().await?;
            self.attribution.begin(&self.client, me.is_bot).await?;
            Ok(me)
        });
        asked.await.inspect_err(|error| self.note(error))
    }

    /// Records an error that concerns the whole account, and logs it once.
    pub(super) fn note(&self, error: &RequestError) {
        if matches!(error, RequestError::SignedOut(_)) {
            self.health.signed_out();
            self.sign_out.say(&self.name, error);
        }
    }
}
