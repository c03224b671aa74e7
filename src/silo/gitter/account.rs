//! Our account: who it is, and whether it is still let in.

use std::sync::atomic::Ordering;

use super::{Gitter, fault::Fault};

impl Gitter {
    /// Our account's id.
    pub(super) async fn me(&self) -> Result<&str, Fault> {
        let id = self
            .me
            .get_or_try_init(async || self.client.user().await.map(|user| user.id))
            .await
            .inspect_err(|fault| self.note(fault))?;
        Ok(id)
    }

    /// Keeps what a fault says of the whole account, and says it once.
    pub(super) fn note(&self, fault: &Fault) {
        if !matches!(fault, Fault::SignedOut) {
            return;
        }
        self.health.signed_out();
        if self.runs.load(Ordering::Relaxed) && !self.told.swap(true, Ordering::Relaxed) {
            tracing::error!(silo.name = %self.name,
                "{fault}, then start the bridge again; until then this silo's messages wait");
        }
    }
}
