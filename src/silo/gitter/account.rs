//! Our account: who it is, and whether it is still let in.

use super::{Gitter, errors::RequestError};

impl Gitter {
    /// Our account's id.
    pub(super) async fn me(&self) -> Result<&str, RequestError> {
        let id = self
            .me
            .get_or_try_init(async || self.client.user().await.map(|user| user.id))
            .await
            .inspect_err(|fault| self.note(fault))?;
        Ok(id)
    }

    /// Keeps what a fault says of the whole account, and says it once.
    pub(super) fn note(&self, fault: &RequestError) {
        if matches!(fault, RequestError::SignedOut) {
            self.health.signed_out();
            self.sign_out.say(&self.name, fault);
        }
    }
}
