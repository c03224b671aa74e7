//! The bridge's Gitter account: its id, and whether Gitter still accepts it.

use super::{Gitter, errors::RequestError};

impl Gitter {
    /// The account's id.
    pub(super) async fn me(&self) -> Result<&str, RequestError> {
        let id = self
            .me
            .get_or_try_init(async || self.client.user().await.map(|user| user.id))
            .await
            .inspect_err(|error| self.note(error))?;
        Ok(id)
    }

    /// Records an error that concerns the whole account, and logs it once.
    pub(super) fn note(&self, error: &RequestError) {
        if matches!(error, RequestError::SignedOut(_)) {
            self.health.signed_out();
            self.sign_out.say(&self.name, error);
        }
    }
}
