//! Our account: who it is, what it may, and whether it is still let in.

use super::{Mattermost, api::User, errors::RequestError};

impl Mattermost {
    /// Our account. The first time it also finds out whether names may stand beside the text.
    pub(super) async fn me(&self) -> Result<&User, RequestError> {
        let asked = self.me.get_or_try_init(async || {
            let me = self.client.me().await?;
            self.attribution.begin(&self.client, me.is_bot).await?;
            Ok(me)
        });
        asked.await.inspect_err(|fault| self.note(fault))
    }

    /// Keeps what a fault says of the whole account, and says it once.
    pub(super) fn note(&self, fault: &RequestError) {
        if matches!(fault, RequestError::SignedOut) {
            self.health.signed_out();
            self.sign_out.say(&self.name, fault);
        }
    }
}
